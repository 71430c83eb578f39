-- load.lua - what wrk sends, and what an answer must be: each request in a session of its own, each answer looked at.
-- wrk ... -s load.lua URL -- TOKEN BOT SESSIONS
-- The path says whose language is spoken: Coze's, or this service's. SESSIONS: of each thread, used in turn; 0: no two alike.

local threads = {}

function setup(thread)
	thread:set("id", #threads + 1)
	threads[#threads + 1] = thread
end

local ends = {
	["/chat"] = '"response":',
	["/chat/stream"] = 'data: {"type": "complete"',
	["/v3/chat"] = "event:conversation.chat.completed",
}

function init(args)
	local path = wrk.path
	wrong, first_wrong, count = 0, "", 0
	sessions = tonumber(args[3])
	must_have = ends[path]
	wrk.method = "POST"
	wrk.headers["Content-Type"] = "application/json"
	if path == "/v3/chat" then
		wrk.headers["Authorization"] = "Bearer " .. args[1]
		before = '{"bot_id": "' .. args[2] .. '", "user_id": "wrk-' .. id .. "-"
		behind = '", "stream": true, "auto_save_history": true, "additional_messages": '
			.. '[{"role": "user", "type": "question", "content": "hi", "content_type": "text"}]}'
	else
		before = '{"message": "hi", "session_id": "wrk-' .. id .. "-"
		behind = '"}'
	end
end

function request()
	count = count + 1
	if count == sessions then
		count = 0
	end
	return wrk.format(nil, nil, nil, before .. count .. behind)
end

function response(status, headers, body)
	if status ~= 200 or not string.find(body, must_have, 1, true) then
		wrong = wrong + 1
		if first_wrong == "" then
			first_wrong = status .. " " .. string.gsub(string.sub(body, 1, 200), '[%c"\\]', "?")
		end
	end
end

function done(summary, latency, requests)
	local wrong, first_wrong = 0, ""
	for _, thread in ipairs(threads) do
		wrong = wrong + thread:get("wrong")
		first_wrong = first_wrong ~= "" and first_wrong or thread:get("first_wrong")
	end
	local errors = summary.errors
	io.write(string.format(
		'{"requests": %d, "seconds": %.6f, "bytes": %d, "wrong": %d, "first_wrong": "%s", '
			.. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}, '
			.. '"p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d}\n',
		summary.requests, summary.duration / 1e6, summary.bytes, wrong, first_wrong,
		errors.connect, errors.read, errors.write, errors.status, errors.timeout,
		latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
