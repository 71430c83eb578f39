-- A running turn tells which conversation it is in, and that Coze has accepted its message.
--
-- KEYS[1]  the session
-- ARGV[1]  the epoch that the turn began with
-- ARGV[2]  conversation to bind
-- ARGV[3]  the turn's ticket: its message is counted once, however often this is said
-- Answer:  1, or 0 when the session was cleared, bound or lost meanwhile: then nothing is changed
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
	return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'active', string.format('%d%06d', time[1], time[2]), 'conversation', ARGV[2])
-- The last four tickets are remembered: what is said again, because an answer was lost, is said soon.
local counted = redis.call('HGET', KEYS[1], 'counted') or ' '
if not string.find(counted, ' ' .. ARGV[3] .. ' ', 1, true) then
	redis.call('HINCRBY', KEYS[1], 'count', 1)
	redis.call('HSET', KEYS[1], 'counted', ' ' .. ARGV[3] .. (string.match(counted, '^ %S+ %S+ %S+ ') or counted))
end
return 1
