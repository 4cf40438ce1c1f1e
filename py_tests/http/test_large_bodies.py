"""Large bodies of responses: the server sends the application's own bytes, and keeps them no longer than it must."""

import contextlib
import sys

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, routes, start
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Server, unlike_uvicorn

pytestmark = unlike_uvicorn("it copies, and takes all that a client does not read")

KIB = 1024
SIZES = [4095, 4096, 64 * KIB, 1024 * KIB]

BODIES = {size: bytes(range(256)) * (size // 256) + bytes(size % 256) for size in SIZES}


def size_of(scope: Scope) -> int:
    return int(scope["query_string"])


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, BODIES[size_of(scope)])


async def in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    """Large and short ones, and an end that is empty."""
    await start(send)
    for _ in range(3):
        await body(send, BODIES[size_of(scope)], more=True)
        await body(send, b"between", more=True)
        await body(send, b"", more=True)
    await body(send)


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, [sys.getrefcount(BODIES[size]) for size in SIZES])


async def references(connection: Connection) -> object:
    return (await connection.get("/count")).json()


@pytest.mark.protocols(HTTP1, HTTP2, HTTP3)
@pytest.mark.parametrize("size", SIZES)
async def test_bodies_arrive_whole_and_are_let_go(server: Server, connect: Connect, size: int) -> None:
    before = await references(await connect(server))
    connection = await connect(server)
    for _ in range(5):
        assert (await connection.get(f"/whole?{size}")).body == BODIES[size]
        assert (await connection.get(f"/in_pieces?{size}")).body == (BODIES[size] + b"between") * 3
        assert (await connection.request("HEAD", f"/whole?{size}")).body == b""

    async def let_go() -> bool:
        return await references(connection) == before

    # Of HTTP/3 the server keeps what the client has not acknowledged.
    await eventually(let_go)


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    with contextlib.suppress(OSError):
        while True:
            await body(send, BODIES[size_of(scope)], more=True)


@pytest.mark.protocols(HTTP1, HTTP2, HTTP3)
@pytest.mark.parametrize("size", [4096, 64 * KIB, 1024 * KIB])
async def test_bodies_of_clients_that_leave_are_let_go(server: Server, connect: Connect, size: int) -> None:
    before = await references(await connect(server))
    for leave in ["close", "abort"] * 3:
        connection = await connect(server)
        exchange = await connection.start("GET", f"/flood?{size}")
        await exchange.head()
        await getattr(connection, leave)()

    async def let_go() -> bool:
        async with await connect(server) as watching:
            return await references(watching) == before

    await eventually(let_go)


async def buffer(scope: Scope, receive: Receive, send: Send) -> None:
    data = bytearray(BODIES[64 * KIB])
    await start(send)
    await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": memoryview(data), "more_body": True})
    data[:] = bytes(len(data))
    await body(send)


async def test_what_changes_after_send_has_been_sent_before(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/buffer")).body == BODIES[64 * KIB] * 2


app = routes(whole, in_pieces, count, flood, buffer)
