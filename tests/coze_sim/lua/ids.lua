--[[
ids.lua - identifiers as Coze makes them: strings of 19 digits, log ids of 34 characters.
The ids of one run differ only in their last digits, so whoever parses them as doubles mixes them up;
the start second within them keeps a restarted simulator from issuing an old id again; a reloaded one goes on.
]]
local format, floor = string.format, math.floor

local M = {}

local CHAT, CONVERSATION, SECTION = 5, 6, 4
local boot, boot9, counters

function M.init()
	counters = ngx.shared.control
	counters:add("boot", ngx.time())
	boot = counters:get("boot")
	boot9 = boot % 1000000000
end

local function make(kind, seq)
	return format("7%d%09d%08d", kind, boot9, seq % 100000000)
end

function M.next_seq(name)
	return (counters:incr("seq:" .. name, 1, 0))
end

function M.last_seq(name)
	return counters:get("seq:" .. name) or 0
end

function M.chat(seq) return make(CHAT, seq) end
function M.conversation(seq) return make(CONVERSATION, seq) end
function M.section(seq) return make(SECTION, seq) end

-- The message ids of a chat: its sequence number and the message's index, 0 to 99.
function M.message(seq, index)
	return format("78%07d%08d%02d", boot % 10000000, seq % 100000000, index)
end

local stamp_second, stamp

function M.logid()
	local now = ngx.time()
	if now ~= stamp_second then
		stamp_second, stamp = now, os.date("%Y%m%d%H%M%S", now)
	end
	return stamp .. format("%08X%04X%08X", boot, ngx.worker.pid() % 65536, floor(math.random() * 4294967295))
end

return M
