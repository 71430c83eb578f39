-- A message arrives for a session: may this user use it, is it this message's turn, and which conversation goes on?
-- Called once when the message arrives, and again (same ticket) whenever something may have changed, until it is granted.
--
-- KEYS[1]  the session, a hash: owner, conversation, epoch, count, active; turns: number of the last turn that was granted;
--          bound_by, counted: numbers of the turn that bound the conversation, and of the last ones that were counted; and
--          while a turn runs, turn: its ticket, and turn_until
-- KEYS[2]  a list of the tickets that wait, in order of arrival
-- KEYS[3]  a sorted set: until when (Unix ms) each ticket's worker vouches for it
-- ARGV[1]  user_id of the request, or "" when it named none
-- ARGV[2]  time to live of the session, ms
-- ARGV[3]  the ticket: unique, and behind its @ the channel that wakes its worker
-- ARGV[4]  how long the turn, or the place in the queue, is held without being renewed, ms
-- Answer:  {"forbidden"}, {"wait", ms after which the running turn, or who waits first, may be dead}, or {"ok", conversation, epoch, owner, number,
--          the time in Unix microseconds}; texts are "" when there is none
--
-- The epoch changes whenever somebody clears or binds the session: what a turn writes later counts only while the epoch is still
-- the one that the turn began with. It is the time in microseconds when the session began or was cleared, and once it was
-- bound, a dot and the time of that: a message that ran meanwhile is still one more (session_update.lua, session_end.lua).
local time = redis.call('TIME')
local now = string.format('%d%06d', time[1], time[2])
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local ticket, hold_ms = ARGV[3], tonumber(ARGV[4])
local session = redis.call('HMGET', KEYS[1], 'owner', 'conversation', 'epoch', 'turn', 'turn_until')
local owner, conversation, epoch = session[1] or '', session[2] or '', session[3]
local turn, turn_until = session[4], tonumber(session[5] or 0)

if owner ~= '' and ARGV[1] ~= '' and owner ~= ARGV[1] then
	redis.call('LREM', KEYS[2], 0, ticket)
	redis.call('ZREM', KEYS[3], ticket)
	return { 'forbidden' }
end

-- The first ticket that a living worker vouches for.
local first = redis.call('LINDEX', KEYS[2], 0)
while first and tonumber(redis.call('ZSCORE', KEYS[3], first) or 0) <= now_ms do
	redis.call('LPOP', KEYS[2])
	redis.call('ZREM', KEYS[3], first)
	first = redis.call('LINDEX', KEYS[2], 0)
end

local running = turn and turn ~= ticket and turn_until > now_ms
if running or (first and first ~= ticket) then
	if redis.call('ZADD', KEYS[3], now_ms + hold_ms, ticket) == 1 then
		redis.call('RPUSH', KEYS[2], ticket)
	end
	redis.call('PEXPIRE', KEYS[2], ARGV[2])
	redis.call('PEXPIRE', KEYS[3], ARGV[2])
	local ends = running and turn_until or tonumber(redis.call('ZSCORE', KEYS[3], first) or 0)
	return { 'wait', string.format('%d', ends - now_ms) }
end
if first == ticket then
	redis.call('LPOP', KEYS[2])
	redis.call('ZREM', KEYS[3], ticket)
end

if not epoch then
	epoch = now
	redis.call('HSET', KEYS[1], 'epoch', epoch, 'count', 0)
end
if owner == '' and ARGV[1] ~= '' then
	owner = ARGV[1]
	redis.call('HSET', KEYS[1], 'owner', owner)
end
redis.call('HSET', KEYS[1], 'active', now, 'turn', ticket, 'turn_until', string.format('%d', now_ms + hold_ms))
-- A session does not expire under a running turn, however short its life is.
redis.call('PEXPIRE', KEYS[1], math.max(tonumber(ARGV[2]), 2 * hold_ms))
return { 'ok', conversation, epoch, owner, tostring(redis.call('HINCRBY', KEYS[1], 'turns', 1)), now }
