-- Compares a secret without telling by the time it takes how much of it was right.
local bit = require "bit"
local byte = string.byte

return function(given, secret)
  if type(given) ~= "string" or #given ~= #secret or #secret == 0 then return false end
  local different = 0
  for i = 1, #secret do
    different = bit.bor(different, bit.bxor(byte(given, i), byte(secret, i)))
  end
  return different == 0
end
