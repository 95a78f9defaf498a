-- The few headers of a request that routing looks at. ngx.req.get_headers makes a table of all; this reads the same array of
-- lua-resty-core and makes strings of the wanted ones only: it is on every request's way.
local ffi = require "ffi"
local base = require "resty.core.base"
require "resty.core.request"

local C, ffi_string, get_request = ffi.C, ffi.string, base.get_request
local ngx_get_headers = ngx.req.get_headers

local M = {}

-- More headers than this are read the slow way.
local AT_ONCE = 100

local buffer = ffi.new("ngx_http_lua_ffi_table_elt_t[?]", AT_ONCE)
local truncated = ffi.new("int[1]")

local wanted, wanted_lengths = {}, {}

-- Names in lower case.
function M.want(names)
  for _, name in ipairs(names) do
    wanted[name] = true
    wanted_lengths[#name] = true
  end
end

-- Name (lower case) → value, or a list of values where the header is repeated. Only wanted names are certain to be there.
function M.get()
  local r = get_request()
  local count = C.ngx_http_lua_ffi_req_get_headers_count(r, -1, truncated)
  if count <= 0 or count > AT_ONCE or C.ngx_http_lua_ffi_req_get_headers(r, buffer, count, 0) ~= 0 then
    return ngx_get_headers(0)
  end
  local headers = {}
  for i = 0, count - 1 do
    local key = buffer[i].key
    if wanted_lengths[key.len] then
      local name = ffi_string(key.data, key.len)
      if wanted[name] then
        local value = ffi_string(buffer[i].value.data, buffer[i].value.len)
        local before = headers[name]
        if before == nil then
          headers[name] = value
        elseif type(before) == "table" then
          before[#before + 1] = value
        else
          headers[name] = { before, value }
        end
      end
    end
  end
  return headers
end

return M
