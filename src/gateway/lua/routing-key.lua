-- Finds the routing key of a request: the same as KeyExtractor of src/routing/key.ts, whose comment is the specification;
-- test/routing/vectors.json holds both together. Strings are bytes.
local byte, sub, find, gsub, char = string.byte, string.sub, string.find, string.gsub, string.char
local tonumber, type, ipairs, pairs, sort = tonumber, type, ipairs, pairs, table.sort

local M = {}

-- Longest user id or region, in bytes.
local MAX_KEY_BYTES = 256

-- Present but not usable.
local MALFORMED = {}

-- Valid UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
local function is_utf8(bytes)
  local i, n = 1, #bytes
  while i <= n do
    local a = byte(bytes, i)
    if a < 0x80 then
      i = i + 1
    else
      local more, low, high
      if a >= 0xc2 and a <= 0xdf then
        more, low, high = 1, 0x80, 0xbf
      elseif a >= 0xe0 and a <= 0xef then
        more, low, high = 2, a == 0xe0 and 0xa0 or 0x80, a == 0xed and 0x9f or 0xbf
      elseif a >= 0xf0 and a <= 0xf4 then
        more, low, high = 3, a == 0xf0 and 0x90 or 0x80, a == 0xf4 and 0x8f or 0xbf
      else
        return false
      end
      for j = 1, more do
        local c = byte(bytes, i + j)
        if not c or c < low or c > high then return false end
        low, high = 0x80, 0xbf
      end
      i = i + more + 1
    end
  end
  return true
end

-- The text of bytes: UTF-8, no control characters, at most MAX_KEY_BYTES.
local function text(bytes)
  if #bytes > MAX_KEY_BYTES then return MALFORMED end
  local ascii = true
  for i = 1, #bytes do
    local c = byte(bytes, i)
    if c < 0x20 or c == 0x7f then return MALFORMED end
    if c > 0x7e then ascii = false end
  end
  if ascii or is_utf8(bytes) then return bytes end
  return MALFORMED
end

local function from_hex(hex)
  return char(tonumber(hex, 16))
end

local function percent_decoded(bytes)
  if not find(bytes, "%", 1, true) then return text(bytes) end
  if find(gsub(bytes, "%%%x%x", ""), "%", 1, true) then return MALFORMED end
  return text((gsub(bytes, "%%(%x%x)", from_hex)))
end

local function trimmed(bytes)
  local head, tail = byte(bytes, 1), byte(bytes, #bytes)
  if head ~= 0x20 and head ~= 0x09 and tail ~= 0x20 and tail ~= 0x09 then return bytes end
  local first = find(bytes, "[^ \t]")
  if not first then return "" end
  local last = #bytes
  while true do
    local c = byte(bytes, last)
    if c ~= 0x20 and c ~= 0x09 then break end
    last = last - 1
  end
  if first == 1 and last == #bytes then return bytes end
  return sub(bytes, first, last)
end

local function joined(header, separator)
  if type(header) == "table" then return table.concat(header, separator) end
  return header
end

-- Segments of a path, without the first (empty) one and the empty one of a trailing slash.
local function split_path(path)
  local parts = {}
  local from = find(path, "/", 1, true)
  if not from then return parts end
  from = from + 1
  while true do
    local at = find(path, "/", from, true)
    if not at then
      parts[#parts + 1] = sub(path, from)
      break
    end
    parts[#parts + 1] = sub(path, from, at - 1)
    from = at + 1
  end
  if parts[#parts] == "" then parts[#parts] = nil end
  return parts
end

local function segments_of(request)
  local segments = request.segments
  if not segments then
    segments = split_path(request.path)
    for i = 1, #segments do segments[i] = percent_decoded(segments[i]) end
    request.segments = segments
  end
  return segments
end

local function header_value(request, source)
  local value = request.headers[source.header]
  if value == nil then return nil end
  if type(value) == "table" then value = joined(value, ", ") end
  return text(trimmed(value))
end

local function cookie_value(request, source)
  local cookies = joined(request.headers.cookie, "; ")
  if not cookies then return nil end
  local from = 1
  while from <= #cookies + 1 do
    local stop = find(cookies, ";", from, true) or #cookies + 1
    local at = find(cookies, "=", from, true)
    if at and at < stop and trimmed(sub(cookies, from, at - 1)) == source.cookie then
      local value = trimmed(sub(cookies, at + 1, stop - 1))
      if #value > 1 and byte(value) == 0x22 and byte(value, #value) == 0x22 then value = sub(value, 2, -2) end
      return percent_decoded(value)
    end
    from = stop + 1
  end
  return nil
end

local function plus_to_space(bytes)
  return (gsub(bytes, "%+", " "))
end

local function query_value(request, source)
  local query = request.query
  if query == "" then return nil end
  local from = 1
  while from <= #query + 1 do
    local stop = find(query, "&", from, true) or #query + 1
    local at = find(query, "=", from, true)
    if not at or at >= stop then at = stop end
    if percent_decoded(plus_to_space(sub(query, from, at - 1))) == source.query then
      if at == stop then return "" end
      return percent_decoded(plus_to_space(sub(query, at + 1, stop - 1)))
    end
    from = stop + 1
  end
  return nil
end

local function path_value(request, source)
  local segments = segments_of(request)
  if source.open then
    if #segments < source.fixed then return nil end
  elseif #segments ~= source.fixed then
    return nil
  end
  local found
  for i = 1, source.fixed do
    local segment, wanted = segments[i], source.template[i]
    if segment == "" then return nil end
    if wanted == source.part then
      found = segment
    elseif byte(wanted) ~= 0x3a and wanted ~= segment then
      return nil
    end
  end
  return found
end

local function compile_source(source, part)
  if source.header then
    local name = source.header:lower()
    return { name = "header " .. name, header = name, read = header_value }
  end
  if source.cookie then return { name = "cookie " .. source.cookie, cookie = source.cookie, read = cookie_value } end
  if source.query then return { name = "query " .. source.query, query = source.query, read = query_value } end
  local template = split_path(source.path)
  local open = template[#template] == "*"
  return {
    name = "path " .. source.path,
    template = template,
    open = open,
    fixed = open and #template - 1 or #template,
    part = ":" .. part,
    read = path_value,
  }
end

local function compile_sources(sources, part)
  local compiled = {}
  for i, source in ipairs(sources) do compiled[i] = compile_source(source, part) end
  return compiled
end

-- `text` decides alone when neither prefix nor path can be read in two ways (no empty segment, no percent).
local function compile_prefix(path, value)
  local segments = split_path(path)
  local plain = not find(path, "//", 1, true)
  local bare = path
  if sub(bare, -1) == "/" then bare = sub(bare, 1, -2) end
  return { segments = segments, bare = bare, length = #bare, plain = plain, value = value }
end

local function by_segments(a, b)
  if #a.segments ~= #b.segments then return #a.segments > #b.segments end
  return a.bare < b.bare
end

local function longest(prefixes, request)
  for p = 1, #prefixes do
    local prefix = prefixes[p]
    if #prefix.segments == 0 then return prefix.value end
    if prefix.plain and request.plain then
      local path, length = request.path, prefix.length
      if sub(path, 1, length) == prefix.bare and (#path == length or byte(path, length + 1) == 0x2f) then
        return prefix.value
      end
    else
      local segments = segments_of(request)
      local all = true
      for i = 1, #prefix.segments do
        if segments[i] ~= prefix.segments[i] then
          all = false
          break
        end
      end
      if all then return prefix.value end
    end
  end
  return nil
end

-- `applications`: a list of { name, paths, routingKey = { userId, region }, central }. Returns an extractor for M.extract.
function M.compile(applications)
  local prefixes = {}
  for _, application in ipairs(applications) do
    local central = {}
    for path, unit in pairs(application.central) do central[#central + 1] = compile_prefix(path, unit) end
    sort(central, by_segments)
    local compiled = {
      name = application.name,
      application = application,
      user = compile_sources(application.routingKey.userId, "userId"),
      region = compile_sources(application.routingKey.region, "region"),
      central = central,
    }
    for _, path in ipairs(application.paths) do prefixes[#prefixes + 1] = compile_prefix(path, compiled) end
  end
  sort(prefixes, by_segments)
  return prefixes
end

local function first(sources, request)
  for i = 1, #sources do
    local source = sources[i]
    local value = source.read(request, source)
    if value == MALFORMED then return nil, source.name end
    if value ~= nil and value ~= "" then return value end
  end
  return nil
end

local function parse(target, headers)
  local hash = find(target, "#", 1, true)
  if hash then target = sub(target, 1, hash - 1) end
  if byte(target) ~= 0x2f then
    local rest = target:match("^%a[%w+.-]*://[^/?]*(.*)$")
    if rest then target = rest end
  end
  local mark = find(target, "?", 1, true)
  local path = mark and sub(target, 1, mark - 1) or target
  return {
    path = path,
    query = mark and sub(target, mark + 1) or "",
    plain = not find(path, "%", 1, true),
    headers = headers,
  }
end

-- The names, in lower case, of the headers that an extractor looks at.
function M.headers_of(prefixes)
  local names = {}
  for _, prefix in ipairs(prefixes) do
    for _, part in ipairs { "user", "region" } do
      for _, source in ipairs(prefix.value[part]) do
        names[#names + 1] = source.header or (source.cookie and "cookie")
      end
    end
  end
  return names
end

-- Returns kind, compiled application, then what belongs to the kind:
--   "key", application, user id, region or nil      "unit", application, unit id
--   "missing", application, "userId"                "invalid", application, part, source      "no-application"
-- `headers` has names in lower case; repeated ones are lists.
function M.extract(prefixes, target, headers)
  local request = parse(target, headers)
  local application = longest(prefixes, request)
  if not application then return "no-application" end
  local unit = longest(application.central, request)
  if unit then return "unit", application, unit end
  local user, source = first(application.user, request)
  if not user then
    if source then return "invalid", application, "userId", source end
    return "missing", application, "userId"
  end
  local region
  region, source = first(application.region, request)
  if source then return "invalid", application, "region", source end
  return "key", application, user, region
end

return M
