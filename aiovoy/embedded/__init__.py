"""What runs inside Envoy: the cold paths of the bridge, which calls it with the interpreter that it has started.

It runs on Python's main thread, where the first event loop runs, too, and on the threads of the other loops; never on a
worker thread of Envoy's. It may touch the application, asyncio and the interpreter itself. It must not import
`aiovoy.launcher`, nor wait for Envoy. Nothing here runs for each request: that is Rust. `sys.stderr` and `logging` are
the application's: what the server has to say goes to its own log, by `interpreter.log`.

- `interpreter`: makes `sys` and `os.environ` what the application expects. Main thread, once, before all else
- `importer`: finds the application. Main thread, before the loop runs
- `event_loop`: makes, runs and ends the loop of a worker. On the loop's thread
- `lifespan`: the lifespan of an application. In each loop; tokio makes the object
- `stacks`: what threads are amid. Main thread, once; then on one that the launcher's question makes
- `signals`: which are the server's. Main thread; what it puts in place of `signal.signal`, on any
- `child`: makes a forked child an ordinary process. In the child; before, it hears of each loop on its thread
"""
