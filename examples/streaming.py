"""Server-sent events in plain ASGI: `aiovoy streaming:app --app-dir examples`, then open http://127.0.0.1:8000.

A response that goes on and on has to notice that its client has gone. `receive` says so: once the request has been
read, it waits, and gives `http.disconnect` when the client leaves.
"""

import asyncio
from datetime import datetime

PAGE = b"""\
<!doctype html>
<title>aiovoy</title>
<h1>The time inside Envoy</h1>
<output></output>
<script>
  new EventSource("/events").onmessage = event => document.querySelector("output").textContent = event.data
</script>
"""

EVENTS = 40
"""After so many a stream ends, and the browser asks for a new one. A server that stops waits for requests in flight;
this one need not wait longer than EVENTS * SECONDS."""

SECONDS = 0.5
"""From one event to the next."""

listeners = 0


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    match scope["path"]:
        case "/":
            await answer(send, 200, b"text/html", PAGE)
        case "/events":
            await events(receive, send)
        case "/listeners":
            await answer(send, 200, b"text/plain", b"%d\n" % listeners)
        case _:
            await answer(send, 404, b"text/plain", b"there are /, /events and /listeners\n")


async def events(receive, send):
    global listeners
    listeners += 1
    gone = asyncio.create_task(disconnected(receive))
    try:
        await start(send, 200, b"text/event-stream")
        for left in reversed(range(EVENTS)):
            event = f"data: {datetime.now():%H:%M:%S}\n\n"
            await send({"type": "http.response.body", "body": event.encode(), "more_body": left > 0})
            if left == 0 or await done(gone, within=SECONDS):
                break
    except OSError:
        pass  # so `send` says that the client has gone
    finally:
        gone.cancel()
        listeners -= 1


async def disconnected(receive):
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def done(task, within):
    """Waits for `within` seconds, or until `task` is done. Returns whether it is."""
    await asyncio.wait([task], timeout=within)
    return task.done()


async def start(send, status, content_type):
    headers = [(b"content-type", content_type), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def answer(send, status, content_type, body):
    await start(send, status, content_type)
    await send({"type": "http.response.body", "body": body})
