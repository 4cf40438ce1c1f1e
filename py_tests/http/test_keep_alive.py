"""`--timeout-keep-alive` ends connections that nobody uses, and no others."""

import asyncio
from collections.abc import Iterator

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, read, routes, start
from py_tests.harness.http1 import Http1Connection, Http1Exchange
from py_tests.harness.protocols import Connect, http3_options, http3_too
from py_tests.harness.serving import Serve, Server, unlike_uvicorn
from py_tests.harness.serving import serve as start_server

# Seconds. A client that is held up between two of its steps must not be idle for so long.
KEEP_ALIVE = 2
# What takes this long has outlived that.
LONG = 3.5
# A machine under load may be late, but not by a multiple of what was asked for.
LATE = 5 * KEEP_ALIVE


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with start_server(
        f"{__name__}:app", timeout_keep_alive=KEEP_ALIVE, **http3_options(request.getfixturevalue("pair"))
    ) as server:
        yield server


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


async def takes_long(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(LONG)
    await answer(send, b"at last")


async def long_pause(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"before", more=True)
    await asyncio.sleep(LONG)
    await body(send, b" and after")


async def slow_upload(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    note(scope, "waiting")
    rest = await read(receive)
    await answer(send, message["body"] + rest)


@http3_too
async def test_idle_connection_is_closed(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.get("/plain")).body == b"plain"
    await connection.ended(within=LATE)


@unlike_uvicorn("it waits for a first request without limit")
async def test_connection_that_never_asks_is_closed(server: Server) -> None:
    async with await Http1Connection.open(server.port) as connection:
        await connection.ended(within=LATE)


async def test_connection_in_use_is_kept(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.get("/takes_long")).body == b"at last"
    assert (await connection.get("/long_pause")).body == b"before and after"
    assert (await connection.get("/plain")).body == b"plain"


async def test_slow_upload_is_kept(server: Server, connect: Connect, key: str) -> None:
    exchange = await (await connect(server)).start("POST", f"/slow_upload?{key}", upload=True)
    await exchange.send(b"before")
    await server.noted(key, "waiting")
    await asyncio.sleep(LONG)
    await exchange.send(b" and after", end=True)
    assert (await exchange.response()).body == b"before and after"


async def test_http_1_connection_close_is_honoured(serve: Serve) -> None:
    server = serve(f"{__name__}:app", timeout_keep_alive=60)
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(b"GET /plain HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        response = await Http1Exchange(connection).response()
        assert response.header(b"connection") == b"close"
        assert response.body == b"plain"
        await connection.ended()  # not for being idle


app = routes(plain, takes_long, long_pause, slow_upload)
