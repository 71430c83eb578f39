-- Forgets the conversation of a session; the next message starts a new one. The owner stays.
--
-- KEYS[1]  the session
-- ARGV[1]  time to live, ms
-- Answer:  when it was cleared, Unix microseconds, or 0 when there is no such session (nothing is made then)
if redis.call('EXISTS', KEYS[1]) == 0 then
	return 0
end
local time = redis.call('TIME')
local now = string.format('%d%06d', time[1], time[2])
redis.call('HSET', KEYS[1], 'conversation', '', 'count', 0, 'epoch', now, 'active', now)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return tonumber(now)
