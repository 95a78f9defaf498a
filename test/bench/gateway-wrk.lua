-- wrk: GET requests of 1 000 users with the headers that a browser or client sends; the texts are made before the run.
local requests, at = {}, 0

function init()
  for i = 1, 1000 do
    requests[i] = wrk.format("GET", "/shop/orders?page=2", {
      ["Host"] = "shop.example",
      ["User-Agent"] = "bench/1.0 (X11; Linux x86_64)",
      ["Accept"] = "application/json, text/plain, */*",
      ["Accept-Language"] = "en-US,en;q=0.8,zh-CN;q=0.5",
      ["Authorization"] = "Bearer 0123456789abcdef0123456789abcdef",
      ["X-Request-Id"] = "0123456789abcdef",
      ["X-User-Id"] = "user-" .. i,
    })
  end
end

function request()
  at = at % 1000 + 1
  return requests[at]
end

function done(summary)
  local errors = summary.errors
  io.write(string.format("RESULT requests=%d microseconds=%d bad=%d\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
