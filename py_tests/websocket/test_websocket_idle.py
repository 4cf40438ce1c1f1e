"""Pings of the server, clients that do not answer, and clients that do not close."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect as websockets_connect

from py_tests.harness.apps import Receive, Scope, Send, note, routes
from py_tests.harness.certificates import Pair
from py_tests.harness.deadline import DEADLINE
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, http3_options
from py_tests.harness.serving import Serve, Server
from py_tests.harness.serving import serve as start_server
from py_tests.harness.ws_apps import accept, disconnect, echo, hear, listen, say
from py_tests.harness.ws_client import CLOSE, PING, PONG, TEXT, Frame, WebSocket, close_frame, complaints, dial, frame

pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)

INTERVAL = 0.2
TIMEOUT = 0.4
"""Seconds. Tests of what must not happen wait for several times as long."""

PATIENCE = 2
"""What a client has to answer in that may be held up."""
LONG = 1.5 * PATIENCE


@contextlib.contextmanager
def pinging(pair: Pair, timeout: float) -> Iterator[Server]:
    """Its other limits are short, too."""
    limits = {"timeout_idle": INTERVAL, "timeout_keep_alive": PATIENCE}
    pings = {"ws_ping_interval": INTERVAL, "ws_ping_timeout": timeout}
    with start_server(f"{__name__}:app", **http3_options(pair), **limits, **pings) as server:
        yield server


@pytest.fixture(scope="module")
def server(pair: Pair) -> Iterator[Server]:
    with pinging(pair, TIMEOUT) as server:
        yield server


@pytest.fixture(scope="module")
def patient(pair: Pair) -> Iterator[Server]:
    with pinging(pair, PATIENCE) as server:
        yield server


async def closed(socket: WebSocket) -> tuple[int, str]:
    """Code and reason of the close frame; a ping may come before it."""
    async with asyncio.timeout(DEADLINE):
        while (got := await socket.frame()).opcode is PING:
            pass
    assert got.opcode is CLOSE, got
    code, reason = got.payload
    return code, reason


async def test_idle_websocket_lives_while_pings_are_answered(patient: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(patient), f"/echo?{key}")
    end = time.monotonic() + LONG  # than all the server's limits
    while time.monotonic() < end:
        ping = await socket.frame()
        assert ping.opcode is PING
        await socket.write(frame(PONG, ping.payload))
    await socket.send("still here")
    assert await socket.receive() == "still here"
    assert await patient.notes(key) == []
    await socket.write(close_frame(1000))
    assert await closed(socket) == (1000, "")
    await socket.ended()


@pytest.mark.protocols(HTTP1)
async def test_client_of_others_answers_pings(patient: Server, protocol: str) -> None:
    address = f"ws://127.0.0.1:{patient.port}/echo"
    async with websockets_connect(address, ping_interval=None, open_timeout=DEADLINE, proxy=None) as socket:
        await asyncio.sleep(LONG)
        await socket.send("still here")
        assert await socket.recv() == "still here"


async def test_client_that_does_not_answer_is_let_go(server: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(server), f"/echo?{key}")
    assert await socket.frame() == Frame(PING, b"")
    code, reason = await socket.closed()
    assert code == 1011
    assert reason
    await socket.ended()
    assert await server.noted(key, disconnect(1011, reason)) == [disconnect(1011, reason)]
    assert complaints(server) == []


async def test_messages_are_no_answer_to_a_ping(server: Server, connect: Connect, key: str) -> None:
    """Though they show that the client lives: as in other servers."""
    # It sends nothing, which would fail behind the end of the WebSocket.
    socket = await dial(await connect(server), f"/listen?{key}")

    async def talk() -> None:
        while True:
            await socket.send("hello")
            await asyncio.sleep(INTERVAL / 4)

    talking = asyncio.create_task(talk())
    told = await server.noted(key, disconnect(1011, "keepalive ping timeout"))
    talking.cancel()
    assert [message.get("text") for message in told[:-1]] == ["hello"] * (len(told) - 1)


async def slow_to_receive(scope: Scope, receive: Receive, send: Send) -> None:
    """Does not receive for a time, while the client fills all queues; then it tells how many messages came."""
    await accept(receive, send)
    await asyncio.sleep(INTERVAL + LONG)
    number = 0
    while (message := await receive())["type"] == "websocket.receive":
        number += 1
    note(scope, [number, message["code"]])


async def test_client_is_not_blamed_for_a_slow_application(patient: Server, connect: Connect, key: str) -> None:
    """Its pongs lie behind messages that the application has not received."""
    socket = await dial(await connect(patient), f"/slow_to_receive?{key}")
    number = 60

    async def talk() -> None:
        for _ in range(number):
            await socket.send(b"x" * 32768)

    async def answer() -> None:
        while (got := await socket.frame()).opcode is PING:
            await socket.write(frame(PONG, got.payload))

    talking, answering = asyncio.create_task(talk()), asyncio.create_task(answer())
    await talking
    await socket.write(close_frame(1000))
    await answering
    await patient.noted(key, [number, 1000])


async def test_pings_can_be_turned_off(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(f"{__name__}:app", ws_ping_interval=0, ws_ping_timeout=TIMEOUT, timeout_idle=INTERVAL)
    socket = await dial(await connect(server), f"/echo?{key}")
    await asyncio.sleep(4 * (INTERVAL + TIMEOUT))
    await socket.send("still here")
    assert await socket.frame() == Frame(TEXT, "still here")  # and no ping


async def test_answers_can_be_awaited_for_ever(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(f"{__name__}:app", ws_ping_interval=INTERVAL, ws_ping_timeout=0)
    socket = await dial(await connect(server), f"/echo?{key}")
    assert await socket.frame() == Frame(PING, b"")
    await asyncio.sleep(4 * (INTERVAL + TIMEOUT))
    await socket.send("still here")
    assert await socket.receive() == "still here"


async def closes(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await send({"type": "websocket.close", "code": 3000})
    note(scope, await receive())


@pytest.mark.protocols(HTTP2)  # one, since it takes ten seconds
async def test_client_that_does_not_answer_a_close_frame_is_let_go(server: Server, connect: Connect, key: str) -> None:
    """The application does not wait for that."""
    socket = await dial(await connect(server), f"/closes?{key}")
    assert await closed(socket) == (3000, "")
    await server.noted(key, disconnect(3000))
    await socket.ended()
    assert complaints(server) == []


async def waits_long(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts late, and waits for a message."""
    await asyncio.sleep(LONG)
    await accept(receive, send)
    await say(send, await hear(receive))


async def test_handshake_may_take_its_time(patient: Server, connect: Connect) -> None:
    socket = await dial(await connect(patient), "/waits_long")
    await socket.send("at last")
    assert await socket.receive() == "at last"


app = routes(closes, echo, listen, slow_to_receive, waits_long)
