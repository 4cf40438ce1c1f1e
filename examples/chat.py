"""A chat room in Starlette: `aiovoy chat:app --app-dir examples`, then open http://127.0.0.1:8000 in two windows.

`send_text` waits while a client takes nothing. So that nobody holds up the others, everybody has a queue of their own
and a task that sends what is in it; whoever falls behind misses the oldest lines.
"""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PAGE = """\
<!doctype html>
<title>aiovoy</title>
<h1>A room inside Envoy</h1>
<form>
  <input name="line" placeholder="say something" autocomplete="off" autofocus>
</form>
<ul></ul>
<script>
  const name = prompt("Your name?") || "somebody"
  const url = new URL("/room?name=" + encodeURIComponent(name), location)
  url.protocol = url.protocol.replace("http", "ws")
  const room = new WebSocket(url)
  const write = text => {
    const line = document.createElement("li")
    line.textContent = text
    document.querySelector("ul").prepend(line)
  }
  room.onmessage = event => write(event.data)
  room.onclose = event => write(`The room is closed (${event.code}). Reload the page to come back.`)
  document.querySelector("form").onsubmit = event => {
    event.preventDefault()
    room.send(event.target.line.value)
    event.target.reset()
  }
</script>
"""

LINES = 100
"""So many a queue keeps."""

queues: set[asyncio.Queue[str]] = set()
"""Of all who are in the room."""


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def room(socket: WebSocket) -> None:
    name = socket.query_params.get("name", "somebody")
    await socket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue(LINES)
    sender = asyncio.create_task(send(queue, socket))
    queues.add(queue)
    say(f"{name} comes in")
    try:
        async for line in socket.iter_text():
            say(f"{name}: {line}")
    finally:
        queues.remove(queue)
        sender.cancel()
        say(f"{name} leaves")


def say(line: str) -> None:
    for queue in queues:
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(line)


async def send(queue: asyncio.Queue[str], socket: WebSocket) -> None:
    try:
        while True:
            await socket.send_text(await queue.get())
    except WebSocketDisconnect:
        pass  # `room` is told, too


app = Starlette(routes=[Route("/", page), WebSocketRoute("/room", room)])
