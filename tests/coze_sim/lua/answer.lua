--[[
answer.lua - what the bot says, and everything it says beside the answer.
Owns: the answer messages of a chat and their cutting into deltas; the noise around them; the Message and Chat JSON.
A chat's record is enough to make the same messages again, so nothing of them is stored.
]]
local cjson = require "cjson"
local config = require "config"
local ids = require "ids"
local reply = require "reply"
local text = require "text"

local M = {}

local QUOTE_BYTES = 2000 -- a demo that repeats a book is no demo

local function quoted(words, bytes)
	bytes = bytes or #words
	if bytes <= QUOTE_BYTES then
		return words
	end
	return string.sub(words, 1, text.boundary(words, QUOTE_BYTES)) .. "……（共 " .. bytes .. " 字节）"
end

local function echo(chat)
	local said = "收到：“" .. quoted(chat.text, chat.text_bytes) .. "”。这是本次会话的第 " .. chat.round .. " 轮"
	if chat.previous then
		said = said .. "，上一轮您说：“" .. quoted(chat.previous) .. "”"
	end
	return said .. "。"
end

local CARD = cjson.encode { content_type = "card", card_type = 3, template_url = "https://example.invalid/card",
	response_for_model = "卡片内容", x_properties = { title = "这是一张卡片" } }

local function message(index, content, pieces, content_type)
	return { index = index, content = content, pieces = pieces, content_type = content_type or "text" }
end

local function cut(content, sim)
	return text.pieces(content, sim.huge_delta and 1 or sim.chunks or config.chunks)
end

--[[
The answer messages: {index, content, pieces, content_type}. Without pieces an answer comes only as a whole.
Their indexes are below those of the noise, although they are sent later: message ids are not in order.
]]
function M.messages(chat, sim)
	local out = {}
	local function add(content, pieces, content_type)
		out[#out + 1] = message(#out, content, pieces, content_type)
	end

	if chat.tool_output then
		local said = "工具返回：“" .. chat.tool_output .. "”。"
		add(said, cut(said, sim))
	elseif sim.fault == "empty" or sim.fault == "requires_action" then
		return out
	elseif sim.fault == "empty_answer" then
		add("", {})
	elseif sim.answers then
		for _, content in ipairs(sim.answers) do
			add(content, cut(content, sim))
		end
	elseif sim.deltas then
		add(table.concat(sim.deltas), sim.deltas)
	else
		local content = sim.answer or (sim.answer_bytes and text.filler(sim.answer_bytes)) or echo(chat)
		add(content, cut(content, sim))
	end
	if sim.card then
		add(CARD, { CARD }, "card")
	end
	if sim.fault == "bad_utf8" then
		-- In the middle of the text, so that a decoder cannot take it for an incomplete end.
		local first = out[1]
		local pieces = {}
		for i, piece in ipairs(first.pieces) do
			pieces[i] = i == 1 and piece .. "\255\254坏" or piece
		end
		first.content, first.pieces = table.concat(pieces), pieces
	end
	return out
end

-- How many deltas the messages have, and thus how long they take.
function M.count_deltas(messages, sim)
	if sim.completed_only then
		return 0
	end
	local n = 0
	for _, answer in ipairs(messages) do
		n = n + #answer.pieces * (sim.reasoning and 2 or 1)
	end
	return n
end

local function verbose(msg_type, data)
	return cjson.encode { msg_type = msg_type, data = data, from_module = cjson.null, from_unit = cjson.null }
end

-- Tool calls carry bare numbers beyond 2^53 within their content.
local FUNCTION_CALL = '{"name":"search-web","arguments":{"query":"天气"},"plugin_id":7300000000000000123,"plugin_name":"search",' ..
	'"api_id":7300000000000000456,"api_name":"web","plugin_type":1}'

local NOISE_BEFORE = {
	{ "verbose", verbose("knowledge_recall", '{"chunks":[{"slice":"知识片段","score":0.87,"meta":{"dataset":{"id":"7400000000000000333"}}}]}') },
	{ "knowledge", "召回的知识：不应给用户看。" },
	{ "function_call", FUNCTION_CALL },
	{ "tool_response", '{"result":"晴，不应给用户看","url":"https://example.invalid/?a=1&b=2"}' },
	{ "", "没有类型的消息" },
	{ "future_type", "未知类型的消息" },
}
local NOISE_AFTER = {
	{ "verbose", verbose("generate_answer_finish", '{"finish_reason":0}') },
	{ "follow_up", "您还想了解什么？" },
	{ "follow_up", "需要举个例子吗？" },
	{ "follow_up", "要不要换个话题？" },
}

function M.noisy(sim)
	if sim.noise ~= nil then
		return sim.noise
	end
	return not config.plain
end

-- {index, type, content} of what comes before and after the answers.
function M.noise(sim)
	local before, after = {}, {}
	local index = 40
	local function take(from, into)
		for _, item in ipairs(from) do
			index = index + 1
			into[#into + 1] = { index = index, type = item[1], content = item[2] }
		end
	end
	if sim.huge_line_bytes then
		take({ { "tool_response", string.rep("x", sim.huge_line_bytes) } }, before)
	end
	if M.noisy(sim) then
		take(NOISE_BEFORE, before)
		take(NOISE_AFTER, after)
	end
	return before, after
end

local function quoter(sim)
	return sim.escape_unicode and text.quote_ascii or text.quote
end
M.quoter = quoter

-- A Message up to its content, which follows as a JSON string.
function M.head(chat, index, kind)
	return '{"id":"' .. ids.message(chat.seq, index) .. '","conversation_id":' .. text.quote(chat.conversation_id) ..
		',"bot_id":' .. text.quote(chat.bot_id) .. ',"role":"assistant","type":"' .. kind .. '","content":'
end

-- What follows the content; with times it is a completed message.
function M.tail(chat, content_type, created)
	local tail = ',"content_type":"' .. content_type .. '","chat_id":"' .. chat.id .. '","section_id":"' .. chat.section .. '"'
	if created then
		tail = tail .. string.format(',"created_at":%d,"updated_at":%d', created, created)
	end
	return tail .. "}"
end

local function seconds(ms)
	return string.format("%d", math.floor(ms / 1000))
end

function M.last_error(sim, failed)
	if failed then
		local code = sim.code or 5000
		return '{"code":' .. reply.code_json(code, sim.code_as_string) .. ',"msg":' ..
			text.quote(sim.msg or reply.message_of(code)) .. "}"
	end
	return sim.last_error_null and "null" or '{"code":0,"msg":""}'
end

local function required_action(chat)
	return '{"type":"submit_tool_outputs","submit_tool_outputs":{"tool_calls":[{"id":"call-' .. chat.id ..
		'","type":"function","function":{"name":"get_weather","arguments":"{\\"city\\":\\"北京\\"}"}}]}}'
end

-- Length of the answers, for the usage figures.
local function bytes(messages)
	local n = 0
	for _, answer in ipairs(messages) do
		n = n + #answer.content
	end
	return n
end

-- The Chat JSON up to created_at, which is the same in all events of a chat.
local opened_chat, opened

local function opening(chat)
	if opened_chat ~= chat then
		opened_chat = chat
		opened = '{"id":"' .. chat.id .. '","conversation_id":' .. text.quote(chat.conversation_id) .. ',"bot_id":' ..
			text.quote(chat.bot_id) .. ',"created_at":' .. seconds(chat.start_ms)
	end
	return opened
end

-- A Chat in a given status. messages: only for one that has completed, to count its tokens.
function M.chat(chat, sim, status, messages)
	local usage = '{"token_count":0,"output_count":0,"input_count":0}'
	if messages then
		local input, output = math.ceil(chat.text_bytes / 3), math.ceil(bytes(messages) / 3)
		usage = string.format('{"token_count":%d,"output_count":%d,"input_count":%d}', input + output, output, input)
	end
	local more = ""
	if status == "completed" then
		more = ',"completed_at":' .. seconds(ngx.now() * 1000)
	elseif status == "failed" then
		more = ',"failed_at":' .. seconds(ngx.now() * 1000)
	elseif status == "requires_action" then
		more = ',"required_action":' .. required_action(chat)
	end
	if chat.meta_data then
		more = more .. ',"meta_data":' .. chat.meta_data
	end
	return opening(chat) .. more .. ',"last_error":' .. M.last_error(sim, status == "failed") .. ',"status":"' .. status ..
		'","usage":' .. usage .. ',"section_id":"' .. chat.section .. '"}'
end

-- What retrieve shows of a running chat.
function M.chat_running(chat, status)
	return '{"bot_id":' .. text.quote(chat.bot_id) .. ',"conversation_id":' .. text.quote(chat.conversation_id) ..
		',"created_at":' .. seconds(chat.start_ms) .. ',"id":"' .. chat.id .. '","status":"' .. status .. '"}'
end

--[[
The stored messages of a chat as message/list shows them. Before its end only what has no answer in it;
then all, last answer first: only created_at tells the order in which they were said.
]]
function M.list(chat, sim)
	local quote = quoter(sim)
	local created = math.floor(chat.start_ms / 1000)
	local before, after = M.noise(sim)
	local list = {}
	local function add(item, kind, content_type, offset)
		list[#list + 1] = M.head(chat, item.index, kind) .. quote(item.content) .. M.tail(chat, content_type or "text", created + offset)
	end

	if chat.status == "completed" then
		for _, item in ipairs(after) do
			add(item, item.type, nil, 30)
		end
		local messages = M.messages(chat, sim)
		for i = #messages, 1, -1 do
			add(messages[i], "answer", messages[i].content_type, 9 + i)
		end
	end
	for _, item in ipairs(before) do
		add(item, item.type, nil, 0)
	end
	return "[" .. table.concat(list, ",") .. "]"
end

return M
