"""The raw ASGI application of the benchmark: one path a case, nothing but the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CHUNKS = 100
CHUNK = b"x" * 100
PIECE = bytes(65_536)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await ROUTES[scope["path"]](receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def fixed(body: bytes) -> Callable[[Receive, Send], Awaitable[None]]:
    """An endpoint that answers `body`, the whole of it in one message."""
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(body)).encode()),
    ]

    async def endpoint(_: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return endpoint


async def echo(receive: Receive, send: Send) -> None:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def upload(receive: Receive, send: Send) -> None:
    """Answers how much has come."""
    received = 0
    more = True
    while more:
        message = await receive()
        received += len(message.get("body", b""))
        more = message.get("more_body", False)
    await fixed(str(received).encode())(receive, send)


async def sleep(receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.01)
    await ROUTES["/hello"](receive, send)


async def stream(_: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _chunk in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def large(_: Receive, send: Send) -> None:
    """100 MiB, in pieces as files are sent in."""
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"104857600")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _piece in range(1600):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


ROUTES = {
    "/hello": fixed(b"Hello, world!"),
    "/10k": fixed(b"x" * 10_000),
    "/1m": fixed(b"x" * 2**20),
    "/100m": large,
    "/upload": upload,
    "/sleep": sleep,
    "/echo": echo,
    "/stream": stream,
}
