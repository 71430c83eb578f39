-- A session was used: it goes to the front of the index, and its conversation leads to it.
--
-- KEYS[1]  the index, a sorted set: each session by its last activity, Unix microseconds
-- KEYS[2]  what the session's conversation leads to; left out when the session has none
-- ARGV[1]  session_id
-- ARGV[2]  its last activity, Unix microseconds
-- ARGV[3]  time to live of a session, ms
-- ARGV[4]  1: tidy up, too. Needed at least once in a time to live, and once for every fifty sessions
-- Answer:  1
local ttl = tonumber(ARGV[3])

redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if KEYS[2] then
	redis.call('SET', KEYS[2], ARGV[1], 'PX', ttl)
end
if ARGV[4] == '1' then
	local lapsed = string.format('%.0f', ARGV[2] - ttl * 1000)
	local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', lapsed, 'LIMIT', 0, 50)
	if #dead > 0 then
		redis.call('ZREM', KEYS[1], unpack(dead))
	end
	-- An index that nobody uses any more goes as a whole.
	redis.call('PEXPIRE', KEYS[1], 2 * ttl)
end
return 1
