--[[
sim.lua - the entry points that nginx.conf calls.
]]
local cjson = require "cjson"
cjson.decode_invalid_numbers(false) -- strict JSON: no NaN, no hexadecimal numbers
cjson.encode_number_precision(14)

local api = require "api"
local control = require "control"
local journal = require "journal"

-- Once, in the master, before the workers are forked.
require("ids").init()
require("store").init()
require("directive").init()
journal.init()

return { api = api.serve, control = control.serve, log = journal.close,
	init_worker = function() math.randomseed(ngx.worker.pid()) end }
