-- The canonical JSON of src/routing/hash.ts (sorted keys, no blanks, JSON.stringify's escapes), and its SHA-256, so that a gateway
-- can tell by the hash that the rules it decoded are the rules that were published.
local ffi = require "ffi"
local cjson = require "cjson.safe"

local concat, sort, format, gsub, byte = table.concat, table.sort, string.format, string.gsub, string.byte

ffi.cdef [[
unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);
]]

local M = {}

local ESCAPES = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}

local function quote(text)
  return '"' .. gsub(text, '[%z\1-\31"\\]', function(c)
    return ESCAPES[c] or format("\\u%04x", byte(c))
  end) .. '"'
end

local encode

local function encode_array(list)
  local parts = {}
  for i = 1, #list do parts[i] = encode(list[i]) end
  return "[" .. concat(parts, ",") .. "]"
end

-- An empty table is `{}` or `[]` in JSON and the same in Lua: in a rules document only `members` is a list that may be empty.
encode = function(value, key)
  local kind = type(value)
  if kind == "table" then
    if value[1] ~= nil or (next(value) == nil and key == "members") then return encode_array(value) end
    local keys = {}
    for k in pairs(value) do keys[#keys + 1] = k end
    sort(keys)
    local parts = {}
    for i = 1, #keys do parts[i] = quote(keys[i]) .. ":" .. encode(value[keys[i]], keys[i]) end
    return "{" .. concat(parts, ",") .. "}"
  end
  if kind == "string" then return quote(value) end
  if kind == "number" then return format("%.14g", value) == format("%.0f", value) and format("%.0f", value) or format("%.17g", value) end
  if kind == "boolean" then return value and "true" or "false" end
  if value == cjson.null then return "null" end
  error("cannot encode a " .. kind)
end

-- The canonical text of a decoded document.
function M.encode(document)
  return encode(document)
end

-- Hex SHA-256 of a text.
function M.sha256(text)
  local digest = ffi.new("unsigned char[32]")
  ffi.C.SHA256(text, #text, digest)
  local hex = {}
  for i = 0, 31 do hex[i + 1] = format("%02x", digest[i]) end
  return concat(hex)
end

return M
