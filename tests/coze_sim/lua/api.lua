--[[
api.lua - the endpoints of Coze.
Owns: the route table, the checks of each request, strict where a lenient server would hide a client's mistake.
Flow: serve() reads and logs a request, checks its token, looks for a fault, then calls its route.
]]
local cjson = require "cjson"
local answer = require "answer"
local config = require "config"
local directive = require "directive"
local ids = require "ids"
local journal = require "journal"
local pause = require "pause"
local player = require "player"
local reply = require "reply"
local store = require "store"
local stream = require "stream"
local text = require "text"

local M = {}

local TEXT_BYTES = 8192 -- of a message, kept with its chat

local function is_id(value)
	return type(value) == "string" and value ~= ""
end

local function given(value)
	return value ~= nil and value ~= cjson.null
end

-- The words of an input message; object_string is a JSON array of parts within a string.
local function words(message)
	if message.content_type ~= "object_string" then
		return message.content
	end
	local good, parts = pcall(cjson.decode, message.content)
	for _, part in ipairs(good and type(parts) == "table" and parts or {}) do
		if type(part) == "table" and part.type == "text" and type(part.text) == "string" then
			return part.text
		end
	end
	return ""
end

-- Code and message of what is wrong with an input message, or nothing.
local function bad_message(message)
	if type(message) ~= "table" then
		return 4000, "additional_messages: not an object"
	end
	if message.role ~= "user" and message.role ~= "assistant" then
		return 4000, "additional_messages: role must be user or assistant"
	end
	if type(message.content) ~= "string" then
		return 4005, "additional_messages: content must be a string"
	end
	if message.content_type ~= "text" and message.content_type ~= "object_string" then
		return 4000, "additional_messages: content_type must be text or object_string"
	end
	if given(message.type) and message.type ~= "question" and message.type ~= "answer" then
		return 4000, "additional_messages: type must be question or answer"
	end
end

-- Code and message of what is wrong with the body of /v3/chat, or nothing.
local function bad_chat(body)
	if body.conversation_id ~= nil then
		return 4000, "conversation_id belongs in the query string"
	end
	if not is_id(body.bot_id) then
		return 4000, "bot_id is required"
	end
	if not is_id(body.user_id) then
		return 4000, "user_id is required"
	end
	if type(body.stream) ~= "boolean" then
		return 4000, "stream must be true or false"
	end
	if given(body.auto_save_history) and type(body.auto_save_history) ~= "boolean" then
		return 4000, "auto_save_history must be true or false"
	end
	if body.auto_save_history == false and not body.stream then
		return 4007
	end
	if given(body.meta_data) and type(body.meta_data) ~= "table" then
		return 4003
	end
	local messages = body.additional_messages
	if type(messages) ~= "table" or messages[1] == nil then
		return 4000, "additional_messages is required"
	end
	if #messages > 100 then
		return 4004
	end
	for _, message in ipairs(messages) do
		local code, msg = bad_message(message)
		if code then
			return code, msg
		end
	end
	if messages[#messages].role ~= "user" then
		return 4000, "the last message must be of role user"
	end
end

-- The conversation that a chat shall run in, or nil when it is unknown.
local function conversation_of(id)
	if not id then
		return store.create_conversation()
	end
	local conversation = store.conversation(id)
	if not conversation and not config.strict_conversations then
		conversation = store.create_conversation(id)
	end
	return conversation
end

local function refuse(req, sim, code)
	if not req.body.stream then
		return reply.error(code, sim.msg, nil, sim.code_as_string)
	end
	player.play(stream.refusal(sim, code), sim, ngx.now() * 1000, journal.stream_opened)
end

-- Faults that come before a chat begins. Returns true when the answer is given.
local function refused(req, sim)
	-- The numbers alone say it too, but poll_status needs a code for its "failed".
	local fault = sim.fault or (sim.http_status and "http") or (sim.code and not sim.poll_status and "json_error")
	if not fault then
		return false
	end
	if fault == "occupied" then
		refuse(req, sim, sim.code or 4016)
	elseif fault == "sse_error" then
		refuse(req, sim, sim.code or 4013)
	elseif fault == "unknown_conversation" then
		reply.error(sim.code or 4002, sim.msg, nil, sim.code_as_string)
	elseif fault == "raw_json_line" then
		player.headers()
		ngx.print('{"code":' .. reply.code_json(sim.code or 4000, sim.code_as_string) .. ',"msg":' ..
			text.quote(sim.msg or reply.message_of(sim.code or 4000)) .. "}")
	elseif fault == "json_error" or fault == "http" then
		reply.fault(sim)
	else
		return false
	end
	return true
end

local function new_chat(req, conversation, said, sim)
	local seq = ids.next_seq("chat")
	local kept = said
	if #said > TEXT_BYTES then
		kept = string.sub(said, 1, text.boundary(said, TEXT_BYTES))
	end
	local meta_data = req.body.meta_data
	return {
		seq = seq, id = ids.chat(seq), conversation_id = conversation.id, section = conversation.section,
		bot_id = req.body.bot_id, user_id = req.body.user_id, stream = req.body.stream,
		text = kept, text_bytes = #said, round = conversation.rounds + 1, previous = conversation.last,
		meta_data = given(meta_data) and next(meta_data) and cjson.encode(meta_data) or nil,
		start_ms = ngx.now() * 1000, outcome = "completed", sim = next(sim) and sim or nil,
	}
end

local function play_chat(chat, sim, script)
	ngx.ctx.on_gone = function(at_ms)
		store.note_gone(chat.id, at_ms)
	end
	player.play(script, sim, chat.start_ms, journal.stream_opened)
end

-- The reply to a chat that will be polled: at once, generation goes on.
local function answer_polled(chat, sim, duration_ms)
	local fault = sim.fault
	if fault == "stall_header" then
		ngx.ctx.on_gone = function(at_ms)
			store.note_gone(chat.id, at_ms)
		end
		pause.ms(sim.stall_ms or reply.STALL_MS)
	elseif sim.first_ms then
		pause.ms(sim.first_ms)
	end
	local json = answer.chat(chat, sim, duration_ms > 0 and "created" or "in_progress")
	if fault == "cut" then
		return reply.cut(sim.cut_how)
	elseif fault == "bad_json" or fault == "eof" then
		return reply.broken('{"data":' .. json .. ',"code":0,"msg":""}')
	end
	reply.brief(json)
end

local HELD_MS = 600000 -- a chat whose states poll_status tells runs until the last of them is told, or so long

local function chat_post(req)
	local code, msg = bad_chat(req.body)
	if code then
		return reply.error(code, msg)
	end
	local conversation_id = req.args.conversation_id
	if conversation_id ~= nil and not is_id(conversation_id) then
		return reply.error(4000, "conversation_id must be given once, and not be empty")
	end

	local messages = req.body.additional_messages
	local said, own, problem = directive.split(words(messages[#messages]))
	if problem then
		return reply.error(4000, problem)
	end
	local sim = directive.effective("/v3/chat", own)
	if refused(req, sim) then
		return
	end
	local conversation = conversation_of(conversation_id)
	if not conversation then
		return reply.error(4002)
	end

	local chat = new_chat(req, conversation, said, sim)
	local polled = not chat.stream or sim.fault == "json_chat"
	local script, duration_ms
	if polled then
		duration_ms, chat.outcome = stream.polled(chat, sim)
		if sim.poll_status then
			duration_ms = HELD_MS
		end
	else
		script = stream.script(chat, sim)
		duration_ms, chat.outcome = script.duration_ms, script.outcome
	end
	if not store.start(chat, conversation, duration_ms, chat.outcome == "completed") then
		journal.incr("overlaps")
		return refuse(req, sim, 4016)
	end
	journal.name(chat.id, chat.conversation_id)
	if polled then
		return answer_polled(chat, sim, duration_ms)
	end
	return play_chat(chat, sim, script)
end

-- The chat that a request names by conversation and chat id, with its directive; or nil after an error reply.
local function named_chat(from)
	if not is_id(from.conversation_id) or not is_id(from.chat_id) then
		reply.error(4000, "conversation_id and chat_id are required")
		return nil
	end
	journal.name(from.chat_id, from.conversation_id)
	local chat = store.chat(from.chat_id)
	if not chat then
		reply.error(4001)
		return nil
	end
	if chat.conversation_id ~= from.conversation_id then
		reply.error(4002)
		return nil
	end
	return chat, chat.sim or {}
end

-- The fault that a chat's directive holds for one of its later calls. Returns true when the answer is given.
local function later_fault(chat, what, fault)
	if not fault or (fault.times and store.count(chat.id, what) > fault.times) then
		return false
	end
	return reply.fault(fault)
end

local ended = { completed = true, failed = true, canceled = true, requires_action = true }

-- The status that poll_status tells this time; its last end state stays.
local function told_status(chat, told)
	if ended[chat.status] then
		return chat.status
	end
	local n = store.count(chat.id, "poll")
	local status = told[n] or chat.outcome
	if ended[status] then
		store.finish(chat, status)
	end
	return status
end

local function retrieve(req)
	if req.text ~= "" then
		return reply.error(4000, "retrieve takes its parameters in the query string")
	end
	local chat, sim = named_chat(req.args)
	if not chat or later_fault(chat, "retrieve", sim.retrieve_fault) then
		return
	end
	local status = chat.status
	if sim.poll_status then
		status = told_status(chat, sim.poll_status)
	end
	if status == "created" or status == "in_progress" then
		return reply.ok(answer.chat_running(chat, status))
	end
	reply.ok(answer.chat(chat, sim, status, status == "completed" and answer.messages(chat, sim) or nil))
end

local function message_list(req)
	local chat, sim = named_chat(req.args)
	if not chat or later_fault(chat, "list", sim.list_fault) then
		return
	end
	reply.ok(chat.status ~= "failed" and answer.list(chat, sim) or nil)
end

local function cancel(req)
	if next(req.args) then
		return reply.error(4000, "cancel takes its parameters in the body")
	end
	local chat, sim = named_chat(req.body)
	if not chat or later_fault(chat, "cancel", sim.cancel_fault) then
		return
	end
	if ended[chat.status] then
		return reply.error(4104)
	end
	store.cancel(chat)
	reply.ok(answer.chat(chat, sim, "canceled"))
end

local function submit_tool_outputs(req)
	local chat, sim = named_chat(req.args)
	if not chat then
		return
	end
	local outputs = req.body.tool_outputs
	if type(outputs) ~= "table" or type(outputs[1]) ~= "table" or type(outputs[1].output) ~= "string" or
		outputs[1].tool_call_id ~= "call-" .. chat.id or type(req.body.stream) ~= "boolean" then
		return reply.error(4000, "tool_outputs with the tool_call_id that was asked for, and stream, are required")
	end
	if chat.status ~= "requires_action" then
		return reply.error(4000, "the chat does not wait for tool outputs")
	end
	chat.tool_output = outputs[1].output
	store.note_tool_output(chat.id, chat.tool_output)
	store.finish(chat, "completed")
	if not req.body.stream then
		return reply.brief(answer.chat(chat, sim, "in_progress"))
	end
	chat.start_ms = ngx.now() * 1000
	play_chat(chat, sim, stream.script(chat, sim))
end

local function conversation_json(conversation)
	return string.format('{"id":%s,"name":%s,"meta_data":%s,"creator_id":"7100000000000000001","created_at":%d,"updated_at":%d,' ..
		'"last_section_id":"%s","connector_id":"1024"}', text.quote(conversation.id), text.quote(conversation.name or ""),
		conversation.meta or "{}", conversation.created, conversation.created, conversation.section)
end

local function conversation_create(req)
	local name, meta_data = req.body.name, req.body.meta_data
	if given(name) and (type(name) ~= "string" or #name > 100) then
		return reply.error(4000, "name must be a string of at most 100 characters")
	end
	if given(meta_data) and type(meta_data) ~= "table" then
		return reply.error(4003)
	end
	local conversation = store.create_conversation()
	conversation.name = given(name) and name or nil
	conversation.meta = given(meta_data) and cjson.encode(meta_data) or nil
	store.save_conversation(conversation)
	reply.ok(conversation_json(conversation))
end

local function conversation_retrieve(req)
	local conversation = is_id(req.args.conversation_id) and conversation_of(req.args.conversation_id)
	if not conversation then
		return reply.error(is_id(req.args.conversation_id) and 4002 or 4000)
	end
	reply.ok(conversation_json(conversation))
end

-- A new section: the context is cut, the history kept.
local function conversation_clear(req)
	local conversation = conversation_of(req.id)
	if not conversation then
		return reply.error(4002)
	end
	conversation.section = ids.section(ids.next_seq("conversation"))
	conversation.rounds, conversation.last = 0, nil
	store.save_conversation(conversation)
	reply.ok('{"id":"' .. conversation.section .. '","conversation_id":' .. text.quote(conversation.id) .. "}")
end

local CLEAR = "/v1/conversations/:id/clear"

-- body: the request must have a JSON object.
local routes = {
	["/v3/chat"] = { POST = chat_post, body = true, own_faults = true },
	["/v3/chat/retrieve"] = { GET = retrieve, POST = retrieve },
	["/v3/chat/message/list"] = { GET = message_list },
	["/v3/chat/cancel"] = { POST = cancel, body = true },
	["/v3/chat/submit_tool_outputs"] = { POST = submit_tool_outputs, body = true },
	["/v1/conversation/create"] = { POST = conversation_create },
	["/v1/conversation/retrieve"] = { GET = conversation_retrieve },
	[CLEAR] = { POST = conversation_clear },
}
M.routes = routes

-- The whole body, "" when there is none. Large ones are in a file.
local function read_body()
	ngx.req.read_body()
	local body = ngx.req.get_body_data()
	if body then
		return body
	end
	local name = ngx.req.get_body_file()
	if not name then
		return ""
	end
	local file = assert(io.open(name, "rb"))
	body = file:read("*a")
	file:close()
	return body
end
M.read_body = read_body

-- The JSON value of a body and whether it is one: strict JSON and valid UTF-8.
local function decode(body)
	if body == "" then
		return nil, false
	end
	local good, value = pcall(cjson.decode, body)
	if not good or not text.is_utf8(body) then
		return nil, false
	end
	return value, true
end
M.decode = decode

-- The token itself is never logged, only whether it is the right one.
local function is_authorized()
	local header = ngx.var.http_authorization
	if config.authorization then
		return header == config.authorization
	end
	return header ~= nil and string.find(header, "^Bearer %S+$") ~= nil
end

local function find_route(path)
	if routes[path] then
		return routes[path], path
	end
	local id = string.match(path, "^/v1/conversations/([^/]+)/clear$")
	return id and routes[CLEAR], CLEAR, id
end

function M.serve()
	journal.count_request()
	local body = read_body()
	local value, is_json = decode(body)
	local authorized = is_authorized()
	journal.open(authorized, body, is_json)

	local route, path, id = find_route(ngx.var.uri)
	if not authorized then
		local default = directive.default(path)
		return reply.error(4100, nil, default and default.auth_status or config.auth_status)
	end
	if not route then
		return reply.error(4200, nil, 404)
	end
	if not route.own_faults then
		local sim = directive.effective(path)
		if next(sim) and reply.fault(sim) then
			return
		end
	end
	local handler = route[ngx.req.get_method()]
	if not handler then
		return reply.error(4000, "wrong method for " .. path)
	end
	if body ~= "" and not is_json or route.body and type(value) ~= "table" then
		return reply.error(4000, "the body is not a JSON object")
	end
	if route.body and not string.find(ngx.var.http_content_type or "", "application/json", 1, true) then
		return reply.error(4000, "Content-Type must be application/json")
	end
	return handler { args = ngx.req.get_uri_args(), body = type(value) == "table" and value or {}, text = body, id = id }
end

return M
