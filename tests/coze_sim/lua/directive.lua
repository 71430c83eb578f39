--[[
directive.lua - which behaviour a request shall meet.
Owns: the table of directive keys, their search in a message, the queue and the defaults of the control endpoints.
Precedence: the queue, else the message's own directive; each over the path's default.
A mistyped directive is an error, never ignored: a test must not pass because its fault did not happen.
]]
local cjson = require "cjson"

local M = {}

-- Types: s string, n number, b boolean, l list, o object, c code (number or string).
local keys = {
	answer = "s", answer_bytes = "n", answers = "l", deltas = "l", chunks = "n",
	gap_ms = "n", gen_ms = "n", first_ms = "n", stall_ms = "n",
	split = "n", crlf = "b", space = "b", comments = "b", unknown_events = "b", noise = "b", reasoning = "b",
	completed_only = "b", card = "b", huge_line_bytes = "n", huge_delta = "b", multi_data = "b", done = "s",
	no_final_newline = "b", code_as_string = "b", last_error_null = "b", escape_unicode = "b",
	fault = "s", code = "c", msg = "s", http_status = "n", html = "b", retry_after = "c",
	cut_after = "n", cut_how = "s", auth_status = "n", poll_status = "l",
	retrieve_fault = "o", list_fault = "o", cancel_fault = "o", times = "n",
}
local values = {
	done = { quoted = true, bare = true, empty = true, debug_url = true, none = true },
	cut_how = { rst = true, fin = true },
	fault = { json_error = true, sse_error = true, chat_failed = true, chat_failed_after_text = true, http = true,
		raw_json_line = true, cut = true, eof = true, stall_header = true, stall = true, stall_done = true,
		requires_action = true, empty = true, empty_answer = true, canceled = true, json_chat = true,
		bad_json = true, bad_utf8 = true, occupied = true, unknown_conversation = true },
}

local function fits(kind, value)
	local is = type(value)
	if kind == "s" then return is == "string" end
	if kind == "n" then return is == "number" end
	if kind == "b" then return is == "boolean" end
	if kind == "c" then return is == "number" or is == "string" end
	if kind == "o" then return is == "table" and value[1] == nil end
	return is == "table" and (value[1] ~= nil or next(value) == nil)
end

-- nil when `sim` is a good directive, else what is wrong with it.
function M.problem(sim)
	if type(sim) ~= "table" then
		return "sim is not an object"
	end
	for key, value in pairs(sim) do
		local kind = keys[key]
		if not kind then
			return "unknown sim key: " .. tostring(key)
		end
		if not fits(kind, value) then
			return "wrong type of sim key: " .. key
		end
		if values[key] and not values[key][value] then
			return "wrong value of sim key " .. key .. ": " .. value
		end
		if kind == "o" then
			local why = M.problem(value)
			if why then
				return key .. ": " .. why
			end
		end
	end
	return nil
end

local function occurrences(text, what)
	local found, from = {}, 1
	while true do
		local at = string.find(text, what, from, true)
		if not at then
			return found
		end
		found[#found + 1] = at
		from = at + 1
	end
end

--[[
The directive at the end of a message: returns the text before it, and the object (nil: there is none).
Searched from the last "sim:{" backwards, since a directive may quote another one in a string.
A third result says why a directive is wrong.
]]
function M.split(text)
	if not string.find(text, "sim:{", 1, true) then
		return text
	end
	local found = occurrences(text, "sim:{")
	for i = #found, 1, -1 do
		local good, sim = pcall(cjson.decode, string.sub(text, found[i] + 4))
		if good then
			local rest = string.gsub(string.sub(text, 1, found[i] - 1), "%s+$", "")
			return rest, sim, M.problem(sim)
		end
	end
	return text, nil, "sim directive is not JSON, or not at the end of the message"
end

-- Decoded once per worker and change; callers must not write to the result.
local cached = {}

local function decode(slot, encoded)
	local entry = cached[slot]
	if not entry or entry.encoded ~= encoded then
		entry = { encoded = encoded, sim = cjson.decode(encoded) }
		cached[slot] = entry
	end
	return entry.sim
end

local control

function M.init()
	control = ngx.shared.control
end

-- "steered" says that a queue or a default was ever set: one look-up instead of two on the plain path.
function M.set_default(path, sim)
	control:set("steered", true)
	control:set("default:" .. path, cjson.encode(sim))
end

function M.default(path)
	local encoded = control:get("default:" .. path)
	return encoded and decode(path, encoded)
end

function M.enqueue(path, times, sim)
	control:set("steered", true)
	local encoded = cjson.encode(sim)
	for _ = 1, times do
		local length, err = control:rpush("queue:" .. path, encoded)
		if not length then
			return err
		end
	end
end

-- Forgets queues and defaults; `routes` has the paths as keys.
function M.reset(routes)
	control:delete("steered")
	for path in pairs(routes) do
		control:delete("default:" .. path)
		control:delete("queue:" .. path)
	end
end

local nothing = {}

-- What this request shall do; `own` is the directive of its message, if it had one.
function M.effective(path, own)
	if not control:get("steered") then
		return own or nothing
	end
	local queued = control:lpop("queue:" .. path)
	local default = M.default(path)
	local sim = queued and cjson.decode(queued) or own
	if not default then
		return sim or nothing
	end
	if not sim then
		return default
	end
	local merged = {}
	for key, value in pairs(default) do merged[key] = value end
	for key, value in pairs(sim) do merged[key] = value end
	return merged
end

return M
