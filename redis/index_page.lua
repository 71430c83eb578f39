-- One page of the living sessions, the last used one first.
--
-- KEYS[1]  the index, see index_tidy.lua
-- ARGV[1]  time to live of a session, ms
-- ARGV[2]  how many sessions to skip
-- ARGV[3]  how many to list at most
-- Answer:  {number of living sessions, session_id, its last activity in Unix microseconds, the next session_id, ...}
local time = redis.call('TIME')
local lapsed = time[1] * 1000000 + time[2] - ARGV[1] * 1000
local total = redis.call('ZCOUNT', KEYS[1], string.format('(%.0f', lapsed), '+inf')
local last = math.min(ARGV[2] + ARGV[3], total) - 1
local page = {}

-- By rank, which costs the same for any page; those that have lapsed have the last ranks.
if last >= tonumber(ARGV[2]) then
	page = redis.call('ZREVRANGE', KEYS[1], ARGV[2], last, 'WITHSCORES')
end
table.insert(page, 1, tostring(total))
return page
