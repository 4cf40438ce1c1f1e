"""What the applications of the WebSocket tests have in common, beside apps.py."""

from typing import Any

from py_tests.harness.apps import Receive, Scope, Send, note, shown

CONNECT = {"type": "websocket.connect"}


async def accept(receive: Receive, send: Send, **more: Any) -> None:
    assert await receive() == CONNECT
    await send({"type": "websocket.accept", **more})


async def say(send: Send, data: str | bytes) -> None:
    await send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})


async def close(send: Send, code: int = 1000, reason: str = "") -> None:
    await send({"type": "websocket.close", "code": code, "reason": reason})


async def hear(receive: Receive) -> str | bytes:
    """Receives a message."""
    message = await receive()
    assert message["type"] == "websocket.receive", message
    data: str | bytes = message["text"] if message.get("text") is not None else message["bytes"]
    return data


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back what comes, and notes how it ended."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    note(scope, message)


async def listen(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes each message as it is."""
    await accept(receive, send)
    message = None
    while message is None or message["type"] == "websocket.receive":
        message = await receive()
        note(scope, shown(message))


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}
