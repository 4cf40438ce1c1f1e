"""The launcher: what runs in the process that starts Envoy, the command `aiovoy` or any program with a `Server`.

It runs on the thread that calls it; `run` and `server` are for an event loop there. What has to go on meanwhile is on
daemon threads: those of `process`, `control`, `relay`, `renewal` and `stderr`. Nothing of a request comes by but its
lines in the logs.

It may touch files, sockets and the Envoy it has started, which it meets in a folder of files and by a socket. It
must not import `aiovoy.embedded`, nor the application, of which it finds out the name at most. The process may be
somebody else's: signals, the handlers of loggers and the exit code are for `cli` and `run` alone. While a server runs,
only the threads of `relay` and `stderr` write to standard streams, and nothing waits for them without a limit.

- `cli`: the command line
- `run`: a server in the foreground, with its signals and its exit code
- `server`: `Server`, for asyncio code
- `process`: one Envoy process and all that belongs to it
- `config`: the settings, checked
- `appname`: the name of an application that is given as an object
- `certificates`: files of TLS, checked
- `bootstrap`: settings → Envoy's bootstrap, from the files in `templates/`
- `binary`: which Envoy
- `environ`: the variables that Envoy starts with, the bridge, libpython
- `folder`: the private folder of one Envoy
- `port`, `uds`: where the server listens, held until Envoy does
- `descriptors`: the standard streams, shared with Envoy
- `control`: the channel to the bridge
- `relay`: logs on their way from Envoy to a standard stream
- `renewal`: certificates that change while the server runs
- `stderr`: what the launcher says on standard error
- `errors`: what can go wrong before requests are served
"""
