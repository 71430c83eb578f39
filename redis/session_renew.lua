-- The worker of a running turn is alive: the turn keeps the session, also one that Redis has lost meanwhile.
--
-- KEYS[1]  the session
-- ARGV[1]  the turn's ticket
-- ARGV[2]  how long it is held from now on, ms
-- ARGV[3]  how long the session is kept, ms: see session_begin.lua
-- Answer:  1, or 0 when another turn has the session by now
local turn, turn_until = unpack(redis.call('HMGET', KEYS[1], 'turn', 'turn_until'))
if turn and turn ~= ARGV[1] and turn_until ~= '0' then
	return 0
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'turn', ARGV[1], 'turn_until', string.format('%d', now_ms + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
