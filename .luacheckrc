-- What luacheck looks for in the Lua of Redis' scripts and of the Coze simulator; `make lint` runs it.
max_line_length = 150
std = 'lua51'
files['redis'] = { read_globals = { 'redis', 'cjson', 'KEYS', 'ARGV' } }
files['tests/coze_sim'] = { std = 'ngx_lua' }
