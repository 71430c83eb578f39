--[[
pause.lua - waiting while watching the client.
Owns: the one on_abort callback of a request. When the client leaves, `on_gone` of the request's
context is called and the request ends; without a pause nobody can leave in between, so it costs nothing.
]]
local M = {}

local function on_abort()
	M.gone(ngx.ctx)
	ngx.exit(499)
end

-- Notes once that the client has left.
function M.gone(ctx)
	if ctx.ended then
		return
	end
	ngx.update_time()
	ctx.ended = "client_gone"
	if ctx.on_gone then
		ctx.on_gone(ngx.now() * 1000)
	end
end

-- From here on the client's leaving ends the request.
function M.watch()
	local ctx = ngx.ctx
	if not ctx.watched then
		ctx.watched = true
		ngx.on_abort(on_abort)
	end
end

function M.ms(ms)
	M.watch()
	if ms > 0 then
		ngx.sleep(ms / 1000)
	end
end

return M
