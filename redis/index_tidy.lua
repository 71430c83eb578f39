-- Takes sessions out of the index whose time to live is over. Needed at least once in a time to live, and once for every
-- fifty sessions that are used.
--
-- KEYS[1]  the index, a sorted set: each session by its last activity, Unix microseconds
-- ARGV[1]  now, Unix microseconds
-- ARGV[2]  time to live of a session, ms
-- Answer:  how many were taken out
local ttl = tonumber(ARGV[2])
local lapsed = string.format('%.0f', ARGV[1] - ttl * 1000)
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', lapsed, 'LIMIT', 0, 50)

if #dead > 0 then
	redis.call('ZREM', KEYS[1], unpack(dead))
end
-- An index that nobody uses any more goes as a whole.
redis.call('PEXPIRE', KEYS[1], 2 * ttl)
return #dead
