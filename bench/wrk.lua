-- What wrk sends and how it reports.
--   wrk ... -s wrk.lua URL -- [BODY_FILE]
-- With a file every request is a POST of its content. The request is fixed before the load
-- starts, so this script costs nothing per request.

function init(arguments)
   if arguments[1] then
      local file = assert(io.open(arguments[1], "rb"))
      wrk.method = "POST"
      wrk.body = file:read("*a")
      wrk.headers["Content-Type"] = "application/octet-stream"
      file:close()
   end
end

-- wrk's own text rounds to three digits and leaves out what is zero; one line of JSON does not.
function done(summary, latency)
   local errors = summary.errors
   print(string.format(
      '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "connect": %d, "read": %d, '
         .. '"write": %d, "status": %d, "timeout": %d}',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.status, errors.timeout
   ))
end
