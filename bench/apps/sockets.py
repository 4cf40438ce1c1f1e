"""The WebSocket application of the benchmark: it sends back what it gets."""

from __future__ import annotations

from plain import Message, Receive, Send, fixed, lifespan

# Asked for at the start, to see that the server is up.
answer = fixed(b"up")


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "http":
        await answer(receive, send)
    else:
        await lifespan(receive, send)


async def echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if (text := message.get("text")) is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
