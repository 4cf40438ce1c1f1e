"""The workers of a server: processes that come, go, and take over from each other, on sockets that stay.

Everything here runs in the event loop of the supervisor's thread, unless it says otherwise. Nothing may block that
loop for long: an Envoy that starts waits for it to be given its sockets.

- `supervisor`: which workers there are to be, and what becomes of each
- `slot`: a place for one of them
- `process`: one process and all that belongs to it
- `common`: what the processes of one server have in common
- `envoy`: processes that are Envoys
- `control`: the channel to the bridge
- `limits`: when a worker is to be replaced
- `reload`: files whose changes have all replaced
- `leash`: the end of an Envoy whose launcher dies while it starts
- `hot_restart`: how Envoy is given its sockets
"""
