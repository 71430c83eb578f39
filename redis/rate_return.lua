-- Takes back a slot that nobody needs any more, if it is the last one that was handed out.
--
-- KEYS[1]  when the next slot begins, Unix microseconds
-- ARGV[1]  the slot, Unix microseconds
-- ARGV[2]  interval, microseconds
-- Answer:  1, or 0 when later slots were handed out: then it stays unused
local slot = tonumber(ARGV[1])

if tonumber(redis.call('GET', KEYS[1]) or 0) ~= slot + tonumber(ARGV[2]) then
	return 0
end
redis.call('SET', KEYS[1], string.format('%d', slot), 'KEEPTTL')
return 1
