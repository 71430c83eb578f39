-- Hands out the next time at which a chat may start: one each interval, of all workers on all machines together, in the
-- order of asking (GCRA without a burst).
--
-- KEYS[1]  when the next slot begins, Unix microseconds
-- ARGV[1]  interval, microseconds
-- ARGV[2]  longest acceptable wait, microseconds
-- Answer:  {"ok", microseconds to wait, the slot}, or {"late", microseconds that it would have been}; no slot is used then
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local slot = tonumber(redis.call('GET', KEYS[1]) or 0)

if slot < now then
	slot = now
end
local wait = slot - now
if wait > tonumber(ARGV[2]) then
	return { 'late', string.format('%d', wait) }
end
local next_slot = slot + tonumber(ARGV[1])
redis.call('SET', KEYS[1], string.format('%d', next_slot), 'PX', math.ceil((next_slot - now) / 1000) + 1000)
return { 'ok', string.format('%d', wait), string.format('%d', slot) }
