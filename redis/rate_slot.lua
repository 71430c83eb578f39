-- Hands out the next time at which a chat may start: one each interval, of all workers on all machines together, in the
-- order of asking (GCRA without a burst).
--
-- KEYS[1]  when the next slot begins, Unix microseconds
-- ARGV[1]  interval, microseconds
-- ARGV[2]  longest acceptable wait, microseconds
-- Answer:  microseconds to wait, or -1 - wait when that is too long; no slot is used then
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local slot = tonumber(redis.call('GET', KEYS[1]) or 0)

if slot < now then
	slot = now
end
local wait = slot - now
if wait > tonumber(ARGV[2]) then
	return -1 - wait
end
local next_slot = slot + tonumber(ARGV[1])
redis.call('SET', KEYS[1], string.format('%d', next_slot), 'PX', math.ceil((next_slot - now) / 1000) + 1000)
return wait
