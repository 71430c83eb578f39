-- What came of a turn: its message was accepted, and maybe the turn is over. Or a message stops waiting for its turn.
-- Whoever leaves the session wakes the next. May be said again, and late: nothing is counted twice, and the word of a
-- later turn stands.
--
-- KEYS[1]  the session, see session_begin.lua
-- KEYS[2]  a list of the tickets that wait           } needed only when it is over
-- KEYS[3]  until when each ticket is vouched for     }
-- ARGV[1]  the ticket
-- ARGV[2]  the epoch that the turn began with, or "" when its message was not accepted: there is nothing to save
-- ARGV[3]  the turn's number
-- ARGV[4]  conversation that the turn is in
-- ARGV[5]  the session's owner, or ""
-- ARGV[6]  when it was accepted or ended, Unix microseconds: the index of sessions is told the same
-- ARGV[7]  time to live of the session, ms
-- ARGV[8]  0: the turn goes on; 1: it is over; 2: it is, and has taken so long that the time to live begins anew
-- Answer:  1 when it was saved, 0 when there was nothing to save or the session was cleared meanwhile
local epoch, turns, accepted, count, conversation, waiting = unpack(redis.call('HMGET', KEYS[1],
	'epoch', 'turns', 'accepted', 'count', 'conversation', 'waiting'))
local over, number, last = ARGV[8] ~= '0', tonumber(ARGV[3]), tonumber(accepted or 0)

-- What most turns meet, in as few commands as can be: no turn came after it, none before it is missing, nobody is to be woken.
if epoch == ARGV[2] and turns == ARGV[3] and last >= number - 1 and not (over and waiting) then
	local set = { KEYS[1], 'active', ARGV[6] }
	if over then
		set[4], set[5] = 'turn_until', '0'
	end
	if last < number then
		local n = #set
		set[n + 1], set[n + 2] = 'accepted', ARGV[3]
		set[n + 3], set[n + 4] = 'count', string.format('%d', (count or 0) + 1)
		if conversation ~= ARGV[4] then
			set[n + 5], set[n + 6] = 'conversation', ARGV[4]
		end
	end
	redis.call('HSET', unpack(set))
	if ARGV[8] == '2' then
		redis.call('PEXPIRE', KEYS[1], ARGV[7])
	end
	return 1
end

local saved, lost = 0, not epoch
local turn, turn_until, active, skipped = unpack(redis.call('HMGET', KEYS[1], 'turn', 'turn_until', 'active', 'skipped'))
local held = turn == ARGV[1] and turn_until ~= '0'

-- A session without an epoch was lost with Redis' memory: what this turn knows of it is all there is.
if ARGV[2] ~= '' and lost then
	redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'turns', ARGV[3], 'owner', ARGV[5])
	epoch, last = ARGV[2], number - 1
end
if ARGV[2] ~= '' and string.match(epoch, '^%d+') == string.match(ARGV[2], '^%d+') then
	local fresh, granted = number > last, tonumber(turns or 0)
	if fresh then
		redis.call('HSET', KEYS[1], 'accepted', ARGV[3])
		if epoch == ARGV[2] then -- else somebody has bound it to another one
			redis.call('HSET', KEYS[1], 'conversation', ARGV[4])
		end
		-- Of turns before it whose messages were not accepted, or that were not saved yet, the last are remembered.
		if number > last + 1 then
			skipped = skipped or ' '
			for between = math.max(last + 1, number - 20), number - 1 do
				skipped = skipped .. string.format('%d ', between)
			end
			if granted > last and granted < number - 20 then
				skipped = skipped .. string.format('%d ', granted)
			end
			redis.call('HSET', KEYS[1], 'skipped', string.sub(skipped, -60))
		end
		-- A Redis that has fallen back does not know the last numbers that were given away; the next is a new one again.
		if number > granted then
			redis.call('HSET', KEYS[1], 'turns', ARGV[3])
		end
	else
		local from, to = string.find(skipped or '', ' ' .. ARGV[3] .. ' ', 1, true)
		fresh = from
		if fresh then
			redis.call('HSET', KEYS[1], 'skipped', string.sub(skipped, 1, from) .. string.sub(skipped, to + 1))
		end
	end
	if fresh then
		redis.call('HINCRBY', KEYS[1], 'count', 1)
	end
	if tonumber(active or 0) < tonumber(ARGV[6]) then
		redis.call('HSET', KEYS[1], 'active', ARGV[6])
	end
	if lost or ARGV[8] == '2' then
		redis.call('PEXPIRE', KEYS[1], ARGV[7])
	end
	saved = 1
end
if held and over then
	redis.call('HSET', KEYS[1], 'turn_until', '0')
end
if not over or not waiting then
	return saved
end

if redis.call('ZREM', KEYS[3], ARGV[1]) == 1 then
	redis.call('LREM', KEYS[2], 0, ARGV[1])
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if not held and turn and tonumber(turn_until) > now_ms then
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
else
	redis.call('HDEL', KEYS[1], 'waiting')
end
return saved
