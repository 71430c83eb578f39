--[[
text.lua - UTF-8 and JSON text.
Owns: quoting of strings as JSON, validity and cutting of UTF-8, the deterministic filler text.
Own quoting, because lua-cjson writes "\/" for "/", which Coze does not.
]]
local find, gsub, byte, sub, format, rep = string.find, string.gsub, string.byte, string.sub, string.format, string.rep
local re_find = ngx.re.find

local M = {}

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
	["\b"] = "\\b", ["\f"] = "\\f", ["\127"] = "\127" }
for code = 0, 31 do
	local char = string.char(code)
	escapes[char] = escapes[char] or format("\\u%04x", code)
end

-- JSON string of s, non-ASCII left as it is (also when it is not valid UTF-8).
function M.quote(s)
	if find(s, '[%c"\\]') then
		s = gsub(s, '[%c"\\]', escapes)
	end
	return '"' .. s .. '"'
end

local function unit(code)
	return format("\\u%04X", code)
end

local function escape_char(char)
	local a, b, c, d = byte(char, 1, 4)
	local code
	if a < 0xE0 then
		code = (a - 0xC0) * 64 + (b - 0x80)
	elseif a < 0xF0 then
		code = ((a - 0xE0) * 64 + (b - 0x80)) * 64 + (c - 0x80)
	else
		code = (((a - 0xF0) * 64 + (b - 0x80)) * 64 + (c - 0x80)) * 64 + (d - 0x80) - 0x10000
		return unit(0xD800 + math.floor(code / 1024)) .. unit(0xDC00 + code % 1024)
	end
	return unit(code)
end

-- JSON string of s (valid UTF-8) in pure ASCII; beyond the BMP as surrogate pairs.
function M.quote_ascii(s)
	return (gsub(M.quote(s), "[\194-\244][\128-\191]+", escape_char))
end

-- PCRE checks its subject when asked for UTF mode; that is the fastest validator at hand.
function M.is_utf8(s)
	local _, _, err = re_find(s, [[\A]], "ujo")
	return err == nil
end

-- The largest cut <= at that does not split a character of s.
function M.boundary(s, at)
	while at > 0 and at < #s do
		local following = byte(s, at + 1)
		if following < 0x80 or following >= 0xC0 then
			break
		end
		at = at - 1
	end
	return at
end

-- s in at most n pieces of about equal size, cut between characters; none of them empty.
function M.pieces(s, n)
	local out, from = {}, 0
	for i = 1, n do
		local to = i == n and #s or M.boundary(s, math.floor(#s * i / n))
		if to > from then
			out[#out + 1] = sub(s, from + 1, to)
			from = to
		end
	end
	return out
end

-- Blocks of 128 bytes: a counter, so that a lost or swapped piece shows, then mixed text.
local FILLER_TAIL = rep("扣子 Coze 😀，", 6) .. "test!\n"
local filler_bytes, filler

-- Exactly n bytes of valid UTF-8, the same for the same n. README.md gives the rule in Python.
function M.filler(n)
	if filler_bytes ~= n then
		local blocks = {}
		for i = 1, math.ceil(n / 128) do
			blocks[i] = format("%07d ", i - 1) .. FILLER_TAIL
		end
		local all = table.concat(blocks)
		local cut = n > 0 and M.boundary(all, n) or 0
		filler_bytes, filler = n, sub(all, 1, cut) .. rep(".", n - cut)
	end
	return filler
end

return M
