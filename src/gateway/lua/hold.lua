-- Holds requests until the rules let them go on: bounded in time, number and bytes.
--
-- Each held request waits on a semaphore of its own. While a worker holds any, one timer of it looks at the epoch every 2 ms and
-- wakes, first come first served, those whose unit is open. The number that is under way after a release is bounded: ten thousand
-- connects at once overflow an application's listen queue, and then cost a second each.
local ffi = require "ffi"
local semaphore = require "ngx.semaphore"
local counters = require "counters"
local rules = require "rules"
local settings = require "settings"

local dict = ngx.shared.interlock_counters

ffi.cdef [[ int kill(int pid, int signal); ]]

local M = {}

local LOOK_SECONDS = 0.002
-- Released requests of a worker that may be under way at once …
local WINDOW = 256
-- … and how many go on per look all the same, so that slow ones do not stop the rest.
local TRICKLE = 8

-- Waiting requests in order of arrival; one that gave up has `gone` and is skipped. `first` to `last` may have such holes.
local queue, first, last = {}, 1, 0
local waiting = 0
local under_way = 0
local ready = {}
local ready_first, ready_last = 1, 0
local seen_epoch
local looking = false

local function wake(count)
  while count > 0 and ready_first <= ready_last do
    local waiter = ready[ready_first]
    ready[ready_first] = nil
    ready_first = ready_first + 1
    if not waiter.gone then
      waiter.released = true
      under_way = under_way + 1
      waiter.semaphore:post(1)
      count = count - 1
    end
  end
end

-- Moves what may go on from the queue to `ready`.
local function sort_out()
  local current = rules.current()
  seen_epoch = rules.epoch()
  local kept_first, kept = first, first - 1
  for i = first, last do
    local waiter = queue[i]
    queue[i] = nil
    if waiter and not waiter.gone then
      if current and waiter.may_go(current) then
        ready_last = ready_last + 1
        ready[ready_last] = waiter
        waiter.ready = true
      else
        kept = kept + 1
        queue[kept] = waiter
      end
    end
  end
  first, last = kept_first, kept
end

local function look()
  if rules.epoch() ~= seen_epoch then sort_out() end
  wake(WINDOW - under_way)
end

-- In the worker that took new rules: release without waiting for the next look.
function M.rules_changed()
  if waiting > 0 then look() end
end

local function watch()
  while waiting > 0 do
    ngx.sleep(LOOK_SECONDS)
    look()
    wake(TRICKLE)
    -- Those that gave up stay in the queue until the rules change: not for ever.
    if last - first > 2 * waiting + 1000 then sort_out() end
  end
  queue, first, last = {}, 1, 0
  ready, ready_first, ready_last = {}, 1, 0
  looking = false
end

local function start_watching()
  if looking then return true end
  local started, problem = ngx.timer.at(0, watch)
  if not started then
    ngx.log(ngx.ERR, "interlock: cannot start the timer that releases held requests: ", problem)
    return false
  end
  looking = true
  seen_epoch = nil
  return true
end

-- A released request has been answered, or waits again.
function M.done()
  if under_way > 0 then under_way = under_way - 1 end
  if ready_first <= ready_last then wake(WINDOW - under_way) end
end

-- What this worker holds, under its pid: a worker that is killed cannot give its places back.
local function own(name)
  return name .. ":" .. ngx.worker.pid()
end

-- Takes a place; nil and the bound that is reached.
local function enter(bytes)
  local limits = settings.limits
  if dict:incr("held", 1, 0) > limits.holdRequests then
    dict:incr("held", -1)
    return nil, "HoldRequests"
  end
  if dict:incr("held_bytes", bytes, 0) > limits.holdBytes then
    dict:incr("held_bytes", -bytes)
    dict:incr("held", -1)
    return nil, "HoldBytes"
  end
  dict:incr(own("held"), 1, 0)
  dict:incr(own("held_bytes"), bytes, 0)
  counters.begin_unavailable()
  return { bytes = bytes }
end

-- The body of a place was counted as the largest there may be, and turns out smaller.
function M.resize(place, bytes)
  dict:incr("held_bytes", bytes - place.bytes)
  dict:incr(own("held_bytes"), bytes - place.bytes)
  place.bytes = bytes
end

-- Gives the place back; once.
local function leave(place)
  if place.left then return end
  place.left = true
  dict:incr("held", -1)
  dict:incr("held_bytes", -place.bytes)
  dict:incr(own("held"), -1)
  dict:incr(own("held_bytes"), -place.bytes)
  counters.end_unavailable()
end

-- At the start of a worker: gives back the places of the one that it replaces, if that one is dead. After a reload it is not: it holds its
-- requests to the end.
function M.init_worker()
  local slot = "worker:" .. ngx.worker.id()
  local before = dict:get(slot)
  dict:set(slot, ngx.worker.pid())
  if not before or before == ngx.worker.pid() or ffi.C.kill(before, 0) == 0 then return end
  local held, bytes = dict:get("held:" .. before) or 0, dict:get("held_bytes:" .. before) or 0
  dict:delete("held:" .. before)
  dict:delete("held_bytes:" .. before)
  dict:incr("held", -held, 0)
  dict:incr("held_bytes", -bytes, 0)
  for _ = 1, held do counters.end_unavailable() end
end

M.enter = enter
M.leave = leave

-- Waits at most `seconds` until `may_go(compiled rules)`, asked at each change of the rules.
-- True when released (M.done must follow once), false when the time is over.
function M.wait(place, seconds, may_go)
  if seconds <= 0 or not start_watching() then return false end
  local waiter = { semaphore = semaphore.new(0), may_go = may_go, released = false, gone = false }
  place.waiter = waiter
  waiting = waiting + 1
  last = last + 1
  queue[last] = waiter
  local current = rules.current()
  -- The rules may have changed since the caller looked.
  if current and may_go(current) then seen_epoch = nil end
  waiter.semaphore:wait(seconds)
  place.waiter = nil
  waiter.gone = true
  waiting = waiting - 1
  -- Not what the semaphore's `wait` returned: the time may have run out just when it was released, or while it queued behind others
  -- that were; its unit is open, so it goes on.
  if waiter.ready and not waiter.released then
    waiter.released = true
    under_way = under_way + 1
  end
  return waiter.released
end

-- The client of a waiting request has left.
function M.forget(place)
  local waiter = place.waiter
  if not waiter then return end
  place.waiter = nil
  waiter.gone = true
  waiting = waiting - 1
  if waiter.released then M.done() end
end

return M
