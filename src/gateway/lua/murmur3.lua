-- MurmurHash3 x86 32-bit of the bytes of a string, as an unsigned number. The same as src/routing/murmur3.ts;
-- test/routing/vectors.json holds both together. Source: Austin Appleby's public-domain description.
local bit = require "bit"

local band, bor, bxor = bit.band, bit.bor, bit.bxor
local lshift, rshift, rol, tobit = bit.lshift, bit.rshift, bit.rol, bit.tobit
local byte = string.byte

-- A product of two 32-bit numbers does not fit a double: multiply by halves, each below 2^48, and wrap.
local function multiply(a, b)
  return tobit(band(a, 0xffff) * b + lshift(tobit(rshift(a, 16) * b), 16))
end

local function scramble(k)
  return multiply(rol(multiply(k, 0xcc9e2d51), 15), 0x1b873593)
end

return function(text, seed)
  local length = #text
  local blocks = length - length % 4
  local h = tobit(seed or 0)
  for i = 1, blocks, 4 do
    local a, b, c, d = byte(text, i, i + 3)
    h = bxor(h, scramble(bor(a, lshift(b, 8), lshift(c, 16), lshift(d, 24))))
    h = tobit(rol(h, 13) * 5 + 0xe6546b64)
  end
  if length > blocks then
    local a, b, c = byte(text, blocks + 1, length)
    local k = a
    if b then k = bxor(k, lshift(b, 8)) end
    if c then k = bxor(k, lshift(c, 16)) end
    h = bxor(h, scramble(k))
  end
  h = bxor(h, length)
  h = multiply(bxor(h, rshift(h, 16)), 0x85ebca6b)
  h = multiply(bxor(h, rshift(h, 13)), 0xc2b2ae35)
  h = bxor(h, rshift(h, 16))
  return h < 0 and h + 4294967296 or h
end
