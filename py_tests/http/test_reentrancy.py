"""Python code that runs inside the bridge, as finalisers and loops inside loops do: what it changes is not missed."""

import asyncio
import gc
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiovoy
from py_tests.harness.apps import Receive, Scope, Send, answer, body, gate, note, read, routes, start
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import Headers
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.protocols import Connect, http3_too
from py_tests.harness.serving import Server, unlike_uvicorn
from py_tests.harness.ws_apps import accept, disconnect, hear, say
from py_tests.harness.ws_client import VANISHED, dial

pytestmark = unlike_uvicorn("it has no bridge")

inside: list[Callable[[], Any]] = []
"""What runs in the making of the next future."""

when_woken: list[Callable[[], Any]] = []
"""What runs when the next future that was made is resolved."""

inboxes: list[tuple[int, Callable[[], None]]] = []
"""What the loop watches, and what it calls then."""


def enter(loop: Any) -> None:
    """Makes the hooks above work on the server's loop, before it is the server's."""
    add_reader = loop.add_reader

    class Future(asyncio.Future[Any]):
        def set_result(self, result: Any) -> None:
            if when_woken:
                when_woken.pop()()
            super().set_result(result)

    def create_future() -> Future:
        if inside:
            inside.pop()()
        return Future(loop=loop)

    def keep_reader(descriptor: int, callback: Callable[[], None]) -> None:
        inboxes.append((descriptor, callback))
        add_reader(descriptor, callback)

    loop.create_future, loop.add_reader = create_future, keep_reader


if aiovoy.inside_server:
    enter(asyncio.get_event_loop())


def next_messages() -> None:
    """Waits for messages from Envoy and has them handled, as a loop inside the loop would."""
    ((descriptor, drain),) = inboxes
    assert select.select([descriptor], [], [], DEADLINE)[0], "no message came"
    drain()


def until_disconnect(receive: Receive) -> None:
    told = None
    while told is None:
        awaitable = receive()
        try:
            awaitable.send(None)
        except StopIteration as end:
            told = end.value
        else:
            awaitable.close()
            next_messages()
    assert told["type"].endswith(".disconnect"), told


def opening(scope: Scope, then: Callable[[], Any]) -> Callable[[], Any]:
    """`then`, once the test knows that it runs."""
    path = gate(scope)

    def run() -> None:
        Path(path).touch()
        then()

    return run


def gated(path: Path) -> Headers:
    return [(b"x-gate", bytes(path))]


class Completes:
    """In a circle, so that the collector finalises it."""

    def __init__(self, send: Send) -> None:
        self.send, self.itself = send, self

    def __del__(self) -> None:
        _ = self.send({"type": "http.response.body"})


async def completed_by_a_finaliser(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    await start(send)
    Completes(send)
    inside.append(gc.collect)
    note(scope, (await receive())["type"])


@http3_too
async def test_response_that_ends_in_a_finaliser_is_told_to_receive(server: Server, connect: Connect, key: str) -> None:
    response = await (await connect(server)).get(f"/completed_by_a_finaliser?{key}")
    assert (response.status, response.body) == (200, b"")
    assert await server.noted(key, "http.disconnect") == ["http.disconnect"]


async def fed_inside(scope: Scope, receive: Receive, send: Send) -> None:
    inside.append(opening(scope, next_messages))
    await answer(send, await read(receive))


@http3_too
async def test_body_that_comes_inside_is_received(server: Server, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "gate"
    exchange = await (await connect(server)).start("POST", "/fed_inside", headers=gated(path), upload=True)
    await eventually(path.exists)
    await exchange.send(b"body", end=True)
    assert (await exchange.response()).body == b"body"


async def left_inside(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    await start(send)
    try:
        while not inside:
            inside.append(opening(scope, lambda: until_disconnect(receive)))
            await body(send, bytes(300_000), more=True)
    except OSError as error:
        note(scope, type(error).__name__)


@http3_too
async def test_client_that_leaves_inside_ends_a_send(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "gate"
    exchange = await (await connect(server)).start("GET", f"/left_inside?{key}", headers=gated(path))
    await eventually(path.exists)
    await exchange.leave()
    assert await server.noted(key, "ClientDisconnected") == ["ClientDisconnected"]


async def ws_fed_inside(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    inside.append(opening(scope, next_messages))
    await say(send, await hear(receive))


@http3_too
async def test_message_that_comes_inside_is_received(server: Server, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "gate"
    socket = await dial(await connect(server), "/ws_fed_inside", gated(path))
    await eventually(path.exists)
    await socket.send("message")
    assert await socket.receive() == "message"


async def ws_left_inside(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    inside.append(opening(scope, lambda: until_disconnect(receive)))
    try:
        await say(send, bytes(300_000))
    except OSError as error:
        note(scope, type(error).__name__)
    note(scope, await receive())


@http3_too
async def test_websocket_that_ends_inside_ends_a_send(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "gate"
    socket = await dial(await connect(server), f"/ws_left_inside?{key}", gated(path))
    await eventually(path.exists)
    await socket.leave()
    expected = ["ClientDisconnected", disconnect(VANISHED)]
    assert await server.noted(key, *expected) == expected


async def overtaken(scope: Scope, receive: Receive, send: Send) -> None:
    when_woken[:] = [opening(scope, next_messages)]
    note(scope, "waiting")
    await answer(send, await read(receive))


async def test_messages_that_are_handled_inside_do_not_overtake_others(
    server: Server, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "gate"
    async with await Http2Connection.open(server.port) as connection:
        one, other = [
            await connection.start("POST", f"/overtaken?{key}", headers=gated(path), upload=True) for _ in range(2)
        ]
        await eventually(lambda: _both_wait(server, key))
        # Both leave together, and the server has them in one batch.
        connection.h2.send_data(one.stream_id, b"one", end_stream=True)
        connection.h2.send_data(other.stream_id, b"first, ")
        await connection.flush()
        await eventually(path.exists)
        await other.send(b"second", end=True)
        assert (await one.response()).body == b"one"
        assert (await other.response()).body == b"first, second"


async def _both_wait(server: Server, key: str) -> bool:
    return await server.notes(key) == ["waiting"] * 2


app = routes(completed_by_a_finaliser, fed_inside, left_inside, ws_fed_inside, ws_left_inside, overtaken)
