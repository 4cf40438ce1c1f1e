"""A slow side makes the other one wait, and what is under way stays bounded, also when it is tiny."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from py_tests.harness.apps import Receive, Scope, Send, file_exists, gate, note, routes
from py_tests.harness.deadline import settled
from py_tests.harness.exchange import Exchange
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Server
from py_tests.harness.ws_apps import accept, disconnect, say
from py_tests.harness.ws_client import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    VANISHED,
    Frame,
    close_frame,
    complaints,
    dial,
    frame,
)

conforms = pytest.mark.conforms
pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)

MEGABYTE = 1024 * 1024
PIECE = 64 * 1024

# As in test_backpressure: kernel buffers, HTTP/2 windows and our own queues, far below the total; and two of the
# largest messages, one whole and one that has begun.
TOTAL = {HTTP1: 128 * MEGABYTE, HTTP2: 128 * MEGABYTE, HTTP3: 8 * MEGABYTE}
UNDER_WAY = {HTTP1: 24 * MEGABYTE, HTTP2: 24 * MEGABYTE, HTTP3: 4 * MEGABYTE}
RESIDENT = {HTTP1: 48 * MEGABYTE, HTTP2: 48 * MEGABYTE, HTTP3: 8 * MEGABYTE}


@contextlib.asynccontextmanager
async def flood(exchange: Exchange, data: bytes, times: int) -> AsyncIterator[asyncio.Task[None]]:
    """Sends `data` so often, beside what the test does."""

    async def send() -> None:
        for _ in range(times):
            await exchange.send(data)

    sending = asyncio.create_task(send())
    try:
        yield sending
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await sending


# --- The client reads slowly ---


async def sends_much(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes when `send` made it wait, and how much had been sent."""
    total, size = (int(number) for number in scope["path"].split("/")[2:])
    await accept(receive, send)
    waited = False
    for sent in range(0, total, size):
        sending = asyncio.ensure_future(send({"type": "websocket.send", "bytes": b"x" * size}))
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        if not done and not waited:
            waited = True
            note(scope, sent)
            note(scope, "waiting")
        await sending
    note(scope, "sent all")


@conforms("websocket.slow.client")
@pytest.mark.parametrize("size", [PIECE, MEGABYTE])
async def test_slow_client_makes_send_wait(
    server: Server, connect: Connect, protocol: str, key: str, size: int
) -> None:
    before, total = server.memory(), TOTAL[protocol]
    socket = await dial(await connect(server), f"/sends_much/{total}/{size}?{key}")
    sent = (await server.noted(key, "waiting"))[0]
    assert sent < UNDER_WAY[protocol]
    assert server.memory() - before < RESIDENT[protocol]
    for _ in range(total // size):
        assert len(await socket.receive()) == size
    assert await socket.closed() == (1000, "")
    await server.noted(key, "sent all")
    assert server.memory() - before < RESIDENT[protocol]


async def sends_a_flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Small messages without end."""
    await accept(receive, send)
    sent = 0
    try:
        while True:
            async with asyncio.timeout(0.5):
                await say(send, b"small" * 20)
            sent += 1
    except TimeoutError:
        note(scope, sent)
        note(scope, "waiting")
    note(scope, await receive())


@conforms("websocket.slow.client")
@pytest.mark.protocols(HTTP1, HTTP2)
async def test_small_messages_make_send_wait_too(server: Server, connect: Connect, protocol: str, key: str) -> None:
    """Not on HTTP/3, where the client takes each apart: it would not be slower than the server."""
    before = server.memory()
    socket = await dial(await connect(server), f"/sends_a_flood?{key}")
    await server.noted(key, "waiting")
    assert server.memory() - before < RESIDENT[protocol]
    await socket.leave()
    await server.noted(key, disconnect(VANISHED))
    assert complaints(server) == []


async def blocked_in_send(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    try:
        while True:
            note(scope, "sends")
            await say(send, b"x" * 8 * MEGABYTE)
    except OSError:
        note(scope, await receive())
        raise


@conforms("websocket.closed")
@pytest.mark.parametrize("way", ["leave", "close_frame"])
async def test_send_that_waits_is_told_of_the_end(server: Server, connect: Connect, key: str, way: str) -> None:
    socket = await dial(await connect(server), f"/blocked_in_send?{key}")
    await server.noted(key, "sends")
    if way == "leave":
        await socket.leave()
    else:
        await socket.write(close_frame(1001))  # and reads nothing
    await server.noted(key, disconnect(VANISHED if way == "leave" else 1001))
    assert complaints(server) == []


# --- The application receives slowly ---


async def receives_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Receives nothing until the gate opens; then counts messages and bytes."""
    await accept(receive, send)
    note(scope, "not receiving")
    await file_exists(gate(scope))
    number = size = 0
    while (message := await receive())["type"] == "websocket.receive":
        number += 1
        size += len(message["text"] if message.get("text") is not None else message["bytes"])
    note(scope, [number, size, message["code"]])


FLOODS: dict[str, Callable[[], tuple[bytes, int, int]]] = {
    "64 KiB": lambda: (frame(BINARY, b"x" * PIECE), 1, PIECE),
    "1 MiB": lambda: (frame(BINARY, b"x" * MEGABYTE), 1, MEGABYTE),
    "1 byte": lambda: (frame(TEXT, b"x") * 8192, 8192, 8192),
    "no bytes": lambda: (frame(TEXT) * 8192, 8192, 0),
}
"""What is sent again and again, how many messages that is, and how many bytes of payload."""

# Of tiny messages fewer: they cost the application, and the machine, much time once it receives.
FEW = 3 * MEGABYTE


@conforms("websocket.slow.application")
@pytest.mark.parametrize("what", FLOODS)
async def test_application_that_does_not_receive_stops_the_client(
    server: Server, connect: Connect, protocol: str, key: str, tmp_path: Path, what: str
) -> None:
    data, number, size = FLOODS[what]()
    path = tmp_path / "gate"
    socket = await dial(await connect(server), f"/receives_late?{key}", [(b"x-gate", str(path).encode())])
    await server.noted(key, "not receiving")
    before = server.memory()
    tiny = len(data) < 2 * PIECE and number > 1
    times = (FEW if tiny else TOTAL[protocol]) // len(data)
    async with flood(socket.exchange, data, times) as sending:
        await settled(lambda: socket.exchange.sent)
        if not tiny:
            assert socket.exchange.sent < UNDER_WAY[protocol]
            assert not sending.done()
        assert server.memory() - before < RESIDENT[protocol]
        path.touch()
        await sending
    await socket.close()
    expected = [times * number, times * size, 1000]
    assert expected in await server.noted(key, expected)
    assert server.memory() - before < RESIDENT[protocol]


@conforms("websocket.slow.application")
@pytest.mark.protocols(HTTP1, HTTP2)
@pytest.mark.parametrize("piece", [frame(TEXT, b"x"), frame(BINARY)])
async def test_flood_of_tiny_messages_stops(
    server: Server, connect: Connect, protocol: str, key: str, tmp_path: Path, piece: bytes
) -> None:
    """128 MB of frames would be some twenty million messages; a few thousand of them may wait."""
    path = tmp_path / "gate"
    socket = await dial(await connect(server), f"/receives_late?{key}", [(b"x-gate", str(path).encode())])
    await server.noted(key, "not receiving")
    before = server.memory()
    data = piece * (PIECE // len(piece))
    async with flood(socket.exchange, data, TOTAL[protocol] // len(data)) as sending:
        assert await settled(lambda: socket.exchange.sent) < UNDER_WAY[protocol]
        assert not sending.done()
        assert server.memory() - before < RESIDENT[protocol] / 2
    path.touch()
    await socket.leave()


@pytest.mark.parametrize("what", ["pings", "unfinished message"])
async def test_what_does_not_reach_the_application_stays_bounded(
    server: Server, connect: Connect, protocol: str, key: str, tmp_path: Path, what: str
) -> None:
    """Pings whose answers the client does not take; a message that never ends is cut at its largest size."""
    path = tmp_path / "gate"
    socket = await dial(await connect(server), f"/receives_late?{key}", [(b"x-gate", str(path).encode())])
    await server.noted(key, "not receiving")
    before = server.memory()
    piece = frame(PING, b"x" * 125) if what == "pings" else frame(CONTINUATION, b"x" * 125, fin=False)
    if what == "unfinished message":
        await socket.write(frame(BINARY, b"x", fin=False))
    data = piece * (PIECE // len(piece))
    async with flood(socket.exchange, data, TOTAL[protocol] // len(data)) as sending:
        with contextlib.suppress(ConnectionError):
            await settled(lambda: socket.exchange.sent)
        assert server.memory() - before < RESIDENT[HTTP1]
        if what == "pings":
            assert not sending.done()
        elif protocol != HTTP3:  # which sends less than a message may have
            assert (await socket.closed())[0] == 1009
    path.touch()
    await socket.leave()


async def test_pings_are_answered_in_order_once_the_client_reads(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "gate"
    socket = await dial(await connect(server), f"/receives_late?{key}", [(b"x-gate", str(path).encode())])
    number = 4000
    async with flood(socket.exchange, b"".join(frame(PING, b"%0100d" % one) for one in range(number)), 1) as sending:
        for one in range(number):
            assert await socket.frame() == Frame(PONG, b"%0100d" % one)
        await sending
    path.touch()
    await socket.leave()


async def echo_slowly(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


@conforms("websocket.slow.client", "websocket.slow.application")
async def test_client_that_reads_no_echo_is_stopped(server: Server, connect: Connect, protocol: str) -> None:
    """The two directions joined by an application."""
    before, total = server.memory(), TOTAL[protocol] // 2
    socket = await dial(await connect(server), "/echo_slowly")
    data = frame(BINARY, b"x" * PIECE)
    async with flood(socket.exchange, data, total // PIECE) as sending:
        assert await settled(lambda: socket.exchange.sent) < 2 * UNDER_WAY[protocol]
        assert not sending.done()
        assert server.memory() - before < RESIDENT[protocol]
        for _ in range(total // PIECE):
            assert len(await socket.receive()) == PIECE
        await sending
    assert await socket.close() == (1000, "")


@pytest.mark.protocols(HTTP2, HTTP3)
async def test_stalled_websocket_does_not_delay_its_siblings(
    server: Server, connect: Connect, protocol: str, key: str, tmp_path: Path
) -> None:
    connection = await connect(server)
    unread = await dial(connection, f"/sends_much/{TOTAL[protocol]}/{PIECE}?{key}")
    await server.noted(key, "waiting")
    path = tmp_path / "gate"
    stalled = await dial(connection, f"/receives_late?{key}x", [(b"x-gate", str(path).encode())])
    async with flood(stalled.exchange, frame(BINARY, b"x" * PIECE), TOTAL[protocol] // PIECE) as sending:
        await settled(lambda: stalled.exchange.sent)
        assert not sending.done()
        sibling = await dial(connection, "/echo_slowly")
        await sibling.send(b"y" * 300_000)
        assert await sibling.receive() == b"y" * 300_000
        other = await dial(connection, f"/sends_much/{2 * MEGABYTE}/{PIECE}?{key}y")
        for _ in range(2 * MEGABYTE // PIECE):
            assert len(await other.receive()) == PIECE
        assert (await connection.get("/notes")).status == 200
    path.touch()
    await unread.leave()
    await stalled.leave()


app = routes(blocked_in_send, echo_slowly, receives_late, sends_a_flood, sends_much)
