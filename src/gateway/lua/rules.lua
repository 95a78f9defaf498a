-- The rules in force: validated and stored once for all workers, compiled by each worker once per epoch.
--
-- The dictionary `interlock_rules` holds `epoch` and, per epoch, `text:<epoch>` (canonical JSON) and `hash:<epoch>`. Every request
-- compares `epoch` with what its worker compiled: all workers switch with the one write of `epoch`, without a reload.
local cjson = require "cjson.safe"
local canonical = require "canonical-json"
local murmur3 = require "murmur3"
local settings = require "settings"

local dict = ngx.shared.interlock_rules
local floor, format, find, type, pairs, ipairs = math.floor, string.format, string.find, type, pairs, ipairs

local M = {}

local BUCKETS = 1000
local MAX_EPOCH = 9007199254740991
local NAME = "^[a-z0-9][a-z0-9-]*$"
local STATES = { open = true, write_disabled = true }

-- Validation: returns a problem (field, what was expected), or nothing.

local function is_name(value)
  return type(value) == "string" and #value <= 63 and find(value, NAME) ~= nil
end

local function is_count(value, least)
  return type(value) == "number" and value >= least and value <= MAX_EPOCH and floor(value) == value
end

local function is_list(value)
  if type(value) ~= "table" then return false end
  local n = 0
  for key in pairs(value) do
    if type(key) ~= "number" then return false end
    n = n + 1
  end
  return n == #value
end

local function is_record(value)
  if type(value) ~= "table" then return false end
  for key in pairs(value) do
    if type(key) ~= "string" then return false end
  end
  return true
end

local function check_assignment(value, field)
  if not is_record(value) then return field, "an object" end
  if not (type(value.owner) == "string" and settings.datacenters[value.owner]) then
    return field .. ".owner", "a data center of this topology"
  end
  if not (type(value.state) == "string" and STATES[value.state]) then return field .. ".state", "open or write_disabled" end
end

local function check_ranges(ranges, field)
  if not is_list(ranges) or #ranges == 0 then return field, "a list of bucket ranges" end
  local next_bucket = 0
  for i, range in ipairs(ranges) do
    local at = format("%s[%d]", field, i - 1)
    local where, expected = check_assignment(range, at)
    if where then return where, expected end
    if range.from ~= next_bucket then return at .. ".from", format("%d: ranges are sorted and have no gap", next_bucket) end
    if not is_count(range.to, range.from) or range.to >= BUCKETS then
      return at .. ".to", format("a bucket from %d to %d", range.from, BUCKETS - 1)
    end
    next_bucket = range.to + 1
  end
  if next_bucket ~= BUCKETS then return field, "ranges that cover 0 to 999" end
end

local function check_segment(segment, field)
  local where, expected = check_assignment(segment, field)
  if where then return where, expected end
  if not is_list(segment.members) then return field .. ".members", "a list of user ids" end
  for i, member in ipairs(segment.members) do
    if type(member) ~= "string" or member == "" then return format("%s.members[%d]", field, i - 1), "a user id" end
  end
end

local function check_each(record, field, check)
  if not is_record(record) then return field, "an object" end
  for name, value in pairs(record) do
    if not is_name(name) then return field, "names of lower-case letters, digits and dashes" end
    local where, expected = check(value, field .. "." .. name)
    if where then return where, expected end
  end
end

local function check(rules)
  if not is_record(rules) then return "rules", "an object" end
  if rules.format ~= 1 then return "rules.format", "1" end
  if rules.topology ~= settings.topology then return "rules.topology", settings.topology end
  if not is_count(rules.epoch, 1) then return "rules.epoch", "a positive whole number" end
  if not is_count(rules.mappingVersion, 1) then return "rules.mappingVersion", "a positive whole number" end
  if not is_record(rules.unitMappingVersions) then return "rules.unitMappingVersions", "an object" end
  for unit, version in pairs(rules.unitMappingVersions) do
    if not is_count(version, 1) then return "rules.unitMappingVersions." .. unit, "a positive whole number" end
  end
  local where, expected = check_each(rules.regions, "rules.regions", check_ranges)
  if where then return where, expected end
  if type(rules.defaultRegion) ~= "string" or not rules.regions[rules.defaultRegion] then
    return "rules.defaultRegion", "one of the rules' regions"
  end
  where, expected = check_each(rules.segments, "rules.segments", check_segment)
  if where then return where, expected end
  where, expected = check_each(rules.central, "rules.central", check_assignment)
  if where then return where, expected end
  local holder = rules.holder
  if holder ~= cjson.null and not (is_record(holder) and type(holder.workflowId) == "string" and type(holder.runId) == "string") then
    return "rules.holder", "null or { workflowId, runId }"
  end
  if type(rules.reason) ~= "string" then return "rules.reason", "a text" end
end

local function refusal(status, code, message, details)
  return nil, { status = status, code = code, message = message, details = details }
end

-- Validates a decoded `{ rules, hash }`. Returns epoch, hash, canonical text; or nil and a refusal.
local function validated(document)
  if not is_record(document) then
    return refusal(400, "BadInput", "expected a JSON object { rules, hash }", { field = "(document)" })
  end
  local where, expected = check(document.rules)
  if where then
    return refusal(400, "BadInput", where .. ": expected " .. expected, { field = where })
  end
  local hash = document.hash
  if type(hash) ~= "string" or #hash ~= 64 or find(hash, "[^0-9a-f]") then
    return refusal(400, "BadInput", "hash: expected a hex SHA-256", { field = "hash" })
  end
  local text = canonical.encode(document.rules)
  if canonical.sha256(text) ~= hash then
    return refusal(400, "BadInput", "hash: it is not the hash of these rules; send the rules as they were published", { field = "hash" })
  end
  return document.rules.epoch, hash, text
end

-- The file that brings the rules over a restart.

local function rules_file()
  return ngx.config.prefix() .. "rules.json"
end

-- A crash in the middle must leave the old file: write another one, then rename. (No fsync: what a power cut takes is pushed again
-- by the rule center, and the file's hash tells whether it is whole.)
local function persist(hash, text)
  local path = rules_file()
  local partial = path .. "." .. ngx.worker.pid() .. ".partial"
  local file, problem = io.open(partial, "wb")
  if not file then return nil, problem end
  local written
  written, problem = file:write('{"hash":"', hash, '","rules":', text, "}\n")
  local closed, close_problem = file:close()
  if not written or not closed then
    os.remove(partial)
    return nil, problem or close_problem
  end
  return os.rename(partial, path)
end

-- In this order: a worker that sees the new epoch finds its text, and the old text is there until nobody asks for it.
local function store(epoch, hash, text)
  local before = dict:get("epoch")
  local stored, problem = dict:safe_set("text:" .. epoch, text)
  if stored then stored, problem = dict:safe_set("hash:" .. epoch, hash) end
  if stored then stored, problem = dict:safe_set("epoch", epoch) end
  if not stored then
    dict:delete("text:" .. epoch)
    dict:delete("hash:" .. epoch)
    return nil, problem
  end
  if before and before ~= epoch then
    dict:delete("text:" .. before)
    dict:delete("hash:" .. before)
  end
  return true
end

-- Two workers may each be given rules at once: without the lock the lower epoch could be stored last.
-- Nothing yields while it is held; one of a worker that died in it ends by itself, and so does one of a worker that a slow disk stalls:
-- the token keeps that worker from ending the lock of the next.
local function locked(action)
  local deadline = ngx.now() + 5
  local token = ngx.worker.pid() .. ":" .. ngx.now() .. ":" .. math.random(1, 2 ^ 31)
  while not dict:safe_add("lock", token, 2) do
    if ngx.now() > deadline then return refusal(503, "Unavailable", "another rules update is under way; try again", nil) end
    ngx.sleep(0.001)
  end
  local done, a, b = pcall(action)
  if dict:get("lock") == token then dict:delete("lock") end
  if not done then return refusal(500, "Internal", tostring(a), nil) end
  return a, b
end

-- Takes `{ rules, hash }`. Returns { epoch, changed, persisted }, or nil and { status, code, message, details }.
function M.put(document)
  local epoch, hash, text = validated(document)
  if not epoch then return nil, hash end
  return locked(function()
    local current = dict:get("epoch")
    if current and epoch < current then
      return refusal(409, "StaleEpoch", format("epoch %.0f is lower than the epoch in force, %.0f", epoch, current), { epoch = current })
    end
    if current == epoch then
      if dict:get("hash:" .. current) ~= hash then
        return refusal(409, "EpochConflict", format("epoch %.0f is in force with other content", epoch),
          { epoch = current, hash = dict:get("hash:" .. current) })
      end
      return { epoch = epoch, changed = false, persisted = true }
    end
    -- The switch goes on when the disk is full: rules that cannot be kept are pushed again after a restart.
    local persisted, problem = persist(hash, text)
    if not persisted then ngx.log(ngx.ERR, "interlock: the rules cannot be written to ", rules_file(), ": ", problem) end
    -- A write that took longer than the lock lives may have been overtaken.
    local now = dict:get("epoch")
    if now and now >= epoch then
      return refusal(409, "StaleEpoch", format("epoch %.0f was overtaken by epoch %.0f", epoch, now), { epoch = now })
    end
    local stored
    stored, problem = store(epoch, hash, text)
    if not stored then
      return refusal(507, "Unavailable", "the rules do not fit into the gateway's memory: " .. tostring(problem), nil)
    end
    return { epoch = epoch, changed = true, persisted = persisted and true or false }
  end)
end

-- At start, in the master: the rules of the last run. A damaged file is no rules at all: the gateway then refuses to route.
function M.restore()
  local file = io.open(rules_file(), "rb")
  if not file then return end
  local text = file:read("*a")
  file:close()
  local epoch, hash, body = validated(cjson.decode(text) or {})
  if not epoch then
    ngx.log(ngx.ERR, "interlock: ", rules_file(), " is not used: ", hash.message)
    return
  end
  local current = dict:get("epoch")
  if not current or current < epoch then assert(store(epoch, hash, body)) end
end

-- Compiled rules, per worker.

local compiled
local compiled_epoch

-- Unit ids of a region's buckets: the same for every epoch.
local names_of_region = {}
local function bucket_units(region)
  local names = names_of_region[region]
  if not names then
    names = {}
    for bucket = 0, BUCKETS - 1 do names[bucket] = region .. "/" .. bucket end
    names_of_region[region] = names
  end
  return names
end

local function assignment_of(value)
  return { owner = value.owner, open = value.state == "open" }
end

local function compile(rules, hash)
  local out = {
    epoch = rules.epoch,
    epoch_text = format("%.0f", rules.epoch),
    hash = hash,
    default_region = rules.defaultRegion,
    regions = {},
    units = {},
    segment_of = {},
    named = {},
  }
  for region, ranges in pairs(rules.regions) do
    local by_bucket = {}
    for _, range in ipairs(ranges) do
      local assignment = assignment_of(range)
      for bucket = range.from, range.to do by_bucket[bucket] = assignment end
    end
    out.regions[region] = by_bucket
    out.units[region] = bucket_units(region)
  end
  -- A user in two segments belongs to the first by name, as in src/routing/rules.ts.
  local segments = {}
  for name in pairs(rules.segments) do segments[#segments + 1] = name end
  table.sort(segments)
  for _, name in ipairs(segments) do
    local segment, unit = rules.segments[name], "segment:" .. name
    out.named[unit] = assignment_of(segment)
    for _, member in ipairs(segment.members) do
      if not out.segment_of[member] then out.segment_of[member] = unit end
    end
  end
  for name, central in pairs(rules.central) do out.named["central:" .. name] = assignment_of(central) end
  if next(out.segment_of) == nil then out.segment_of = nil end
  return out
end

M.compile = compile

local function reload(epoch)
  -- The text of an epoch is deleted once a higher one is stored: look again then.
  for _ = 1, 10 do
    local text, hash = dict:get("text:" .. epoch), dict:get("hash:" .. epoch)
    if text and hash then
      compiled = compile(cjson.decode(text), hash)
      compiled_epoch = epoch
      return compiled
    end
    epoch = dict:get("epoch")
    if epoch == nil or epoch == compiled_epoch then return compiled end
  end
  return compiled
end

-- The compiled rules in force, or nil when there are none.
function M.current()
  local epoch = dict:get("epoch")
  if epoch == compiled_epoch then return compiled end
  return reload(epoch)
end

function M.epoch()
  return dict:get("epoch")
end

-- Unit and assignment of a user; nil and the region when that is not routed.
function M.of_user(rules, user, region)
  local segment_of = rules.segment_of
  local segment = segment_of and segment_of[user]
  if segment then return segment, rules.named[segment] end
  region = region or rules.default_region
  local by_bucket = rules.regions[region]
  if not by_bucket then return nil, region end
  local bucket = murmur3(user) % BUCKETS
  return rules.units[region][bucket], by_bucket[bucket]
end

-- Assignment of a segment or central unit.
function M.of_unit(rules, unit)
  return rules.named[unit]
end

return M
