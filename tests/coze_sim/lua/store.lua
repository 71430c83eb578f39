--[[
store.lua - chats and conversations, shared by all workers.
Owns: the dictionaries `chats` (a chat's facts, written once), `marks` (what happened to it later),
`conversations`, and `busy` (conversation -> the chat running in it; the entry expires at the chat's natural end).
Time moves the states: a chat ends at its end_ms whether or not somebody still reads its stream.
]]
local cjson = require "cjson"
local ids = require "ids"

local M = {}

local chats, marks, conversations, busy, control

function M.init()
	chats, marks = ngx.shared.chats, ngx.shared.marks
	conversations, busy = ngx.shared.conversations, ngx.shared.busy
	control = ngx.shared.control
end

local function now_ms()
	return ngx.now() * 1000
end

-- Conversations: {id, section, created, meta (JSON), name, rounds, last (the previous question), creator}

function M.create_conversation(id)
	local seq = ids.next_seq("conversation")
	return { id = id or ids.conversation(seq), section = ids.section(seq), created = ngx.time(), rounds = 0 }
end

function M.conversation(id)
	local encoded = conversations:get(id)
	return encoded and cjson.decode(encoded)
end

function M.save_conversation(conversation)
	conversations:set(conversation.id, cjson.encode(conversation))
end

--[[
Starts a chat unless one runs in its conversation. `remember`: it will end well, so it counts as a round.
Returns true, or false when the conversation is occupied.
]]
function M.start(chat, conversation, duration_ms, remember)
	chat.start_ms = now_ms()
	chat.end_ms = chat.start_ms + duration_ms
	if duration_ms > 0 then
		-- A millisecond less, so that whoever reads the end of the stream finds the conversation free.
		if not busy:add(chat.conversation_id, chat.id, math.max(duration_ms - 1, 1) / 1000) then
			return false
		end
	elseif busy:get(chat.conversation_id) then
		return false
	end
	if remember then
		chat.before = conversation.last
		conversation.rounds = conversation.rounds + 1
		conversation.last = chat.text
	end
	M.save_conversation(conversation)
	chats:set(chat.id, cjson.encode(chat))
	return true
end

-- The chat with its status now, or nil. `gone_ms`, `cancelled_ms` and `ended_ms` are set when known.
function M.chat(id)
	local encoded = chats:get(id)
	if not encoded then
		return nil
	end
	local chat, now = cjson.decode(encoded), now_ms()
	local ending = marks:get(id .. ":end")
	chat.gone_ms = marks:get(id .. ":gone")
	chat.tool_output = marks:get(id .. ":tool")
	if ending then
		chat.ended_ms, chat.status = string.match(ending, "^(%S+) (%S+)")
		chat.ended_ms = tonumber(chat.ended_ms)
		chat.cancelled_ms = chat.status == "canceled" and marks:get(id .. ":cancel") and chat.ended_ms or nil
	elseif now >= chat.end_ms then
		chat.status, chat.ended_ms = chat.outcome, chat.end_ms
	elseif now < chat.start_ms + (chat.end_ms - chat.start_ms) / 4 then
		chat.status = "created"
	else
		chat.status = "in_progress"
	end
	return chat
end

-- Ends a chat before its time, or otherwise than planned, and frees its conversation.
function M.finish(chat, status)
	marks:set(chat.id .. ":end", string.format("%.3f %s", now_ms(), status))
	if busy:get(chat.conversation_id) == chat.id then
		busy:delete(chat.conversation_id)
	end
end

-- As finish; the round is forgotten, as Coze does.
function M.cancel(chat)
	marks:set(chat.id .. ":cancel", true)
	M.finish(chat, "canceled")
	local conversation = M.conversation(chat.conversation_id)
	if conversation and chat.outcome == "completed" and conversation.rounds > 0 then
		conversation.rounds, conversation.last = conversation.rounds - 1, chat.before
		M.save_conversation(conversation)
	end
end

function M.note_gone(chat_id, at_ms)
	marks:set(chat_id .. ":gone", at_ms)
end

function M.note_tool_output(chat_id, output)
	marks:set(chat_id .. ":tool", output)
end

-- How many times this was asked, counting this time.
function M.count(chat_id, what)
	return (marks:incr(chat_id .. ":n:" .. what, 1, 0))
end

function M.running()
	return #busy:get_keys(0)
end

-- Chats that were numbered since the last reset, also those that found their conversation occupied.
function M.numbered()
	return ids.last_seq("chat") - (control:get("chats:floor") or 0)
end

-- Calls fn for every chat since the last reset, in the order they began.
function M.each_chat(fn)
	for seq = (control:get("chats:floor") or 0) + 1, ids.last_seq("chat") do
		local chat = M.chat(ids.chat(seq))
		if chat then
			fn(chat)
		end
	end
end

function M.reset()
	control:set("chats:floor", ids.last_seq("chat"))
	for _, dict in ipairs { chats, marks, conversations, busy } do
		dict:flush_all()
		dict:flush_expired()
	end
end

return M
