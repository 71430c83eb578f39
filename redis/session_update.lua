-- A turn tells what has become of it: the conversation that it is in, and whether Coze took its message.
--
-- KEYS[1]  the session
-- ARGV[1]  the epoch that the turn began with
-- ARGV[2]  conversation to bind, or "" to leave what is bound
-- ARGV[3]  messages to count, 0 or 1
-- ARGV[4]  time to live, ms
-- Answer:  1, or 0 when the session was cleared, bound or lost meanwhile: then nothing is changed
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
	return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'active', string.format('%d%06d', time[1], time[2]))
if ARGV[2] ~= '' then
	redis.call('HSET', KEYS[1], 'conversation', ARGV[2])
end
if ARGV[3] ~= '0' then
	redis.call('HINCRBY', KEYS[1], 'count', ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
