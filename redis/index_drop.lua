-- A session of the index is gone: takes it out, unless it has been used meanwhile.
--
-- KEYS[1]  the index, see index_tidy.lua
-- ARGV[1]  session_id
-- ARGV[2]  its last activity as the index had it
-- Answer:  1 when it was taken out, else 0
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then
	return 0
end
return redis.call('ZREM', KEYS[1], ARGV[1])
