-- A message arrives for a session: may this user use it, is it this message's turn, and which conversation goes on?
-- Called once when the message arrives, and again (same ticket) whenever something may have changed, until it is granted.
--
-- KEYS[1]  the session, a hash: owner, conversation, epoch, count, active; turns: number of the last turn that was granted;
--          accepted: of the last one whose message is known to be accepted, skipped: those before it of which it is not; and
--          turn: ticket of the last turn, turn_until: while it runs, until when it holds the session (Unix ms), else 0;
--          waiting: there may be somebody in KEYS[2]
-- KEYS[2]  a list of the tickets that wait, in order of arrival
-- KEYS[3]  a sorted set: until when (Unix ms) each ticket's worker vouches for it
-- ARGV[1]  user_id of the request, or "" when it named none
-- ARGV[2]  how long the session is kept, ms: its time to live, and at least as long as two times ARGV[4], so that it does not
--          expire under a running turn
-- ARGV[3]  the ticket: unique, and behind its @ the channel that wakes its worker
-- ARGV[4]  how long the turn, or the place in the queue, is held without being renewed, ms
-- Answer:  lines. "forbidden"; or "wait", ms after which the running turn, or who waits first, may be dead; or "ok", epoch,
--          number, the time in Unix microseconds, owner, conversation; the last two are empty when there is none
--
-- The epoch changes whenever somebody clears or binds the session: what a turn writes later counts only while the epoch is still
-- the one that the turn began with. It is the time in microseconds when the session began or was cleared, and once it was
-- bound, a dot and the time of that: a message that ran meanwhile is still one more (session_save.lua).
local ticket, hold_ms = ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] .. string.sub('00000' .. time[2], -6)
local now_ms = math.floor(now / 1000)
local owner, conversation, epoch, turns, turn_until, waiting = unpack(redis.call('HMGET', KEYS[1],
	'owner', 'conversation', 'epoch', 'turns', 'turn_until', 'waiting'))
owner = owner or ''

if owner ~= '' and owner ~= ARGV[1] and ARGV[1] ~= '' then
	if waiting then
		redis.call('LREM', KEYS[2], 0, ticket)
		redis.call('ZREM', KEYS[3], ticket)
	end
	return 'forbidden'
end

-- The first ticket that a living worker vouches for.
local first = waiting and redis.call('LINDEX', KEYS[2], 0)
while first and tonumber(redis.call('ZSCORE', KEYS[3], first) or 0) <= now_ms do
	redis.call('LPOP', KEYS[2])
	redis.call('ZREM', KEYS[3], first)
	first = redis.call('LINDEX', KEYS[2], 0)
end

local running = turn_until and tonumber(turn_until) > now_ms and redis.call('HGET', KEYS[1], 'turn') ~= ticket
if running or (first and first ~= ticket) then
	if redis.call('ZADD', KEYS[3], now_ms + hold_ms, ticket) == 1 then
		redis.call('RPUSH', KEYS[2], ticket)
	end
	if not waiting then
		redis.call('HSET', KEYS[1], 'waiting', '1')
	end
	-- The queue does not outlive the session, which knows of it.
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
	redis.call('PEXPIRE', KEYS[2], ARGV[2])
	redis.call('PEXPIRE', KEYS[3], ARGV[2])
	local ends = running and turn_until or redis.call('ZSCORE', KEYS[3], first) or 0
	return 'wait\n' .. string.format('%d', ends - now_ms)
end
if first then
	redis.call('LPOP', KEYS[2])
	redis.call('ZREM', KEYS[3], ticket)
end

local number = string.format('%d', (turns or 0) + 1)
turn_until = string.format('%d', now_ms + hold_ms)
if epoch then
	redis.call('HSET', KEYS[1], 'active', now, 'turns', number, 'turn', ticket, 'turn_until', turn_until)
else
	epoch = now
	redis.call('HSET', KEYS[1], 'active', now, 'turns', number, 'turn', ticket, 'turn_until', turn_until, 'epoch', epoch)
end
if owner == '' and ARGV[1] ~= '' then
	owner = ARGV[1]
	redis.call('HSET', KEYS[1], 'owner', owner)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'ok\n' .. epoch .. '\n' .. number .. '\n' .. now .. '\n' .. owner .. '\n' .. (conversation or '')
