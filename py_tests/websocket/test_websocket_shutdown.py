"""The end of a server that has WebSockets: each is told, and none can hold the server up."""

import asyncio
import contextlib
import signal
import sys
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, file_exists, gate, note, routes
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import GOOD_ENDS, Serve, Server, unlike_uvicorn
from py_tests.harness.ws_apps import CONNECT, accept, disconnect, echo, say
from py_tests.harness.ws_client import CLOSE, Refused, WebSocket, answered, begin, close_frame, dial

conforms = pytest.mark.conforms
pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)

GRACE = 3
"""Seconds in which clients and applications that may be held up do their part, and that the tests wait for."""


def tell(*words: Any) -> None:
    """Writes a line to the server's log, in one piece: the launcher writes there, too."""
    sys.stderr.write(" ".join(map(str, words)) + "\n")
    sys.stderr.flush()


@pytest.fixture
def server(serve: Serve) -> Server:
    """Each test ends its own."""
    return serve(f"{__name__}:app")


async def gone_away(socket: WebSocket, code: int = 1012) -> None:
    """The closing handshake, as a client does it."""
    while (got := await socket.frame()).opcode is not CLOSE:
        pass
    assert got.payload[0] == code
    await socket.write(close_frame(code))
    await socket.ended()


async def tells_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await say(send, "open")
    tell("told:", await receive())
    try:
        await say(send, "late")
    except OSError:
        tell("OSError")
    await asyncio.sleep(0.1)
    tell("cleaned up")


@conforms("websocket.shutdown")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_open_websockets_are_told_1012(server: Server, connect: Connect, number: signal.Signals) -> None:
    connections = [await connect(server) for _ in range(3)]
    sockets = [await dial(connection, "/tells_the_end") for connection in connections]
    for socket in sockets:
        assert await socket.receive() == "open"
    server.signal(number)
    for socket in sockets:
        await gone_away(socket)
    assert await server.exit_code() in GOOD_ENDS[server.kind]
    for words in [f"told: {disconnect(1012)}", "OSError", "cleaned up"]:
        assert server.log.count(words) == 3
    assert "Traceback" not in server.log


async def test_client_that_does_not_answer_does_not_hold_the_server_up(serve: Serve, connect: Connect) -> None:
    server = serve(f"{__name__}:app", timeout_graceful_shutdown=GRACE)
    socket = await dial(await connect(server), "/tells_the_end")
    assert await socket.receive() == "open"
    server.signal(signal.SIGTERM)
    assert (await socket.closed())[0] == 1012
    assert await server.exit_code() in GOOD_ENDS[server.kind]
    assert "cleaned up" in server.log


async def ignores(scope: Scope, receive: Receive, send: Send) -> None:
    """Does not care what it is told."""
    await accept(receive, send)
    note(scope, "open")
    try:
        await asyncio.Event().wait()
    finally:
        tell("ended by force")


async def test_application_that_does_not_listen_is_cancelled(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(f"{__name__}:app", timeout_graceful_shutdown=GRACE)
    socket = await dial(await connect(server), f"/ignores?{key}")
    await server.noted(key, "open")
    server.signal(signal.SIGTERM)
    await gone_away(socket)
    assert await server.exit_code() in GOOD_ENDS[server.kind]
    assert server.log.count("ended by force") == 1


async def sends_without_end(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    note(scope, "open")
    with contextlib.suppress(OSError):
        while True:
            await say(send, "x" * 10_000)
            await asyncio.sleep(0)
    tell("stopped sending")


@pytest.mark.parametrize("reads", [True, False])
async def test_application_that_sends_is_told_by_its_send(
    serve: Serve, connect: Connect, key: str, reads: bool
) -> None:
    server = serve(f"{__name__}:app", timeout_graceful_shutdown=20 if reads else GRACE)
    socket = await dial(await connect(server), f"/sends_without_end?{key}")
    await server.noted(key, "open")
    server.signal(signal.SIGTERM)
    if reads:
        await gone_away(socket)
    assert await server.exit_code() in GOOD_ENDS[server.kind]
    assert server.log.count("stopped sending") == 1
    assert "Traceback" not in server.log


async def hesitates(scope: Scope, receive: Receive, send: Send) -> None:
    """Has not accepted when the server is told to stop."""
    note(scope, await receive())
    tell("told:", await receive())
    try:
        await send({"type": "websocket.accept"})
    except OSError:
        tell("OSError")
        raise


async def test_pending_handshake_is_503(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    exchange = await begin(connection, f"/hesitates?{key}")
    await server.noted(key, CONNECT)
    server.signal(signal.SIGTERM)
    with pytest.raises(Refused) as refused:
        await answered(connection, exchange)
    assert refused.value.response.status == 503
    assert await server.exit_code() in GOOD_ENDS[server.kind]
    assert "told: " in server.log
    assert "OSError" in server.log
    assert "Traceback" not in server.log


async def accepts_slowly(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, await receive())
    await file_exists(gate(scope))
    await send({"type": "websocket.accept"})
    note(scope, await receive())


@unlike_uvicorn("its workers are not replaced so")
async def test_pending_handshake_is_finished_by_a_worker_that_is_replaced(
    serve: Serve, connect: Connect, key: str, tmp_path: Any
) -> None:
    """The client has come to a server that goes on. It is told to come again, as all who are there are."""
    server = serve(f"{__name__}:app", workers=1)
    before = await dial(await connect(server), "/tells_the_end")
    assert await before.receive() == "open"
    path = tmp_path / "gate"
    connection = await connect(server)
    exchange = await begin(connection, f"/accepts_slowly?{key}", [(b"x-gate", str(path).encode())])
    await server.noted(key, CONNECT)
    server.process.send_signal(signal.SIGHUP)
    await gone_away(before)
    path.touch()
    await gone_away(await answered(connection, exchange))
    await eventually(lambda: "retired, exited with status 0" in server.log)
    assert "Traceback" not in server.log


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


@unlike_uvicorn("its workers are not replaced so")
async def test_handshake_that_comes_to_a_worker_that_is_replaced_is_finished(serve: Serve, connect: Connect) -> None:
    """Its client has the connection from before, which is idle until another worker has started."""
    server = serve(f"{__name__}:app", workers=1, timeout_keep_alive=3 * DEADLINE)
    before = await dial(await connect(server), "/tells_the_end")
    assert await before.receive() == "open"
    connection = await connect(server)
    assert (await connection.get("/plain")).body == b"plain"
    server.process.send_signal(signal.SIGHUP)
    await gone_away(before)
    await gone_away(await dial(connection, "/echo"))
    for one in (before.connection, connection):
        await one.close()
    await eventually(lambda: "retired, exited with status 0" in server.log)
    assert "Traceback" not in server.log


async def denies_slowly(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.http.response.start", "status": 401})
    await send({"type": "websocket.http.response.body", "body": b"first,", "more_body": True})
    await file_exists(gate(scope))
    await send({"type": "websocket.http.response.body", "body": b"last"})


async def test_denial_that_has_begun_is_finished(server: Server, connect: Connect, tmp_path: Any) -> None:
    path = tmp_path / "gate"
    exchange = await begin(await connect(server), "/denies_slowly", [(b"x-gate", str(path).encode())])
    assert await exchange.head() == 401
    assert await exchange.chunk() == b"first,"
    server.signal(signal.SIGTERM)
    await eventually(lambda: "stopping" in server.log)
    path.touch()
    assert await exchange.rest() == b"last"
    assert await server.exit_code() in GOOD_ENDS[server.kind]


@pytest.mark.protocols(HTTP2, HTTP3)
async def test_handshake_after_the_signal_finds_nobody(serve: Serve, connect: Connect) -> None:
    """On a connection that is still there, since the other WebSocket's client takes its time."""
    server = serve(f"{__name__}:app", timeout_graceful_shutdown=GRACE)
    connection = await connect(server)
    socket = await dial(connection, "/tells_the_end")
    assert await socket.receive() == "open"
    server.signal(signal.SIGTERM)
    assert (await socket.closed())[0] == 1012
    with pytest.raises((Refused, ResponseCut, ConnectionError)):
        await dial(connection, "/tells_the_end")
    assert await server.exit_code() in GOOD_ENDS[server.kind]
    assert server.log.count("told: ") == 1


async def test_client_that_vanishes_then_is_not_waited_for(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/tells_the_end")
    assert await socket.receive() == "open"
    server.signal(signal.SIGTERM)
    assert (await socket.closed())[0] == 1012
    await socket.connection.abort()
    assert await server.exit_code() in GOOD_ENDS[server.kind]
    assert "cleaned up" in server.log


@pytest.mark.protocols(HTTP1)
@unlike_uvicorn("its limit is another one")
async def test_many_websockets_at_the_end(server: Server, connect: Connect) -> None:
    """Some of whose clients answer, some don't, some vanish."""
    sockets = [await dial(await Http1Connection.open(server.port), "/echo") for _ in range(300)]
    server.signal(signal.SIGTERM)
    for number, socket in enumerate(sockets):
        if number % 3 == 0:
            await gone_away(socket)
        elif number % 3 == 1:
            await socket.connection.abort()
        else:
            assert (await socket.closed())[0] == 1012
    for socket in sockets:
        await socket.connection.close()
    assert await server.exit_code() in GOOD_ENDS[server.kind]
    assert "Traceback" not in server.log


app = routes(accepts_slowly, denies_slowly, echo, hesitates, ignores, plain, sends_without_end, tells_the_end)
