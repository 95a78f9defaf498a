-- Answers that the gateway makes itself: `{"error":{"code","message",…}}`, as everywhere in Interlock.
local cjson = require "cjson.safe"

local M = {}

-- Ends the request. `details` are further members of the error object; retry_after is in seconds.
function M.fail(status, code, message, details, retry_after)
  local fault = { code = code, message = message }
  for name, value in pairs(details or {}) do fault[name] = value end
  ngx.status = status
  ngx.header["Content-Type"] = "application/json"
  if retry_after then ngx.header["Retry-After"] = retry_after end
  ngx.print(cjson.encode({ error = fault }))
  return ngx.exit(status)
end

function M.json(status, document)
  ngx.status = status
  ngx.header["Content-Type"] = "application/json"
  ngx.print(cjson.encode(document))
  return ngx.exit(status)
end

return M
