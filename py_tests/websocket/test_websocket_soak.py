"""Thousands of WebSockets whose clients leave at a random point: nothing but that may show in the log, in the loop's
tasks or in memory."""

import asyncio
import contextlib
import gc
import random
from collections.abc import Callable, Coroutine

import pytest
from h2.exceptions import ProtocolError
from wsproto.extensions import PerMessageDeflate

from py_tests.harness.apps import Receive, Scope, Send, answer, lifespan
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Connection, ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.http3 import Http3Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3
from py_tests.harness.serving import Serve, Server
from py_tests.harness.wire import Tls
from py_tests.harness.ws_apps import accept, close
from py_tests.harness.ws_client import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    Refused,
    WebSocket,
    begin,
    close_frame,
    complaints,
    dial,
    frame,
)

pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)

# The clients take most of the time.
CONNECTIONS = {HTTP1: 16, HTTP2: 8, HTTP3: 4}
WEBSOCKETS = {HTTP1: 2000, HTTP2: 500, HTTP3: 300}
ROUNDS = 6
WARM_UP = 3
GROWTH = 3 * 1024 * 1024
"""What the rounds after the warm-up may add: see test_soak."""


# --- The application ---


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """By path: echoes, sends by itself, closes, refuses, denies; or tells the tasks."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["path"] == "/tasks":
        gc.collect()
        names = [task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}]
        await answer(send, names)
    elif scope["path"] == "/echo":
        await accept(receive, send)
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
    elif scope["path"] == "/talks":
        await accept(receive, send)
        for number in range(50):
            await send({"type": "websocket.send", "text": str(number) * 100})
            await asyncio.sleep(0)
    elif scope["path"] == "/closes":
        await accept(receive, send)
        await receive()
        await close(send, 3000, "enough")
    elif scope["path"] == "/refuses":
        await receive()
        await close(send)
    else:
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body", "body": b"no" * 1000})


PATHS = ["/echo", "/echo", "/echo", "/talks", "/closes", "/refuses", "/denies"]


# --- The clients ---

Step = Callable[[WebSocket, random.Random], Coroutine[None, None, None]]


async def echoes(socket: WebSocket, choice: random.Random) -> None:
    for _ in range(choice.randrange(4)):
        await socket.send("hello " * choice.randrange(1, 300))


async def reads(socket: WebSocket, choice: random.Random) -> None:
    await socket.write(frame(PING))
    await socket.frame()


async def half_a_frame(socket: WebSocket, choice: random.Random) -> None:
    data = frame(BINARY, b"x" * 300)
    await socket.write(data[: choice.randrange(1, len(data))])


async def half_a_message(socket: WebSocket, choice: random.Random) -> None:
    await socket.write(frame(TEXT, b"x" * choice.randrange(2000), fin=False) + frame(CONTINUATION, b"y", fin=False))


async def nonsense(socket: WebSocket, choice: random.Random) -> None:
    await socket.write(choice.randbytes(40))


async def says_goodbye(socket: WebSocket, choice: random.Random) -> None:
    await socket.write(close_frame(1000))


async def half_closes(socket: WebSocket, choice: random.Random) -> None:
    await socket.half_close()


async def closes(socket: WebSocket, choice: random.Random) -> None:
    await socket.close()


async def says_nothing(socket: WebSocket, choice: random.Random) -> None:
    pass


STEPS: list[Step] = [echoes, echoes, reads, half_a_message]
LAST: list[Step] = [half_a_frame, nonsense, says_goodbye, half_closes, closes, closes, says_nothing]


# How a client learns of the end that it has made.
TOLD = (OSError, ResponseCut, Refused, ProtocolError, AssertionError)


async def one(connection: Connection, choice: random.Random) -> None:
    """A WebSocket that is left in some way, somewhere."""
    path = choice.choice(PATHS)
    if choice.random() < 0.15:
        exchange = await begin(connection, path, early=frame(TEXT, b"early"))
        for _ in range(choice.randrange(4)):
            await asyncio.sleep(0)
        await exchange.leave()
        return
    deflate = PerMessageDeflate() if choice.random() < 0.5 else None
    socket = await dial(connection, path, deflate=deflate)
    for _ in range(choice.randrange(3)):
        await choice.choice(STEPS)(socket, choice)
    await choice.choice(LAST)(socket, choice)
    if choice.random() < 0.5:
        await socket.leave()


async def client(connect: Callable[[], Coroutine[None, None, Connection]], seed: float, left: list[int]) -> int:
    """Gives how many of its WebSockets ended without complaint."""
    choice, good = random.Random(seed), 0
    while left:
        async with await connect() as connection:
            # Envoy ends connections on which many streams are reset.
            for _ in range(1 if isinstance(connection, Http1Connection) else choice.randrange(1, 30)):
                if not left:
                    break
                left.pop()
                # What a client is told for what it does is the subject of other tests.
                with contextlib.suppress(*TOLD):
                    await one(connection, choice)
                    good += 1
            if choice.random() < 0.5:
                await connection.abort()
    return good


def opener(server: Server, protocol: str) -> Callable[[], Coroutine[None, None, Connection]]:
    """Opens connections that are closed by whoever uses them."""

    async def opened() -> Connection:
        if protocol == HTTP3:
            return await Http3Connection.open(server.ssl_port, Tls())
        return await (Http1Connection if protocol == HTTP1 else Http2Connection).open(server.port)

    return opened


async def tasks_of(server: Server) -> list[str]:
    async with await Http1Connection.open(server.port) as connection:
        names: list[str] = (await connection.get("/tasks")).json()
        return names


async def test_websockets_leave_nothing_behind(serve: Serve, protocol: str) -> None:
    server = serve(app)
    before = len(await tasks_of(server))
    memory = []
    for round_ in range(ROUNDS):
        choice, left = random.Random(round_), list(range(WEBSOCKETS[protocol]))
        clients = [client(opener(server, protocol), choice.random(), left) for _ in range(CONNECTIONS[protocol])]
        # Many are refused, and some do what is answered by an end.
        assert sum(await asyncio.gather(*clients)) > WEBSOCKETS[protocol] / 4

        async def idle() -> bool:
            return len(await tasks_of(server)) <= before

        await eventually(idle)
        memory.append(server.memory())
    assert complaints(server) == []
    growth = max(memory[WARM_UP:]) - memory[WARM_UP - 1]
    assert growth < GROWTH, [bytes_ // 1024 for bytes_ in memory]
