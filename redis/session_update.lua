-- A running turn tells which conversation it is in, and that Coze has accepted its message.
--
-- KEYS[1]  the session
-- ARGV[1]  the epoch that the turn began with
-- ARGV[2]  conversation to bind
-- ARGV[3]  messages to count, 0 or 1
-- Answer:  1, or 0 when the session was cleared, bound or lost meanwhile: then nothing is changed
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
	return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'active', string.format('%d%06d', time[1], time[2]), 'conversation', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'count', ARGV[3])
return 1
