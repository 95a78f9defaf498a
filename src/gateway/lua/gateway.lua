-- The request's way: find its unit, send it to the owner, hold it, or refuse it.
--
-- Variables of nginx carry the state, since ngx.ctx is lost over `error_page 421 = @again`:
--   interlock_target  where to proxy to          interlock_dc      the DC that it goes to
--   interlock_epoch, interlock_unit              interlock_method  the client's method
--   interlock_since   when the hold began (ms)   interlock_held    milliseconds held so far
--   interlock_rounds  421 answers so far         interlock_window  set while it counts as under way after a release
local answer = require "answer"
local constant_time = require "constant-time"
local counters = require "counters"
local hold = require "hold"
local request_headers = require "request-headers"
local routing_key = require "routing-key"
local rules = require "rules"
local settings = require "settings"

local ngx = ngx
local var = ngx.var
local get_headers, get_method, set_method = request_headers.get, ngx.req.get_method, ngx.req.set_method
local format, tonumber, max, min = string.format, tonumber, math.max, math.min

local M = {}

-- Reads are never held.
local SAFE = { GET = true, HEAD = true, OPTIONS = true }
-- What nginx itself never sends twice.
local NEVER_SENT_TWICE = { POST = true, PATCH = true, LOCK = true }
-- A request may be internally redirected ten times; each 421 is one.
local MAX_ROUNDS = 8
-- Waits (seconds) after a 421 when the rules here are not older than the refusal: store and gateway learn at slightly different times.
local BACKOFF = { 0.002, 0.005, 0.012, 0.03, 0.08, 0.2, 0.5, 1 }
local RETRY_AFTER_SECONDS = 1

local extractor, here, limits, peers, targets, default_target

local function now_ms()
  ngx.update_time()
  return ngx.now() * 1000
end

local function fence_refusal(reason, message, details)
  counters.refused()
  local current = rules.current()
  if current then var.interlock_epoch = current.epoch_text end
  details = details or {}
  details.reason = reason
  details.unit = var.interlock_unit
  return answer.fail(503, "WriteDisabled", message, details, RETRY_AFTER_SECONDS)
end

local HELD_MESSAGES = {
  HoldMs = "the unit is still write-disabled after the longest hold of this gateway; try again",
  HoldRequests = "the unit is write-disabled and this gateway holds as many requests as it may; try again",
  HoldBytes = "the unit is write-disabled and this gateway holds as many bytes as it may; try again",
}

-- The routing key's headers of a request that another gateway sent: true when its mark is genuine.
local function is_hop(headers)
  local from = headers["x-interlock-hop"]
  if not from then return false end
  return constant_time(headers["x-interlock-hop-token"], settings.hop_token)
end

-- An upgrade (WebSocket) cannot be held or sent again, and writes may go through it. The offer of h2c, which some clients make with each
-- request, is none: it is not passed on.
local function is_upgrade(headers)
  local upgrade = headers["upgrade"]
  return upgrade ~= nil and not (type(upgrade) == "string" and upgrade:lower() == "h2c")
end

-- Size of the request's body, which is read into the buffer (or a file) if it was not. Nil when it came in chunks and is larger than may
-- be replayed.
local function buffered_size(headers)
  local length = tonumber(headers["content-length"])
  ngx.req.read_body()
  if length then return length end
  if not headers["transfer-encoding"] then return 0 end
  local path = ngx.req.get_body_file()
  if path then
    local file = io.open(path, "rb")
    length = file and file:seek("end") or limits.replayBodyBytes + 1
    if file then file:close() end
  else
    length = #(ngx.req.get_body_data() or "")
  end
  if length > limits.replayBodyBytes then return nil end
  return length
end

-- Proxies to `owner`; a request that came from another gateway goes no further.
local function send(current, unit, owner, hopped, application)
  var.interlock_epoch = current.epoch_text
  if owner == here then
    local target = targets[application.name]
    if not target then
      counters.add("failed")
      return answer.fail(503, "Unavailable", format("application %s has no instance in %s", application.name, here), { what = application.name }, RETRY_AFTER_SECONDS)
    end
    if target ~= default_target then var.interlock_target = target end
    counters.routed(here)
    return
  end
  if hopped then
    ngx.header["X-Interlock-Refusal"] = "NotOwner"
    ngx.header["X-Interlock-Owner"] = owner
    ngx.header["X-Interlock-Unit"] = unit
    return answer.fail(421, "NotOwner", format("%s is owned by %s", unit, owner), { unit = unit, owner = owner, epoch = current.epoch })
  end
  var.interlock_target = peers[owner]
  var.interlock_dc = owner
  var.interlock_hop = here
  var.interlock_hop_token = settings.hop_token
  counters.routed(owner)
  counters.add("forwarded")
end

-- Resolves the request anew against rules: unit and assignment, or nil after having answered.
local function locate(current, key)
  local unit, assignment
  if key.unit then
    unit, assignment = key.unit, rules.of_unit(current, key.unit)
    if not assignment then
      answer.fail(503, "Unavailable", format("%s is not in the rules of epoch %s", unit, current.epoch_text), { unit = unit }, RETRY_AFTER_SECONDS)
      return nil
    end
  else
    unit, assignment = rules.of_user(current, key.user, key.region)
    if not unit then
      answer.fail(400, "BadInput", format("region %q is not routed; expected one of the topology's regions", assignment), { field = "region" })
      return nil
    end
  end
  return unit, assignment
end

-- Waits in the hold until `may_go`; returns after the release or a shorter time-out, else ends the request with 503.
-- `seconds` is a wait that is no failure (a back-off); without it the rest of the longest hold is waited.
local function wait(headers, unit, may_go, seconds)
  local began = now_ms()
  local since = tonumber(var.interlock_since)
  local left = limits.holdMs / 1000
  if since then
    left = left - (began - since) / 1000
    if left <= 0 then return fence_refusal("HoldMs", HELD_MESSAGES.HoldMs, { unit = unit }) end
  end
  if is_upgrade(headers) then
    return fence_refusal("Upgrade", "the unit is write-disabled and an upgrade cannot be held; try again")
  end
  -- A chunked body is counted as the largest that may be held until its size is known.
  local expected = tonumber(headers["content-length"]) or (headers["transfer-encoding"] and limits.replayBodyBytes) or 0
  if expected > limits.replayBodyBytes then
    return fence_refusal("BodyTooLarge", format("the unit is write-disabled and a body above %d bytes is not held; try again", limits.replayBodyBytes))
  end
  local place, bound = hold.enter(expected)
  if not place then return fence_refusal(bound, HELD_MESSAGES[bound]) end
  ngx.ctx.interlock_place = place
  if not since then
    var.interlock_since = format("%.3f", began)
    var.interlock_held = "0"
    counters.held()
  end
  local size = buffered_size(headers)
  if not size then
    hold.leave(place)
    return fence_refusal("BodyTooLarge", format("the unit is write-disabled and a body above %d bytes is not held; try again", limits.replayBodyBytes))
  end
  if size ~= expected then hold.resize(place, size) end
  if var.interlock_window ~= "" then
    var.interlock_window = ""
    hold.done()
  end
  -- A slow body has taken some of the time.
  left = left - (now_ms() - began) / 1000
  local released = hold.wait(place, min(left, seconds or left), may_go)
  hold.leave(place)
  ngx.ctx.interlock_place = nil
  var.interlock_held = format("%.1f", (tonumber(var.interlock_held) or 0) + now_ms() - began)
  if released then
    var.interlock_window = "1"
  elseif not seconds or seconds >= left then
    return fence_refusal("HoldMs", HELD_MESSAGES.HoldMs)
  end
  return true
end

local function assignment_of(newer, key)
  if key.unit then return rules.of_unit(newer, key.unit) end
  local unit, assignment = rules.of_user(newer, key.user, key.region)
  return unit and assignment
end

-- Rules, unit and assignment once the unit is open. (Apart from `route`: LuaJIT does not compile a function that makes a closure.)
local function wait_until_open(headers, key, unit)
  local function may_go(newer)
    local now = assignment_of(newer, key)
    -- No longer in the rules: go on, to be told so.
    return not now or now.open
  end
  local current, assignment
  repeat
    wait(headers, unit, may_go)
    current = rules.current()
    unit, assignment = locate(current, key)
    var.interlock_unit = unit
  until assignment.open
  return current, unit, assignment
end

-- Routes by the rules in force; holds an unsafe request as long as its unit is write-disabled.
local function route(current, headers, key, hopped, method)
  local unit, assignment = locate(current, key)
  if not unit then return end
  var.interlock_unit = unit
  local upgrade = is_upgrade(headers)
  local reads = SAFE[method] and not upgrade
  if not assignment.open and not reads then
    current, unit, assignment = wait_until_open(headers, key, unit)
  end
  send(current, unit, assignment.owner, hopped, key.application)
  if reads then return end
  -- nginx would send an idempotent method again after a lost connection, and the first may have executed. It spares POST: so all
  -- unsafe methods are POST to nginx, and `proxy_method` gives the upstream the client's.
  if not NEVER_SENT_TWICE[method] then set_method(ngx.HTTP_POST) end
  if upgrade then return ngx.exec("@upgrade") end
  local length = headers["content-length"]
  if length and (tonumber(length) or 0) > limits.replayBodyBytes then return ngx.exec("@stream") end
end

-- The routing key of the request, or nil after having answered.
local function key_of(headers)
  local kind, application, a, b = routing_key.extract(extractor, var.request_uri, headers)
  if kind == "key" then return { application = application, user = a, region = b } end
  if kind == "unit" then return { application = application, unit = a } end
  if kind == "missing" then
    answer.fail(400, "BadInput", format("no user id: application %s takes it from %s", application.name, application.sources), { field = "userId", application = application.name })
  elseif kind == "invalid" then
    answer.fail(400, "BadInput", format("%s: expected UTF-8 text without control characters, at most 256 bytes", b), { field = a, source = b })
  else
    answer.fail(404, "BadInput", "no application has this path", { field = "path" })
  end
  return nil
end

local function current_rules()
  local current = rules.current()
  if current then return current end
  counters.refused()
  answer.fail(503, "NoRules", "this gateway has no rules yet; the rule center of its data center sends them", nil, RETRY_AFTER_SECONDS)
  return nil
end

-- access_by_lua of the client's location.
function M.access()
  local current = current_rules()
  if not current then return end
  local headers = get_headers()
  local key = key_of(headers)
  if not key then return end
  return route(current, headers, key, is_hop(headers), get_method())
end

-- access_by_lua of @again: the upstream answered 421.
function M.again()
  local headers = get_headers()
  local refusal = var.upstream_http_x_interlock_refusal
  if not refusal then
    return answer.fail(421, "Refused", "the application answered 421 without x-interlock-refusal", nil)
  end
  local rounds = (tonumber(var.interlock_rounds) or 0) + 1
  var.interlock_rounds = rounds
  local refused_epoch = tonumber(var.upstream_http_x_interlock_epoch) or 0
  local refuser = var.interlock_dc
  if rounds > MAX_ROUNDS then
    return fence_refusal("Rounds", format("refused %d times (%s); try again", rounds, refusal))
  end
  local current = current_rules()
  if not current then return end
  local key = key_of(headers)
  if not key then return end
  var.interlock_target, var.interlock_dc, var.interlock_hop, var.interlock_hop_token = default_target, here, "", ""

  local sent_epoch = var.interlock_epoch
  if current.epoch < refused_epoch then
    -- The store knows more than this gateway: wait for the rules to catch up.
    wait(headers, var.interlock_unit, function(newer) return newer.epoch >= refused_epoch end)
  elseif current.epoch_text == sent_epoch and (assignment_of(current, key) or {}).owner == refuser then
    -- Nothing has changed here: the same again at once would be refused again.
    wait(headers, var.interlock_unit, function(newer) return newer.epoch_text ~= sent_epoch end, BACKOFF[rounds])
  end
  return route(rules.current(), headers, key, is_hop(headers), var.interlock_method)
end

-- access_by_lua of @unreplayable: a 421 for a body that went by unbuffered, or an upgrade.
function M.unreplayable()
  local refusal = var.upstream_http_x_interlock_refusal
  return fence_refusal("Stream", format("the unit has moved or is write-disabled (%s), and this request cannot be sent again from here; try again", refusal or "421"))
end

-- log_by_lua.
function M.log()
  local status = ngx.status
  if status >= 500 then
    local header_time = var.upstream_header_time
    -- 503 is counted where it is made; the others are nginx's own when the last upstream sent no header.
    if status ~= 503 and (not header_time or header_time:sub(-1) == "-") then counters.add("failed") end
  end
  if var.interlock_since ~= "" then
    local place = ngx.ctx.interlock_place
    if place then
      -- The client left, or nginx ended the request, while it was held.
      hold.forget(place)
      hold.leave(place)
    end
    if var.interlock_window ~= "" then hold.done() end
  end
end

local function sources_text(sources)
  local names = {}
  for i, source in ipairs(sources) do names[i] = source.name end
  return table.concat(names, ", ")
end

-- init_by_lua
function M.init()
  settings.load()
  here, limits, peers, targets = settings.dc, settings.limits, settings.peers, settings.targets
  default_target = settings.defaultTarget
  extractor = routing_key.compile(settings.applications)
  for _, prefix in ipairs(extractor) do prefix.value.sources = sources_text(prefix.value.user) end
  request_headers.want(routing_key.headers_of(extractor))
  request_headers.want { "content-length", "transfer-encoding", "upgrade", "x-interlock-hop", "x-interlock-hop-token" }
  rules.restore()
end

-- init_worker_by_lua
function M.init_worker()
  -- A request leaves little garbage, and the heap is mostly rules, which each cycle walks through: collect less often.
  collectgarbage("setpause", 400)
  hold.init_worker()
  local started, problem = ngx.timer.every(0.25, counters.flush)
  if not started then ngx.log(ngx.ERR, "interlock: cannot start the counters' timer: ", problem) end
end

return M
