-- Sends the requests of a file, each once and in the file's order over all connections (wrk runs with one thread, so that
-- there is one cursor), then ends wrk. A line is: method, path, API key, body, with tabs between.
--
-- Node accepts one connection in each turn of its event loop. Under load a turn takes milliseconds, so the last of 64
-- connections would wait for a third of a second, and wrk counts such a wait once for every answer that it held up. So all
-- are opened first, and the clock runs from the first request.
local ffi = require("ffi")
ffi.cdef([[
  int getpid(void);
  int kill(int pid, int sig);
  typedef struct { long seconds; long microseconds; } timeval;
  int gettimeofday(timeval *time, void *zone);
]])
local SIGINT = 2
local CONNECTING_MS = 200

local requests = {}
local now = ffi.new("timeval")
local opening
local has_begun = false
local sent = 0
-- Global: done() runs in another state and can read no locals of this one.
first_us = 0
last_us = 0

local function now_us()
  ffi.C.gettimeofday(now, nil)
  return tonumber(now.seconds) * 1e6 + tonumber(now.microseconds)
end

local the_thread

-- Called in the state that done() runs in.
function setup(thread)
  the_thread = thread
end

function init(args)
  opening = tonumber(args[2])
  -- Built before the clock starts: while it runs, this script only looks up the next one.
  for line in io.lines(args[1]) do
    local method, path, key, body = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
    local headers = { Host = wrk.headers["Host"] }
    if key ~= "" then headers["Authorization"] = "Bearer " .. key end
    if body ~= "" then headers["Content-Type"] = "application/json" else body = nil end
    requests[#requests + 1] = wrk.format(method, path, headers, body)
  end
end

-- Asked before each request of each connection.
function delay()
  has_begun = true
  if opening == 0 then return 0 end
  opening = opening - 1
  return CONNECTING_MS
end

function request()
  -- wrk looks at one request before it connects.
  if not has_begun then return requests[1] end
  last_us = now_us()
  if sent == #requests then
    -- Ends the thread's loop and then wrk, which reports what was answered until now.
    wrk.thread:stop()
    ffi.C.kill(ffi.C.getpid(), SIGINT)
    return wrk.format("GET", "/health")
  end
  if first_us == 0 then first_us = last_us end
  sent = sent + 1
  return requests[sent]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"durationUs":%d,"p50Us":%d,"p99Us":%d,' ..
    '"failed":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}}\n',
    summary.requests, the_thread:get("last_us") - the_thread:get("first_us"),
    latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
