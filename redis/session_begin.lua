-- A message arrives for a session: may this user use it, and which conversation goes on?
--
-- KEYS[1]  the session, a hash: owner, conversation, epoch, count, active
-- ARGV[1]  user_id of the request, or "" when it named none
-- ARGV[2]  time to live, ms
-- Answer:  {"forbidden"} or {"ok", conversation, epoch, owner}; texts are "" when there is none
--
-- The epoch is a time in microseconds that changes whenever somebody clears or binds the session: what a turn writes
-- later counts only while the epoch is still the one that the turn began with (session_update.lua).
local time = redis.call('TIME')
local now = string.format('%d%06d', time[1], time[2])
local session = redis.call('HMGET', KEYS[1], 'owner', 'conversation', 'epoch')
local owner, conversation, epoch = session[1] or '', session[2] or '', session[3]

if owner ~= '' and ARGV[1] ~= '' and owner ~= ARGV[1] then
	return { 'forbidden' }
end
if not epoch then
	epoch = now
	redis.call('HSET', KEYS[1], 'epoch', epoch, 'count', 0)
end
if owner == '' and ARGV[1] ~= '' then
	owner = ARGV[1]
	redis.call('HSET', KEYS[1], 'owner', owner)
end
redis.call('HSET', KEYS[1], 'active', now)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 'ok', conversation, epoch, owner }
