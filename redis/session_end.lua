-- A turn is over, or its message stops waiting: saves what came of it, leaves the session, and wakes who is next.
--
-- KEYS[1]  the session
-- KEYS[2]  a list of the tickets that wait
-- KEYS[3]  a sorted set: until when each ticket is vouched for
-- ARGV[1]  the ticket
-- ARGV[2]  the epoch that the turn began with, or "" when its message was not accepted: there is nothing to save
-- ARGV[3]  the turn's number
-- ARGV[4]  conversation that the turn was in
-- ARGV[5]  time to live, ms
-- ARGV[6]  the session's owner, or ""
-- ARGV[7]  1 when session_update.lua is known to have counted the message
-- ARGV[8]  when the turn ended, Unix microseconds: the index of sessions is told the same
-- Answer:  1 when it was saved, 0 when there was nothing to save or the session was cleared meanwhile
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch, counted, bound_by, turn, turn_until =
	unpack(redis.call('HMGET', KEYS[1], 'epoch', 'counted', 'bound_by', 'turn', 'turn_until'))
local number, lost, saved = ARGV[3], not epoch, 0

-- A session without an epoch was lost with Redis' memory: what this turn knows of it is all there is.
if ARGV[2] ~= '' and (lost or string.match(epoch, '^%d+') == string.match(ARGV[2], '^%d+')) then
	redis.call('HSET', KEYS[1], 'active', ARGV[8])
	if lost then
		redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'turns', number)
		if ARGV[6] ~= '' then
			redis.call('HSET', KEYS[1], 'owner', ARGV[6])
		end
	end
	-- This may come late, when Redis was away: a later turn's word counts more, and so does a bind since.
	if (lost or epoch == ARGV[2]) and tonumber(bound_by or 0) <= tonumber(number) then
		redis.call('HSET', KEYS[1], 'conversation', ARGV[4], 'bound_by', number)
	end
	-- Counted once, also when an answer of ours was lost and this is said again: see session_update.lua.
	counted = counted or ' '
	if lost or (ARGV[7] ~= '1' and not string.find(counted, ' ' .. number .. ' ', 1, true)) then
		local kept, left = ' ' .. number .. ' ', 15
		for one in string.gmatch(counted, '%d+') do
			if left > 0 then
				kept, left = kept .. one .. ' ', left - 1
			end
		end
		redis.call('HINCRBY', KEYS[1], 'count', 1)
		redis.call('HSET', KEYS[1], 'counted', kept)
	end
	redis.call('PEXPIRE', KEYS[1], ARGV[5])
	saved = 1
end

if redis.call('ZREM', KEYS[3], ARGV[1]) == 1 then
	redis.call('LREM', KEYS[2], 0, ARGV[1])
end
if turn == ARGV[1] then
	redis.call('HDEL', KEYS[1], 'turn', 'turn_until')
	turn = false
end
if turn and tonumber(turn_until) > now_ms then
	return saved
end
-- Nobody has the session: wake the first in the queue. If its worker is dead, others look for themselves soon.
local first = redis.call('LINDEX', KEYS[2], 0)
while first and tonumber(redis.call('ZSCORE', KEYS[3], first) or 0) <= now_ms do
	redis.call('LPOP', KEYS[2])
	redis.call('ZREM', KEYS[3], first)
	first = redis.call('LINDEX', KEYS[2], 0)
end
if first then
	redis.call('PUBLISH', string.match(first, '@(.*)$'), first)
end
return saved
