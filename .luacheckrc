-- What luacheck looks for in the Lua of Redis' scripts, of the Coze simulator and of wrk; `make lint` runs it.
max_line_length = 150
std = 'lua51'
files['redis'] = { read_globals = { 'redis', 'cjson', 'KEYS', 'ARGV' } }
files['tests/coze_sim'] = { std = 'ngx_lua' }
-- wrk calls functions by their names, and what threads have in common are globals.
files['tests/bench'] = { globals = { 'wrk', 'id' }, allow_defined = true, ignore = { '131', '212' } }
