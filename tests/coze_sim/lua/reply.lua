--[[
reply.lua - one JSON answer and its end: envelopes, error codes, and faults of a whole reply.
Everything but the event stream of a chat leaves through here.
]]
local ids = require "ids"
local text = require "text"
local pause = require "pause"

local M = { STALL_MS = 5000 }

local messages = {
	[4000] = "Request parameter error", [4001] = "Chat does not exist", [4002] = "Conversation does not exist",
	[4003] = "The meta_data exceeds its limit", [4004] = "Too many additional_messages",
	[4006] = "Bot does not exist", [4007] = "auto_save_history must be true when stream is false",
	[4008] = "Daily usage limit reached", [4009] = "System is busy, please try again later",
	[4013] = "Model service error, please try again later", [4014] = "The bot cannot answer this question",
	[4015] = "Bot is not published as API", [4016] = "Conversation occupied, please wait for the current chat to end",
	[4020] = "RPM exceeded", [4028] = "Free quota used up", [4100] = "Authentication is invalid", [4101] = "Permission denied",
	[4104] = "The chat cannot be cancelled in its current state", [4200] = "Resource not found",
	[5000] = "Internal service error",
}

function M.message_of(code)
	return messages[tonumber(code)] or "Simulated error " .. tostring(code)
end

-- A code as JSON: Coze sometimes sends it as a string.
function M.code_json(code, as_string)
	if as_string or type(code) == "string" then
		return text.quote(tostring(code))
	end
	return string.format("%d", code)
end

local function logid_header()
	local logid = ids.logid()
	ngx.header["X-Tt-Logid"] = logid
	return logid
end
M.logid_header = logid_header

local function send(body)
	local header = ngx.header
	header["Content-Type"] = "application/json; charset=utf-8"
	header["Content-Length"] = #body
	ngx.print(body)
end
M.send = send

-- {"data":…,"code":0,"msg":""}, as POST /v3/chat answers: without detail.
function M.brief(data)
	logid_header()
	send('{"data":' .. data .. ',"code":0,"msg":""}')
end

-- The ordinary envelope; data == nil leaves the key out, as for the list of a failed chat.
function M.ok(data)
	local logid = logid_header()
	send('{"code":0,' .. (data and '"data":' .. data .. "," or "") .. '"detail":{"logid":"' .. logid .. '"},"msg":""}')
end

-- Coze reports its errors with HTTP 200, unless status says otherwise.
function M.error(code, msg, status, as_string)
	local logid = logid_header()
	ngx.status = status or 200
	send('{"code":' .. M.code_json(code, as_string) .. ',"msg":' .. text.quote(msg or M.message_of(code)) ..
		',"detail":{"logid":"' .. logid .. '"}}')
end

local HTML = [[<!DOCTYPE HTML PUBLIC "-//IETF//DTD HTML 2.0//EN">
<html>
<head><title>%s</title></head>
<body>
<center><h1>%s</h1></center>
<hr/>Powered by Tengine<hr><center>tengine</center>
</body>
</html>
]]
local reasons = { [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden", [404] = "Not Found",
	[408] = "Request Timeout", [429] = "Too Many Requests", [500] = "Internal Server Error",
	[502] = "Bad Gateway", [503] = "Service Unavailable", [504] = "Gateway Time-out" }

local function http_error(sim)
	local status = sim.http_status or 500
	if sim.retry_after then
		ngx.header["Retry-After"] = sim.retry_after
	end
	if not sim.html then
		return M.error(sim.code or status, sim.msg or reasons[status], status, sim.code_as_string)
	end
	-- An edge proxy speaks, not Coze: no log id.
	local title = status .. " " .. (reasons[status] or "Error")
	ngx.status = status
	ngx.header["Content-Type"] = "text/html"
	ngx.print((string.gsub(HTML, "%%s", title)))
end

-- Closes the connection in the middle: "rst" at once with a TCP reset, "fin" without the end of the body.
function M.cut(how)
	ngx.ctx.ended = "cut"
	return ngx.exit(how == "fin" and ngx.ERROR or 444)
end

-- A body that ends before its announced length, or that is not JSON.
function M.broken(body)
	logid_header()
	ngx.header["Content-Type"] = "application/json; charset=utf-8"
	ngx.print(string.sub(body, 1, math.floor(#body / 2)))
end

--[[
Faults that hit a whole reply, whatever the endpoint. Returns true when the answer is given.
`fault` may be left out where the other keys say it: http_status, then code, then only stall_ms.
]]
function M.fault(sim)
	local fault = sim.fault or (sim.http_status and "http") or (sim.code and "json_error")
	if sim.stall_ms or fault == "stall_header" then
		pause.ms(sim.stall_ms or M.STALL_MS)
	end
	if fault == "http" then
		http_error(sim)
	elseif fault == "json_error" then
		M.error(sim.code or 4000, sim.msg, nil, sim.code_as_string)
	elseif fault == "bad_json" then
		M.broken('{"code":0,"data":{"id":"')
	elseif fault == "cut" then
		M.cut(sim.cut_how)
	elseif fault == "eof" then
		logid_header()
		ngx.header["Content-Length"] = 0
	else
		return false
	end
	return true
end

return M
