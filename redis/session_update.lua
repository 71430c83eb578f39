-- A running turn tells which conversation it is in, and that Coze has accepted its message.
--
-- KEYS[1]  the session
-- ARGV[1]  the epoch that the turn began with
-- ARGV[2]  conversation to bind
-- ARGV[3]  the turn's number
-- Answer:  1, or 0 when the session was cleared or lost meanwhile: then nothing is changed
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or string.match(epoch, '^%d+') ~= string.match(ARGV[1], '^%d+') then
	return 0
end
local time = redis.call('TIME')
local counted = redis.call('HGET', KEYS[1], 'counted') or ' '

redis.call('HSET', KEYS[1], 'active', string.format('%d%06d', time[1], time[2]))
if epoch == ARGV[1] then -- else somebody has bound it to another one
	redis.call('HSET', KEYS[1], 'conversation', ARGV[2], 'bound_by', ARGV[3])
end
-- The last sixteen are remembered: what is said again, because an answer was lost, is said soon.
if not string.find(counted, ' ' .. ARGV[3] .. ' ', 1, true) then
	local kept, left = ' ' .. ARGV[3] .. ' ', 15
	for number in string.gmatch(counted, '%d+') do
		if left > 0 then
			kept, left = kept .. number .. ' ', left - 1
		end
	end
	redis.call('HINCRBY', KEYS[1], 'count', 1)
	redis.call('HSET', KEYS[1], 'counted', kept)
end
return 1
