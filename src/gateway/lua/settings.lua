-- What the renderer (src/gateway/render.ts) wrote for this gateway: routing.json and secrets.json in nginx's prefix directory.
local cjson = require "cjson.safe"

local M = {}

local function read(name)
  local path = ngx.config.prefix() .. name
  local file, problem = io.open(path, "rb")
  if not file then error("interlock: cannot read " .. path .. ": " .. tostring(problem)) end
  local text = file:read("*a")
  file:close()
  local document = cjson.decode(text)
  if type(document) ~= "table" then error("interlock: " .. path .. " is not JSON; render the gateway again") end
  return document
end

function M.load()
  local routing, secrets = read("routing.json"), read("secrets.json")
  for name, value in pairs(routing) do M[name] = value end
  M.token = secrets.token
  M.hop_token = secrets.hopToken
end

return M
