--[[
journal.lua - what the simulator saw: the request log and the counters.
Owns: the dictionaries `log` and `connections`, and the counters in `control`. With SIM_LOG=0 nothing is logged, counters go on.
An entry is written when its request has been read, completed by a second one when the request ends.
]]
local cjson = require "cjson"
local config = require "config"
local ids = require "ids"
local text = require "text"

local M = {}

local log, control, connections

function M.init()
	log, control, connections = ngx.shared.log, ngx.shared.control, ngx.shared.connections
end

function M.incr(name, by)
	control:incr("n:" .. name, by or 1, 0)
end

function M.value(name)
	return control:get("n:" .. name) or 0
end

-- Counts the request and its connection, by nginx's serial number, which is unique over its workers.
function M.count_request()
	control:incr("n:requests", 1, 0)
	if ngx.req.http_version() == 2 then
		control:incr("n:http2_requests", 1, 0)
	end
	if connections:add(ngx.var.connection, true) then
		control:incr("n:connections", 1, 0)
	end
end

local function headers_json(authorized)
	local var = ngx.var
	return cjson.encode {
		authorization = { present = var.http_authorization ~= nil, matches = authorized },
		["content-type"] = var.http_content_type, accept = var.http_accept, ["user-agent"] = var.http_user_agent,
		http_version = tostring(ngx.req.http_version()),
	}
end

--[[
Logs a request; `body` is its text, `is_json` whether it may be shown as it is.
Only a body that is not JSON goes in as a string, "body_text".
]]
function M.open(authorized, body, is_json)
	if not config.log then
		return
	end
	local shown = "null"
	if #body > config.log_body_bytes then
		shown = '{"truncated":true,"bytes":' .. #body .. "}"
	elseif is_json then
		shown = body
	end
	local args = ngx.req.get_uri_args()
	local seq = ids.next_seq("log")
	ngx.ctx.log_seq = seq
	local entry = table.concat {
		'{"seq":', seq, ',"t_ms":', string.format("%.3f", ngx.now() * 1000), ',"method":', text.quote(ngx.var.request_method),
		',"path":', text.quote(ngx.var.uri), ',"query":', next(args) and cjson.encode(args) or "{}",
		',"connection":', ngx.var.connection, ',"headers":', headers_json(authorized), ',"body":', shown }
	if not is_json and body ~= "" then
		entry = entry .. ',"body_text":' .. cjson.encode(string.sub(body, 1, 1000))
	end
	log:set(seq, entry)
end

-- Names the chat that a logged request started or is about.
function M.name(chat_id, conversation_id)
	local seq = ngx.ctx.log_seq
	if seq then
		log:set("i" .. seq, ',"chat_id":' .. text.quote(chat_id) .. ',"conversation_id":' .. text.quote(conversation_id))
	end
end

local open_here = 0 -- streams of this worker that were counted in open_streams

-- The log phase of every request. Asking for ngx.ctx makes one, so a benchmark should not get that far.
function M.close()
	if not config.log and open_here == 0 then
		return
	end
	local ctx = ngx.ctx
	if ctx.stream_open then
		open_here = open_here - 1
		control:incr("n:open_streams", -1, 0)
	end
	if ctx.log_seq then
		ngx.update_time()
		log:set("e" .. ctx.log_seq, string.format(',"status":%d,"ended":"%s","end_t_ms":%.3f', ngx.status,
			ctx.ended or "ok", ngx.now() * 1000))
	end
end

function M.stream_opened()
	ngx.ctx.stream_open = true
	open_here = open_here + 1
	control:incr("n:open_streams", 1, 0)
end

-- Calls fn with the JSON of each entry after `since`.
function M.each(since, fn)
	local floor = control:get("log:floor") or 0
	for seq = math.max(since, floor) + 1, ids.last_seq("log") do
		local entry = log:get(seq)
		if entry then
			fn(entry .. (log:get("i" .. seq) or "") .. (log:get("e" .. seq) or ',"ended":null') .. "}")
		end
	end
end

function M.reset()
	control:set("log:floor", ids.last_seq("log"))
	for _, dict in ipairs { log, connections } do
		dict:flush_all()
		dict:flush_expired()
	end
	for _, name in ipairs { "overlaps", "requests", "http2_requests", "connections" } do
		control:set("n:" .. name, 0)
	end
end

return M
