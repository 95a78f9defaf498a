-- The admin endpoint: loopback only, bearer token.
local answer = require "answer"
local cjson = require "cjson.safe"
local constant_time = require "constant-time"
local counters = require "counters"
local hold = require "hold"
local rules = require "rules"
local settings = require "settings"

local format = string.format

local M = {}

local function put_rules()
  ngx.req.read_body()
  -- The body's buffer is as large as the largest body: it is never in a file.
  local body = ngx.req.get_body_data()
  local document, problem = cjson.decode(body or "")
  if document == nil then
    return answer.fail(400, "BadInput", "the body is not JSON: " .. tostring(problem), { field = "(document)" })
  end
  local taken, refusal = rules.put(document)
  if not taken then return answer.fail(refusal.status, refusal.code, refusal.message, refusal.details) end
  if taken.changed then
    counters.rules_changed()
    hold.rules_changed()
  end
  return answer.json(200, { epoch = taken.epoch, held = counters.status().held, persisted = taken.persisted })
end

local function status()
  local document = counters.status()
  local current = rules.current()
  document.topology = settings.topology
  document.dc = settings.dc
  document.gateway = settings.gateway
  document.epoch = current and current.epoch or cjson.null
  document.hash = current and current.hash or cjson.null
  document.workers = ngx.worker.count()
  return answer.json(200, document)
end

local METRICS = {
  { "held", "gauge", "held", "Requests held now." },
  { "held_bytes", "gauge", "heldBytes", "Body bytes held now." },
  { "held_total", "counter", "heldTotal", "Requests that were held." },
  { "refused_total", "counter", "refusedTotal", "Requests answered 503 because of a fence, or because there were no rules." },
  { "failed_total", "counter", "failedTotal", "Answers 5xx made by the gateway because an upstream did not answer." },
  { "forwarded_total", "counter", "forwardedTotal", "Requests sent to another data center's gateway." },
  { "unavailable_milliseconds_total", "counter", "unavailableMs", "Time in which a write was held or stood refused." },
}

local function metrics()
  local document = counters.status()
  -- Names of the topology have only letters, digits and dashes: nothing to escape.
  local labels = format('dc="%s",gateway="%s"', settings.dc, settings.gateway)
  local lines = {}
  local function line(text, ...) lines[#lines + 1] = format(text, ...) end
  local function head(name, kind, help)
    line("# HELP interlock_gateway_%s %s", name, help)
    line("# TYPE interlock_gateway_%s %s", name, kind)
  end
  for _, metric in ipairs(METRICS) do
    head(metric[1], metric[2], metric[4])
    line("interlock_gateway_%s{%s} %.15g", metric[1], labels, document[metric[3]])
  end
  head("requests_total", "counter", "Requests by the data center that they were sent to.")
  for dc, count in pairs(document.requests) do
    line('interlock_gateway_requests_total{%s,to="%s"} %.0f', labels, dc, count)
  end
  head("rules_epoch", "gauge", "Epoch of the rules in force; 0: none.")
  line("interlock_gateway_rules_epoch{%s} %.0f", labels, rules.epoch() or 0)
  ngx.header["Content-Type"] = "text/plain; version=0.0.4"
  ngx.print(table.concat(lines, "\n"), "\n")
  return ngx.exit(200)
end

local ROUTES = {
  ["/interlock/rules"] = { PUT = put_rules },
  ["/interlock/status"] = { GET = status },
  ["/interlock/metrics"] = { GET = metrics },
}

function M.handle()
  local given = ngx.var.http_authorization
  local token = given and given:match("^[Bb]earer (.+)$")
  if not constant_time(token, settings.token) then
    ngx.header["WWW-Authenticate"] = "Bearer"
    return answer.fail(401, "BadInput", "expected the gateway's bearer token", { field = "authorization" })
  end
  local methods = ROUTES[ngx.var.uri]
  if not methods then return answer.fail(404, "BadInput", "no such admin path", { field = "path" }) end
  local action = methods[ngx.req.get_method()]
  if not action then
    ngx.header["Allow"] = next(methods)
    return answer.fail(405, "BadInput", "expected " .. next(methods), { field = "method" })
  end
  return action()
end

return M
