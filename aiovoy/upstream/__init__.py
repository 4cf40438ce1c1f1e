"""A server without Envoy, behind somebody else's proxy: `aiovoy upstream`.

An ordinary process of Python's. The extension module `aiovoy.network` is the server; the application's event loop runs
on the main thread.
"""
