"""The launcher: what runs in the process that starts Envoy, the command `aiovoy` or any program with a `Server`.

It runs on the thread that calls it; `run` and `server` are for an event loop there. What has to go on meanwhile is on
daemon threads: that of the supervisor in `workers`, those of `relay`, `renewal` and `stderr`, and one that waits for
each Envoy's end. Nothing of a request comes by but its lines in the logs.

It may touch files, sockets and the Envoys it has started, which it meets in a folder of files and by sockets. It
must not import `aiovoy.embedded`, nor the application, of which it finds out the name at most. The process may be
somebody else's: signals, the handlers of loggers and the exit code are for `cli` and `run` alone. While a server runs,
only the threads of `relay` and `stderr` write to standard streams, and nothing waits for them without a limit.

- `cli`: the command line
- `run`: a server in the foreground, with its signals and its exit code
- `server`: `Server`, for asyncio code
- `workers`: the Envoys of a server, and who supervises them
- `config`: the settings, checked
- `configfile`: those in a file
- `elsewhere`: what other servers call otherwise
- `addresses`: where to listen, as settings say it and as Envoy does
- `appname`: the name of an application that is given as an object
- `certificates`: files of TLS, checked
- `bootstrap`: settings → Envoy's bootstrap, from the files in `templates/`
- `binary`: which Envoy
- `environ`: the variables that Envoy starts with, the bridge, libpython
- `folder`: the private folder of a server
- `listening`: the sockets of a server: `port`, `uds`, and those that are `inherited`
- `steering`: who gets a new connection
- `processors`: how many there are
- `descriptors`: the standard streams, shared with Envoy
- `relay`: logs on their way from Envoy to a standard stream
- `renewal`: certificates that change while the server runs
- `stderr`: what the launcher says on standard error
- `terminal`: whether there is one
- `errors`: what can go wrong before requests are served
"""
