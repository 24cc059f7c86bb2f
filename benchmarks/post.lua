-- wrk: one POST over and over. Arguments after `--`: the file of the body, `watch` or `count`, then headers as NAME VALUE
-- pairs. Everything is set before wrk formats its request: with `count` no Lua runs while it measures. With `watch`, for
-- slow models, the moment of every answer is kept, so that whole waves can be counted.
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  for place = 3, #args, 2 do
    wrk.headers[args[place]] = args[place + 1]
  end
  moments = ""
  if args[2] == "watch" then
    local ffi = require("ffi")
    ffi.cdef("typedef struct { long s; long ns; } moment_t; int clock_gettime(int clock, moment_t *now);")
    local now = ffi.new("moment_t")
    function response()
      ffi.C.clock_gettime(1, now)
      moments = moments .. string.format("%.6f,", tonumber(now.s) % 1e6 + tonumber(now.ns) / 1e9)
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  local seen = ""
  for _, thread in ipairs(threads) do
    seen = seen .. thread:get("moments")
  end
  print(string.format(
    'JSON {"count": %d, "duration_us": %d, "p50_us": %f, "p90_us": %f, "p99_us": %f, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d, "moments": [%s]}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout, seen:sub(1, -2)))
end
