--[[
stream.lua - the events of one streamed chat, in their order, with the faults that were asked for.
Owns: nothing; makes a script (wire.lua) that player.lua plays.
]]
local answer = require "answer"
local config = require "config"
local reply = require "reply"
local text = require "text"
local wire = require "wire"

local M = {}

local DONE = { quoted = '"[DONE]"', bare = "[DONE]", empty = "", debug_url = '{"debug_url":"https://example.invalid/debug"}' }

-- Milliseconds before each delta. gen_ms spreads the deltas over the running time that it gives to a polled chat.
function M.gap_ms(sim, deltas)
	if sim.gap_ms then
		return sim.gap_ms
	end
	if sim.gen_ms then
		return deltas > 0 and sim.gen_ms / deltas or 0
	end
	return config.gap_ms
end

local function say_done(script, sim)
	local data = DONE[sim.done or "quoted"]
	if data then
		script:event("done", data)
	end
	if sim.no_final_newline then
		script:trim()
	end
end

local function unknown_events(script)
	script:event("ping", "")
	script:event("conversation.chat.something_new", '{"id":"1","nested":{"list":[1,2,{"a":null}]}}')
	script:raw("event" .. script.colon .. "lonely" .. script.newline .. script.newline)
	script:raw("unknownfield" .. script.colon .. "1" .. script.newline .. script.newline)
end

local function say_noise(script, chat, sim, items)
	local quote = answer.quoter(sim)
	local tail = answer.tail(chat, "text", math.floor(chat.start_ms / 1000))
	for _, item in ipairs(items) do
		script:event("conversation.message.completed", answer.head(chat, item.index, item.type),
			quote(item.content), tail)
	end
end

-- The fault that strikes after cut_after deltas. Returns true when no answer follows any more.
local function strike(script, chat, sim)
	local fault = sim.fault
	if fault == "cut" or fault == "eof" then
		script:die(fault, sim.cut_how)
	elseif fault == "stall" then
		script:wait(sim.stall_ms or reply.STALL_MS)
	elseif fault == "bad_json" then
		script:event("conversation.message.delta", '{"id":"7500000000000000201","type":"answer","content":"坏')
	elseif fault == "chat_failed_after_text" or fault == "chat_failed" then
		script:ends("failed")
		script:event("conversation.chat.failed", answer.chat(chat, sim, "failed"))
		return true
	elseif fault == "canceled" then
		script:ends("canceled")
		script:event("conversation.chat.canceled", answer.chat(chat, sim, "canceled"))
		say_done(script, sim)
		return true
	elseif fault == "requires_action" and not chat.tool_output then
		script:ends("requires_action")
		script:event("conversation.chat.requires_action", answer.chat(chat, sim, "requires_action"))
		say_done(script, sim)
		return true
	end
	return false
end

-- The deltas and completed messages of all answers. Returns true when a fault ended the chat.
local function say_answers(script, chat, sim, messages)
	local quote = answer.quoter(sim)
	local gap_ms = M.gap_ms(sim, answer.count_deltas(messages, sim))
	local strike_at = sim.fault and (sim.cut_after or 2)
	local said = 0

	local function delta(head, content, tail)
		if said == strike_at and not script.struck then
			local ended = strike(script, chat, sim)
			script.struck = true
			if ended then
				return true
			end
		end
		if gap_ms > 0 then
			script:wait(gap_ms)
		end
		script:event("conversation.message.delta", head, content, tail)
		said = said + 1
		return false
	end

	for _, message in ipairs(messages) do
		local head = answer.head(chat, message.index, "answer")
		local tail = answer.tail(chat, message.content_type)
		if not sim.completed_only then
			if sim.reasoning then
				for i = 1, #message.pieces do
					if delta(head, '"","reasoning_content":' .. quote("思考" .. i), tail) then return true end
				end
			end
			for _, piece in ipairs(message.pieces) do
				if delta(head, quote(piece), tail) then return true end
			end
		end
		if sim.fault and not script.struck and message == messages[#messages] then
			-- Fewer deltas than cut_after: the fault still strikes, before the answer is complete.
			script.struck = true
			if strike(script, chat, sim) then return true end
		end
		script:event("conversation.message.completed", head, quote(message.content),
			answer.tail(chat, message.content_type, math.floor(chat.start_ms / 1000)))
	end
	return false
end

--[[
The script of a chat. chat.start_ms must be set. After it script.duration_ms is the time until the chat's
natural end, which is its last event, and script.outcome its last status.
]]
function M.script(chat, sim)
	local script = wire.script(sim)
	local fault = sim.fault
	local messages = answer.messages(chat, sim)
	local before, after = answer.noise(sim)

	script:wait((sim.first_ms or 0) + (fault == "stall_header" and (sim.stall_ms or reply.STALL_MS) or 0))
	if (fault == "cut" or fault == "eof") and sim.cut_after == -1 then
		script:die(fault, sim.cut_how)
	end
	if not chat.tool_output then
		script:event("conversation.chat.created", answer.chat(chat, sim, "created"))
	end
	script:event("conversation.chat.in_progress", answer.chat(chat, sim, "in_progress"))
	if sim.unknown_events then
		unknown_events(script)
	end
	if not chat.tool_output then
		say_noise(script, chat, sim, before)
	end

	if fault == "chat_failed" or #messages == 0 then
		if strike(script, chat, sim) then
			return script
		end
	elseif say_answers(script, chat, sim, messages) then
		return script
	end

	if sim.unknown_events then
		unknown_events(script)
	end
	if not chat.tool_output then
		say_noise(script, chat, sim, after)
	end
	script:ends("completed")
	script:event("conversation.chat.completed", answer.chat(chat, sim, "completed", messages))
	if fault == "stall_done" then
		script:wait(sim.stall_ms or reply.STALL_MS)
	end
	say_done(script, sim)
	return script
end

-- How long a polled chat runs, and how it ends.
function M.polled(chat, sim)
	local messages = answer.messages(chat, sim)
	local deltas = answer.count_deltas(messages, sim)
	local outcome = "completed"
	if sim.fault == "chat_failed" or sim.fault == "chat_failed_after_text" then
		outcome = "failed"
	elseif sim.fault == "canceled" or sim.fault == "requires_action" then
		outcome = sim.fault
	end
	return sim.gen_ms or M.gap_ms(sim, deltas) * deltas, outcome
end

-- A stream that is refused before a chat begins.
function M.refusal(sim, code)
	local script = wire.script(sim)
	script:event("error", '{"code":' .. reply.code_json(code, sim.code_as_string) .. ',"msg":' ..
		text.quote(sim.msg or reply.message_of(code)) .. "}")
	return script
end

return M
