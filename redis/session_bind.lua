-- Binds a conversation to a session, which is made when it does not exist.
--
-- KEYS[1]  the session
-- ARGV[1]  conversation
-- ARGV[2]  time to live, ms
-- Answer:  when it was bound, Unix microseconds
local time = redis.call('TIME')
local now = string.format('%d%06d', time[1], time[2])
local epoch = redis.call('HGET', KEYS[1], 'epoch')
redis.call('HSETNX', KEYS[1], 'count', 0)
redis.call('HSET', KEYS[1], 'conversation', ARGV[1], 'epoch', epoch and string.match(epoch, '^%d+') .. '.' .. now or now, 'active', now)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(now)
