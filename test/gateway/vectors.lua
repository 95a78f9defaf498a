-- Runs test/routing/vectors.json in nginx's own LuaJIT; the test compares what comes out.
local cjson = require "cjson.safe"
local murmur3 = require "murmur3"
local routing_key = require "routing-key"
local rules = require "rules"

local function bytes(value)
  if type(value) == "table" then
    return (value.hex:gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end))
  end
  return value
end

local function applications_of(record)
  local list = {}
  for name, application in pairs(record) do
    list[#list + 1] = {
      name = name,
      paths = application.paths,
      routingKey = application.routingKey,
      central = application.central,
    }
  end
  return list
end

local function extracted(prefixes, request)
  local headers = {}
  for _, pair in ipairs(request.headers) do
    local name, value = pair[1]:lower(), bytes(pair[2])
    local before = headers[name]
    if before == nil then
      headers[name] = value
    elseif type(before) == "table" then
      before[#before + 1] = value
    else
      headers[name] = { before, value }
    end
  end
  local kind, application, a, b = routing_key.extract(prefixes, bytes(request.target), headers)
  local out = { kind = kind, application = application and application.name }
  if kind == "key" then out.key = { userId = a, region = b } end
  if kind == "unit" then out.unit = a end
  if kind == "missing" then out.part = a end
  if kind == "invalid" then out.part, out.source = a, b end
  return out
end

ngx.req.read_body()
local vectors = assert(cjson.decode(ngx.req.get_body_data()))
local out = { murmur3 = {}, routes = {}, units = {}, requests = {}, noApplication = {} }
for i, vector in ipairs(vectors.murmur3) do out.murmur3[i] = murmur3(bytes(vector.text), vector.seed) end

local compiled = rules.compile(vectors.rules, "")
for i, vector in ipairs(vectors.routes) do
  local unit, assignment = rules.of_user(compiled, vector.key.userId, vector.key.region)
  out.routes[i] = unit and { unit = unit, owner = assignment.owner, open = assignment.open } or cjson.null
end
for i, vector in ipairs(vectors.units) do
  local assignment = rules.of_unit(compiled, vector.unit)
  out.units[i] = assignment and { owner = assignment.owner, open = assignment.open } or cjson.null
end
local prefixes = routing_key.compile(applications_of(vectors.applications))
for i, request in ipairs(vectors.requests) do out.requests[i] = extracted(prefixes, request) end
prefixes = routing_key.compile(applications_of(vectors.noApplication.applications))
for i, request in ipairs(vectors.noApplication.requests) do out.noApplication[i] = extracted(prefixes, request) end
ngx.print(cjson.encode(out))
