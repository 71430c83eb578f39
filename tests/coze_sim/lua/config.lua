--[[
config.lua - the simulator's settings, read once from the environment.
`sim` passes the variables through; README.md describes them.
]]
local function number(name, default)
	return tonumber(os.getenv(name) or "") or default
end

local function flag(name, default)
	local value = os.getenv(name)
	if value == nil or value == "" then
		return default
	end
	return value ~= "0"
end

local token = os.getenv("SIM_TOKEN") or ""

return {
	authorization = token ~= "" and "Bearer " .. token or nil, -- nil: any token will do
	auth_status = number("SIM_AUTH_STATUS", 200),
	strict_conversations = flag("SIM_STRICT_CONVERSATIONS", true),
	plain = flag("SIM_PLAIN", false),
	gap_ms = number("SIM_GAP_MS", 0),
	chunks = number("SIM_CHUNKS", 10),
	log = flag("SIM_LOG", true),
	log_body_bytes = number("SIM_LOG_BODY_BYTES", 1048576),
}
