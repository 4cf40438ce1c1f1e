"""python-socketio: its server on ASGI, and its own client, by WebSocket, by polling, and from the one to the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import socketio

from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.protocols import HTTP1
from py_tests.harness.serving import Server

pytestmark = pytest.mark.protocols(HTTP1)  # which its client speaks

server_ = socketio.AsyncServer(async_mode="asgi", ping_interval=1, ping_timeout=2)


async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
    if auth == "wrong":
        raise socketio.exceptions.ConnectionRefusedError("who are you?")
    await server_.save_session(sid, {"name": auth})
    await server_.emit("greeting", "welcome", to=sid)


async def echo(sid: str, data: Any) -> Any:
    await server_.emit("echoed", data, to=sid)
    return {"acknowledged": data}


async def join(sid: str, room: str) -> None:
    await server_.enter_room(sid, room)


async def say(sid: str, room: str, text: str) -> None:
    name = (await server_.get_session(sid))["name"]
    await server_.emit("said", [name, text], room=room)


for handler in (connect, echo, join, say):
    server_.on(handler.__name__, handler)

app = socketio.ASGIApp(server_)


class Client:
    """A client that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.io = socketio.AsyncClient(reconnection=False, request_timeout=DEADLINE)
        self.io.on("*", self.hear)

    async def hear(self, event: str, data: Any) -> None:
        self.heard.append((event, data))

    async def hears(self, event: str, data: Any) -> None:
        await eventually(lambda: (event, data) in self.heard)


@contextlib.asynccontextmanager
async def client(server: Server, transports: list[str], auth: str = "ann") -> AsyncIterator[Client]:
    client = Client()
    await client.io.connect(server.url, transports=transports, auth=auth, wait_timeout=DEADLINE)
    try:
        yield client
    finally:
        await client.io.disconnect()


WAYS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}


@pytest.mark.parametrize("way", WAYS)
async def test_events_and_acknowledgements(server: Server, protocol: str, way: str) -> None:
    async with client(server, WAYS[way]) as one:
        await one.hears("greeting", "welcome")
        await eventually(lambda: one.io.transport() == ("polling" if way == "polling" else "websocket"))
        for data in ["text", {"a": [1, None]}, b"bytes", "x" * 100_000]:
            assert await one.io.call("echo", data) == {"acknowledged": data}
            await one.hears("echoed", data)


async def test_rooms(server: Server, protocol: str) -> None:
    async with (
        client(server, ["websocket"], "ann") as ann,
        client(server, ["polling"], "bob") as bob,
        client(server, ["polling", "websocket"], "cid") as cid,
    ):
        for one in (ann, bob):
            await one.io.call("join", "room")
        await cid.io.emit("say", ("room", "hello"))
        for one in (ann, bob):
            await one.hears("said", ["cid", "hello"])
        assert "said" not in dict(cid.heard)


async def test_connection_lives_by_pings(server: Server, protocol: str) -> None:
    async with client(server, ["websocket"]) as one:
        await asyncio.sleep(3.5)  # longer than its server waits for an answer
        assert await one.io.call("echo", "still here") == {"acknowledged": "still here"}


async def test_refusal(server: Server, protocol: str) -> None:
    with pytest.raises(socketio.exceptions.ConnectionError):
        async with client(server, ["websocket"], "wrong"):
            pass
