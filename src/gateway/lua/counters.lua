-- What the gateway counts, since nginx was started. Hot counters are kept per worker and added to the shared dictionary
-- `interlock_counters` four times a second; what bounds or times something is there at once.
local settings = require "settings"

local dict = ngx.shared.interlock_counters
local pairs = pairs

local M = {}

-- `requests:<dc>` (sent to that DC), `forwarded` and so on, since the last flush.
local pending = {}

local function add(name)
  pending[name] = (pending[name] or 0) + 1
end
M.add = add

local keys_of_dc = {}

function M.routed(dc)
  local key = keys_of_dc[dc]
  if not key then
    key = "requests:" .. dc
    keys_of_dc[dc] = key
  end
  pending[key] = (pending[key] or 0) + 1
end

function M.flush()
  for name, count in pairs(pending) do
    if count ~= 0 then
      dict:incr(name, count, 0)
      pending[name] = 0
    end
  end
end

-- Unavailability: the time in which at least one write was held here (waiting after a 421 included), or one was refused and no newer
-- rules have come since. `busy` counts what makes it so; `busy_since` is there while it is above zero.

local function now_ms()
  ngx.update_time()
  return ngx.now() * 1000
end

function M.begin_unavailable()
  if dict:incr("busy", 1, 0) == 1 then dict:safe_add("busy_since", now_ms()) end
end

-- Another worker may begin between the last decrement and the deletion; its safe_add then did nothing. So look again at the end.
function M.end_unavailable()
  if dict:incr("busy", -1, 0) > 0 then return end
  local since = dict:get("busy_since")
  if since then
    dict:delete("busy_since")
    dict:incr("unavailable_ms", now_ms() - since, 0)
  end
  if (dict:get("busy") or 0) > 0 then dict:safe_add("busy_since", now_ms()) end
end

function M.held()
  dict:incr("held_total", 1, 0)
end

-- A write was answered 503 because of a fence: unavailable until the next rules.
function M.refused()
  dict:incr("refused", 1, 0)
  if dict:safe_add("refused_mark", true) then M.begin_unavailable() end
end

function M.rules_changed()
  if dict:get("refused_mark") then
    dict:delete("refused_mark")
    M.end_unavailable()
  end
end

local function value(name)
  return dict:get(name) or 0
end

function M.status()
  M.flush()
  local requests = {}
  for dc in pairs(settings.datacenters) do requests[dc] = value("requests:" .. dc) end
  local unavailable = value("unavailable_ms")
  local since = dict:get("busy_since")
  if since then unavailable = unavailable + now_ms() - since end
  return {
    held = value("held"),
    heldBytes = value("held_bytes"),
    heldTotal = value("held_total"),
    refusedTotal = value("refused"),
    failedTotal = value("failed"),
    forwardedTotal = value("forwarded"),
    unavailableMs = unavailable,
    requests = requests,
  }
end

return M
