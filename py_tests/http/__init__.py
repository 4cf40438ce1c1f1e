"""HTTP as applications and clients know it: scope, bodies, responses, extensions, who waits for whom and how long,
who leaves, and the limits on it all. ASGI's side and the client's, on HTTP/1, 2 and 3.
"""
