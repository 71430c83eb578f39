--[[
control.lua - the endpoints below /_sim/, by which tests steer the simulator and ask what it saw.
They need no token and are not logged. A mistake in a request is HTTP 400 with {"error":…}.
]]
local cjson = require "cjson"
local api = require "api"
local directive = require "directive"
local journal = require "journal"
local reply = require "reply"
local store = require "store"
local text = require "text"

local M = {}

local OK = '{"ok":true}'

local function bad(why)
	ngx.status = 400
	reply.send('{"error":' .. text.quote(why) .. "}")
end

local function reset()
	directive.reset(api.routes)
	store.reset()
	journal.reset()
	reply.send(OK)
end

local function log()
	local since = tonumber(ngx.req.get_uri_args().since or "0")
	if not since then
		return bad("since must be a number")
	end
	local entries = {}
	journal.each(since, function(entry)
		entries[#entries + 1] = entry
	end)
	reply.send("[" .. table.concat(entries, ",\n") .. "]\n")
end

local function chats()
	local list = {}
	store.each_chat(function(chat)
		list[#list + 1] = cjson.encode {
			id = chat.id, conversation_id = chat.conversation_id, user_id = chat.user_id, bot_id = chat.bot_id,
			text = chat.text, text_bytes = chat.text_bytes, round = chat.round, status = chat.status, stream = chat.stream,
			started_ms = chat.start_ms, ended_ms = chat.ended_ms or cjson.null,
			client_gone_ms = chat.gone_ms or cjson.null, cancelled_ms = chat.cancelled_ms or cjson.null,
		}
	end)
	reply.send("[" .. table.concat(list, ",\n") .. "]\n")
end

local function stats()
	local value = journal.value
	reply.send(cjson.encode {
		running = store.running(), overlaps = value("overlaps"), open_streams = value("open_streams"),
		chat_starts = store.numbered() - value("overlaps"), requests = value("requests"),
		connections = value("connections"), http2_requests = value("http2_requests"),
	})
end

-- The {"path", "sim", …} of a request, checked; or nil and why.
local function steering()
	local body = api.decode(api.read_body())
	if type(body) ~= "table" then
		return nil, "the body is not a JSON object"
	end
	body.path = body.path or "/v3/chat"
	if not api.routes[body.path] then
		return nil, "unknown path: " .. tostring(body.path)
	end
	local why = directive.problem(body.sim)
	if why then
		return nil, why
	end
	return body
end

local function queue()
	local body, why = steering()
	if not body then
		return bad(why)
	end
	local times = body.times or 1
	if type(times) ~= "number" or times < 1 or times > 10000 then
		return bad("times must be 1 to 10000")
	end
	why = directive.enqueue(body.path, times, body.sim)
	if why then
		return bad(why)
	end
	reply.send(OK)
end

local function default()
	local body, why = steering()
	if not body then
		return bad(why)
	end
	directive.set_default(body.path, body.sim)
	reply.send(OK)
end

local routes = {
	["GET /_sim/chats"] = chats,
	["GET /_sim/log"] = log,
	["GET /_sim/stats"] = stats,
	["POST /_sim/default"] = default,
	["POST /_sim/queue"] = queue,
	["POST /_sim/reset"] = reset,
}

function M.serve()
	local handler = routes[ngx.req.get_method() .. " " .. ngx.var.uri]
	if not handler then
		ngx.status = 404
		return reply.send('{"error":"no such control endpoint"}')
	end
	return handler()
end

return M
