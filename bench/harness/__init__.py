"""The parts of the benchmark.

- `cases`: what is asked of a server, and what it must answer
- `servers`: which servers there are and how each is started
- `envoys`: Envoy by itself among them: the floor, and the proxy before others
- `tls`: the certificate of those that speak TLS
- `environments`: the virtual environment each of them lives in
- `process`: a server while it runs: start-up time, processor time, its end
- `memory`: the memory of its processes
- `client`: single requests, to see that a server is up and answers rightly
- `websocket`: the frames of a WebSocket client
- `load`: wrk, h2load, and our own `wsload` and `h3load`, and what they print
- `options`: the command line
- `rounds`: the order in which everything is measured
- `summary`: medians, spreads, ratios
- `table`: the summary as text
"""
