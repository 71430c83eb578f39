--[[
player.lua - plays a script to the client.
Owns: the rhythm of one event stream. Pauses are kept by the clock, so that a slow reader does not stretch
the chat; what lies between two pauses leaves in one write, unless `split` asks for small ones.
]]
local pause = require "pause"
local reply = require "reply"

local M = {}

local BATCH_BYTES = 65536 -- then wait for the reader: his slowness must not become our memory

-- What could not be written means that the client has gone.
local function push(bytes)
	local good = ngx.print(bytes) and ngx.flush(true)
	if not good then
		pause.gone(ngx.ctx)
		ngx.exit(499)
	end
end

local function push_split(bytes, size)
	for at = 1, #bytes, size do
		push(string.sub(bytes, at, at + size - 1))
	end
end

-- Sends all that was collected; `split` is the bytes of one write, or nil.
local function send(pending, n, split)
	if n == 0 then
		return
	end
	local bytes = table.concat(pending, "", 1, n)
	if split then
		return push_split(bytes, split)
	end
	if #bytes <= BATCH_BYTES then
		return push(bytes)
	end
	push_split(bytes, BATCH_BYTES)
end

local function sleep_until(at_ms)
	ngx.update_time()
	local rest = at_ms - ngx.now() * 1000
	if rest > 0 then
		ngx.sleep(rest / 1000)
	end
end

function M.headers()
	reply.logid_header()
	local header = ngx.header
	header["Content-Type"] = "text/event-stream"
	header["Cache-Control"] = "no-cache"
end

--[[
on_open: called when the stream takes time, so that it is worth counting.
]]
function M.play(script, sim, start_ms, on_open)
	M.headers()
	local split = sim.split and sim.split > 0 and sim.split or nil
	if script.acts == 0 and not split and script.bytes <= BATCH_BYTES then
		ngx.print(script.items) -- the plain path: one write
		return
	end
	on_open()
	pause.watch()
	local pending, n, at_ms = {}, 0, start_ms
	for i = 1, script.n do
		local item = script.items[i]
		if type(item) == "string" then
			n = n + 1
			pending[n] = item
		else
			send(pending, n, split)
			n = 0
			if type(item) == "number" then
				at_ms = at_ms + item
				sleep_until(at_ms)
			elseif item.act == "cut" then
				return reply.cut(item.how)
			else
				ngx.ctx.ended = "eof"
			end
		end
	end
	send(pending, n, split)
end

return M
