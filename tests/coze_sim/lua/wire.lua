--[[
wire.lua - server-sent events as bytes, in every spelling that a client has to understand.
Owns: a script: a list of strings to send, numbers (milliseconds to wait), and {act=…} (ways to die).
]]
local M = {}

-- JSON over several lines: a newline after each comma or opening brace outside strings.
local function broken_up(json)
	local out, from, at = {}, 1, 1
	while true do
		local hit = string.find(json, '["{,]', at)
		if not hit then
			break
		end
		if string.byte(json, hit) == 34 then
			local close = hit
			repeat
				close = string.find(json, '["\\]', close + 1) or #json -- a broken line may not close its string
				local escaped = string.byte(json, close) == 92
				if escaped then
					close = close + 1
				end
			until not escaped
			at = close + 1
		else
			out[#out + 1] = string.sub(json, from, hit)
			from, at = hit + 1, hit + 1
		end
	end
	out[#out + 1] = string.sub(json, from)
	return out
end

local Script = {}
Script.__index = Script

local heads = setmetatable({}, { __index = function(known, name)
	local head = "event:" .. name .. "\ndata:"
	known[name] = head
	return head
end })

-- A new script; `sim` gives the spelling.
function M.script(sim)
	return setmetatable({
		items = {}, n = 0, -- what is to be played
		bytes = 0,         -- length of its strings
		acts = 0,          -- how many of its items are not strings
		spent_ms = 0,      -- sum of its pauses, also of those after a death
		odd = sim.crlf or sim.space or sim.comments or sim.multi_data,
		newline = sim.crlf and "\r\n" or "\n", colon = sim.space and ": " or ":",
		comments = sim.comments, multi_data = sim.multi_data, events = 0,
	}, Script)
end

function Script:raw(bytes)
	if self.silent then
		return
	end
	local n = self.n + 1
	self.items[n], self.n, self.bytes = bytes, n, self.bytes + #bytes
end

local function act(script, item)
	if script.silent then
		return
	end
	local n = script.n + 1
	script.items[n], script.n, script.acts = item, n, script.acts + 1
end

-- The usual spelling: five pieces, since joining them here would cost more than all the rest.
local function usual_event(script, name, a, b, c)
	if script.silent then
		return
	end
	local items, n, head = script.items, script.n, heads[name]
	items[n + 1], items[n + 2], items[n + 3], items[n + 4], items[n + 5] = head, a, b, c, "\n\n"
	script.n, script.bytes = n + 5, script.bytes + #head + #a + #b + #c + 2
end

-- An event; its data is a .. b .. c, of which b and c may be left out.
function Script:event(name, a, b, c)
	b, c = b or "", c or ""
	if not self.odd then
		return usual_event(self, name, a, b, c)
	end
	local eol, colon = self.newline, self.colon
	local data = a .. b .. c
	self.events = self.events + 1
	if self.comments then
		self:raw(": keep-alive" .. eol .. eol .. "id" .. colon .. self.events .. eol .. "retry" .. colon .. "3000" .. eol)
	end
	self:raw("event" .. colon .. name .. eol)
	for _, line in ipairs(self.multi_data and broken_up(data) or { data }) do
		self:raw("data" .. colon .. line .. eol)
	end
	self:raw(eol)
end

-- Takes the newlines at the very end back, as after a file that was trimmed.
function Script:trim()
	while self.n > 0 and type(self.items[self.n]) == "string" do
		local last = self.items[self.n]
		local rest = string.gsub(last, "[\r\n]+$", "")
		self.items[self.n], self.bytes = rest, self.bytes - #last + #rest
		if rest ~= "" then
			break
		end
		self.n = self.n - 1
	end
end

-- Silence; it also makes what was said before leave at once.
function Script:wait(ms)
	if ms <= 0 then
		return
	end
	self.spent_ms = self.spent_ms + ms
	act(self, ms)
end

-- The connection dies here (see player.lua). The chat goes on without it: time still passes, nothing is sent.
function Script:die(how_it_dies, how)
	act(self, { act = how_it_dies, how = how })
	self.silent = true
end

-- The chat's natural end: from here on its conversation is free.
function Script:ends(outcome)
	self.outcome = self.outcome or outcome
	self.duration_ms = self.duration_ms or self.spent_ms
end

return M
