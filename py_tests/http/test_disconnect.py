"""The client leaves: wherever the application is at that time, it learns of it, and nothing else
suffers."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from py_tests.harness.apps import Receive, Scope, Send, answer, body, file_exists, gate, note, read, routes, start
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Connection, Exchange, ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.protocols import Connect, http3_too
from py_tests.harness.serving import UNDER_TEST, UVICORN, Server, unlike_uvicorn

Leave = Callable[[Connection, Exchange], Awaitable[None]]

DISCONNECT = {"type": "http.disconnect"}


async def give_up_exchange(connection: Connection, exchange: Exchange) -> None:
    await exchange.leave()


async def close_connection(connection: Connection, exchange: Exchange) -> None:
    await connection.close()


async def abort_connection(connection: Connection, exchange: Exchange) -> None:
    await connection.abort()


@pytest.fixture(params=[give_up_exchange, close_connection, abort_connection])
def leave(request: pytest.FixtureRequest) -> Leave:
    """The ways to leave: the request (HTTP/2: RST_STREAM), the connection, without a FIN."""
    leave: Leave = request.param
    return leave


async def sends_until_it_raises(scope: Scope, send: Send) -> None:
    try:
        await start(send)
        while True:
            await body(send, b"x" * 1000, more=True)
            await asyncio.sleep(0)
    except Exception as error:
        note(scope, {"send raised OSError": isinstance(error, OSError)})


SEND_RAISED = {"send raised OSError": True}


# --- Learning of it by receive ---


async def awaits_receive(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    note(scope, "waiting")
    note(scope, await receive())
    note(scope, await receive())


@pytest.mark.conforms("http.disconnect.client")
async def test_pending_receive_gets_disconnect(server: Server, connect: Connect, leave: Leave, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/awaits_receive?{key}")
    await server.noted(key, "waiting")
    await leave(connection, exchange)
    assert await server.noted(key, DISCONNECT) == ["waiting", DISCONNECT, DISCONNECT]


@unlike_uvicorn("it answers")
async def test_client_that_closes_its_sending_side_is_gone(server: Server, connect: Connect, key: str) -> None:
    """Envoy takes it for the end of the connection: docs/protocols.md."""
    connection = await connect(server)
    exchange = await connection.start("GET", f"/awaits_receive?{key}")
    await server.noted(key, "waiting")
    assert isinstance(connection, Http1Connection | Http2Connection)
    connection.wire.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ResponseCut):
        await exchange.response()
    assert await server.noted(key, DISCONNECT) == ["waiting", DISCONNECT, DISCONNECT]


async def awaits_body(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    note(scope, message["type"])
    while message["type"] == "http.request":
        message = await receive()
    note(scope, message)


@pytest.mark.conforms("http.disconnect.client")
async def test_receive_of_the_body_gets_disconnect(server: Server, connect: Connect, leave: Leave, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("POST", f"/awaits_body?{key}", upload=True)
    await exchange.send(b"the body's beginning")
    await server.noted(key, "http.request")
    await leave(connection, exchange)
    assert await server.noted(key, DISCONNECT) == ["http.request", DISCONNECT]


async def awaits_first_receive(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "waiting")
    note(scope, (await receive())["type"])


async def test_first_receive_gets_disconnect(server: Server, connect: Connect, leave: Leave, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start(
        "POST", f"/awaits_first_receive?{key}", headers=[(b"content-length", b"10")], upload=True
    )
    await server.noted(key, "waiting")
    await leave(connection, exchange)
    noted = await server.noted(key, "http.disconnect")
    assert noted == ["waiting", "http.disconnect"]


async def two_wait(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    note(scope, "waiting")
    note(scope, await asyncio.gather(receive(), receive()))


async def test_all_pending_receives_get_disconnect(server: Server, connect: Connect, leave: Leave, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/two_wait?{key}")
    await server.noted(key, "waiting")
    await leave(connection, exchange)
    await server.noted(key, [DISCONNECT, DISCONNECT])


async def busy_elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    note(scope, "busy")
    await file_exists(gate(scope))
    note(scope, await receive())
    await sends_until_it_raises(scope, send)
    note(scope, "end")


@unlike_uvicorn("its send returns for good after a disconnect")
async def test_disconnect_waits_for_an_application_that_is_busy(
    server: Server, connect: Connect, leave: Leave, key: str, tmp_path: Any
) -> None:
    # The application is not cancelled, as under uvicorn: it may have work to finish.
    connection = await connect(server)
    path = tmp_path / "gate"
    exchange = await connection.start("GET", f"/busy_elsewhere?{key}", headers=[(b"x-gate", str(path).encode())])
    await server.noted(key, "busy")
    await leave(connection, exchange)
    path.touch()
    noted = await server.noted(key, "end")
    assert noted == ["busy", DISCONNECT, SEND_RAISED, "end"]


async def unread_body(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "busy")
    await file_exists(gate(scope))
    types = [(await receive())["type"]]
    while types[-1] != "http.disconnect":
        types.append((await receive())["type"])
    note(scope, types[-1])


async def test_disconnect_comes_even_if_the_body_was_never_read(
    server: Server, connect: Connect, leave: Leave, key: str, tmp_path: Any
) -> None:
    connection = await connect(server)
    path = tmp_path / "gate"
    exchange = await connection.start(
        "POST",
        f"/unread_body?{key}",
        headers=[(b"x-gate", str(path).encode()), (b"content-length", b"1000000")],
        upload=True,
    )
    await exchange.send(b"x" * 30_000)
    await server.noted(key, "busy")
    await leave(connection, exchange)
    path.touch()
    await server.noted(key, "http.disconnect")


async def idle_stream(scope: Scope, receive: Any, send: Any) -> None:
    """Events that never come, as Starlette streams them."""

    async def events() -> AsyncIterator[bytes]:
        try:
            yield b"the first"
            await asyncio.Event().wait()
        finally:
            note(scope, "closed")

    ended = BackgroundTask(note, scope, "after it")
    await StreamingResponse(events(), background=ended)(scope, receive, send)
    note(scope, "returned")


@http3_too
async def test_idle_stream_of_starlette_is_closed(server: Server, connect: Connect, leave: Leave, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/idle_stream?{key}")
    assert await exchange.head() == 200
    assert await exchange.chunk() == b"the first"
    await leave(connection, exchange)
    assert await server.noted(key, "returned") == ["closed", "after it", "returned"]
    assert "rror" not in server.fresh_log


# --- Learning of it by send ---


async def streams(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "streaming")
    await sends_until_it_raises(scope, send)
    note(scope, await receive())


@pytest.mark.conforms("http.send.disconnect")
@unlike_uvicorn("its send returns for good after a disconnect")
async def test_send_raises_an_os_error(server: Server, connect: Connect, leave: Leave, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/streams?{key}")
    await exchange.head()
    assert await exchange.chunk()
    await leave(connection, exchange)
    # All that was sent in between has to fit into buffers: see test_backpressure.
    last = await server.noted(key, DISCONNECT)
    assert last == ["streaming", SEND_RAISED, DISCONNECT]


async def blocked_in_send(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    note(scope, "sending")
    sent = 0
    try:
        while True:
            sending = asyncio.ensure_future(body(send, b"x" * 100_000, more=True))
            done, _ = await asyncio.wait({sending}, timeout=0.5)
            if not done:
                note(scope, "blocked")
            await sending
            sent += 100_000
            assert sent < 500_000_000
    except OSError:
        note(scope, SEND_RAISED)


@pytest.mark.conforms("http.send.disconnect")
@unlike_uvicorn("its send returns as if nothing had happened")
async def test_blocked_send_raises_an_os_error(server: Server, connect: Connect, leave: Leave, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/blocked_in_send?{key}")
    await exchange.head()
    await server.noted(key, "blocked")
    await leave(connection, exchange)
    assert (await server.noted(key, SEND_RAISED))[-1] == SEND_RAISED


async def first_send_late(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    note(scope, "waiting")
    note(scope, await receive())
    for attempt in [start(send), body(send, b"too late")]:
        try:
            await attempt
        except OSError:
            note(scope, "OSError")
        else:
            note(scope, "sent")


async def test_response_to_a_client_that_left_does_no_harm(
    server: Server, connect: Connect, leave: Leave, key: str
) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/first_send_late?{key}")
    await server.noted(key, "waiting")
    await leave(connection, exchange)
    noted = await server.noted(key, DISCONNECT, "OSError" if UNDER_TEST != UVICORN else "sent")
    assert len(noted) in (3, 4)


async def does_not_care(scope: Scope, receive: Receive, send: Send) -> None:
    """Lets the error of send pass, as most applications do."""
    try:
        await start(send)
        note(scope, "streaming")
        while True:
            await body(send, b"x" * 1000, more=True)
            await asyncio.sleep(0)
    finally:
        note(scope, "left")


@pytest.mark.conforms("core.closed")
@unlike_uvicorn("its send returns for good after a disconnect")
async def test_error_of_a_disconnect_is_not_logged(server: Server, connect: Connect, leave: Leave, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/does_not_care?{key}")
    await exchange.head()
    await leave(connection, exchange)
    await server.noted(key, "left")
    assert (await server.get("/plain")).body == b"plain"
    log = server.fresh_log
    assert "Traceback" not in log
    assert "rror" not in log


async def returns_quietly(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns without a response, since there is nobody to answer."""
    await read(receive)
    note(scope, "waiting")
    message = await receive()
    note(scope, message)


async def raises_its_own(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    note(scope, "waiting")
    await receive()
    note(scope, "raising")
    raise LookupError("of the application")


async def raises_in_a_circle(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    note(scope, "waiting")
    await receive()
    one, other = LookupError("one"), LookupError("other")
    one.__cause__, other.__cause__ = other, one
    note(scope, "raising")
    raise one


async def test_causes_in_a_circle_do_no_harm(server: Server, connect: Connect, leave: Leave, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/raises_in_a_circle?{key}")
    await server.noted(key, "waiting")
    await leave(connection, exchange)
    await server.noted(key, "raising")
    await eventually(lambda: "LookupError: one" in server.fresh_log)
    assert (await server.get("/plain")).body == b"plain"


async def test_return_without_a_response_after_a_disconnect_is_no_error(
    server: Server, connect: Connect, leave: Leave, key: str
) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/returns_quietly?{key}")
    await server.noted(key, "waiting")
    await leave(connection, exchange)
    await server.noted(key, DISCONNECT)
    assert (await server.get("/plain")).body == b"plain"
    assert "rror" not in server.fresh_log


async def test_application_error_after_a_disconnect_is_logged(
    server: Server, connect: Connect, leave: Leave, key: str
) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/raises_its_own?{key}")
    await server.noted(key, "waiting")
    await leave(connection, exchange)
    await server.noted(key, "raising")
    assert (await server.get("/plain")).body == b"plain"
    await eventually(lambda: "LookupError: of the application" in server.fresh_log)


# --- Nothing else suffers ---


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "waiting")
    await file_exists(gate(scope))
    await answer(send, b"answered")


@unlike_uvicorn("uvicorn has no HTTP/2")
async def test_reset_of_a_stream_spares_the_others(server: Server, key: str, tmp_path: Any) -> None:
    async with await Http2Connection.open(server.port) as connection:
        path = tmp_path / "gate"
        header = [(b"x-gate", str(path).encode())]
        staying = await connection.start("GET", f"/waits?{key}", headers=header)
        leaving = [await connection.start("GET", f"/awaits_receive?{key}") for _ in range(5)]
        await server.noted(key, "waiting")
        for exchange in leaving:
            await exchange.leave()
        await server.noted(key, DISCONNECT)
        path.touch()
        assert (await staying.response()).body == b"answered"
        assert (await connection.get("/plain")).body == b"plain"


@unlike_uvicorn("it stops reading while a request waits")
async def test_pipelined_requests_end_with_their_connection(server: Server, key: str) -> None:
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(b"GET /awaits_receive?%s HTTP/1.1\r\nhost: a\r\n\r\n" % key.encode())
        await connection.write(b"GET /plain HTTP/1.1\r\nhost: a\r\n\r\n")
        await server.noted(key, "waiting")
    await server.noted(key, DISCONNECT)
    assert (await server.get("/plain")).body == b"plain"


@unlike_uvicorn("it stops reading while a request waits")
@pytest.mark.parametrize(
    "more",
    [b"\n", b"GET /plain HTTP/1.1\r\nhost: a\r\n\r\n", b"GET /plain HTTP/1.1\r\nhost: a\r\n\r\n" * 5000],
    ids=["a byte", "a request", "requests"],
)
async def test_reset_behind_more_than_a_request(server: Server, key: str, more: bytes) -> None:
    """It is seen although nothing is read any more."""
    connection = await Http1Connection.open(server.port)
    await connection.write(b"GET /awaits_receive?%s HTTP/1.1\r\nhost: a\r\n\r\n" % key.encode() + more)
    await server.noted(key, "waiting")
    await connection.abort()
    await server.noted(key, DISCONNECT)


async def blocks(scope: Scope, receive: Receive, send: Send) -> None:
    """Blocks the event loop, as bad code does, until the gate opens."""
    note(scope, "blocking")
    await start(send)
    await body(send, b"about to block", more=True)
    await asyncio.sleep(0)
    while not os.path.exists(gate(scope)):
        time.sleep(0.01)
    await body(send)


async def notes_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    """What comes of a client that has left may hide the request it sent before."""
    note(scope, "waiting")
    while (message := await receive())["type"] == "http.request":
        pass
    note(scope, message)


async def test_clients_that_came_and_left_while_the_loop_was_blocked(
    server: Server, connect: Connect, leave: Leave, key: str, tmp_path: Any
) -> None:
    path = tmp_path / "gate"
    blocking = await (await connect(server)).start("GET", "/blocks", headers=[(b"x-gate", str(path).encode())])
    await blocking.head()
    assert await blocking.chunk() == b"about to block"
    staying = [await (await connect(server)).start("GET", "/plain") for _ in range(5)]
    for _ in range(10):
        connection = await connect(server)
        exchange = await connection.start("GET", f"/notes_the_end?{key}")
        await leave(connection, exchange)
    path.touch()
    assert await blocking.rest() == b""
    assert [(await exchange.response()).body for exchange in staying] == [b"plain"] * 5

    async def all_told() -> bool:
        # Those whose request had not been read when they left need not reach the application.
        noted = await server.notes(key)
        return noted.count(DISCONNECT) == noted.count("waiting")

    await eventually(all_told)
    assert "Traceback" not in server.fresh_log


async def tasks(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, len(asyncio.all_tasks()))


async def every_point(scope: Scope, receive: Receive, send: Send) -> None:
    """Has an await wherever one may be."""
    await asyncio.sleep(0)
    message = await receive()
    while message["type"] == "http.request" and message["more_body"]:
        await asyncio.sleep(0)
        message = await receive()
    await asyncio.sleep(0)
    await start(send)
    for _ in range(20):
        await asyncio.sleep(0)
        await body(send, b"x" * 100, more=True)
    await body(send)
    await receive()


async def test_clients_that_leave_at_any_point_leave_no_task(server: Server, connect: Connect, leave: Leave) -> None:
    """Leaves after each number of turns of this test's loop, so before and at every await."""
    before: int = (await server.get("/tasks")).json()
    for turns in range(60):
        connection = await connect(server)
        exchange = await connection.start("POST", "/every_point", upload=True)
        try:
            for turn in range(turns):
                if turn == 5:
                    await exchange.send(b"x" * 1000)
                elif turn == 10:
                    await exchange.send(b"", end=True)
                await asyncio.sleep(0)
            await leave(connection, exchange)
        except (ConnectionError, ResponseCut):
            pass

    async def none_left() -> bool:
        left: int = (await server.get("/tasks")).json()
        return left <= before

    await eventually(none_left)
    assert "Traceback" not in server.fresh_log
    assert (await server.get("/plain")).body == b"plain"


app = routes(
    awaits_receive,
    awaits_body,
    awaits_first_receive,
    idle_stream,
    two_wait,
    busy_elsewhere,
    unread_body,
    streams,
    blocked_in_send,
    first_send_late,
    does_not_care,
    returns_quietly,
    raises_its_own,
    raises_in_a_circle,
    plain,
    waits,
    blocks,
    notes_the_end,
    tasks,
    every_point,
)
