-- Sends the requests of a file, each once and in the file's order over all connections (wrk runs with one thread, so that
-- there is one cursor), then ends wrk. A line is: method, path, API key, body, with tabs between.
local ffi = require("ffi")
ffi.cdef([[ int getpid(void); int kill(int pid, int sig); ]])
local SIGINT = 2

local requests = {}
local sent = 0

function init(args)
  -- Built before the clock starts: while it runs, this script only looks up the next one.
  for line in io.lines(args[1]) do
    local method, path, key, body = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
    local headers = { Host = wrk.headers["Host"] }
    if key ~= "" then headers["Authorization"] = "Bearer " .. key end
    if body ~= "" then headers["Content-Type"] = "application/json" else body = nil end
    requests[#requests + 1] = wrk.format(method, path, headers, body)
  end
end

function request()
  if sent == #requests then
    -- Ends the thread's loop and then wrk, which reports what was answered until now, and the time that it took.
    wrk.thread:stop()
    ffi.C.kill(ffi.C.getpid(), SIGINT)
    return wrk.format("GET", "/health")
  end
  sent = sent + 1
  return requests[sent]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"durationUs":%d,"p50Us":%d,"p99Us":%d,' ..
    '"failed":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
