"""The load of the other tests: good servers pass it, and whatever can go wrong with an exchange is counted as that."""

import asyncio
import contextlib
import signal
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from py_tests.harness.certificates import Pair
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.load import (
    CLIENTS,
    CUT,
    HTTP2,
    IDLE_CLOSED,
    KEEP_ALIVE,
    PACED,
    REFUSED,
    RESET,
    SHORT,
    TIMED_OUT,
    TOLD_1012,
    TOLD_CLOSE,
    TOLD_GOAWAY,
    WEBSOCKET,
    WRONG,
    Load,
)
from py_tests.harness.load_app import app as load_app
from py_tests.harness.load_app import body_of
from py_tests.harness.load_links import CONNECTIONS, UNPROCESSED
from py_tests.harness.serving import Serve, Server, of_envoy, unlike_uvicorn
from py_tests.harness.ws_client import ACCEPT

pytestmark = unlike_uvicorn("it has no HTTP/2")

NOBODY: dict[str, Any] = {"short": 0, "slow": 0, "keep_alive": 0, "paced": 0, "http2": 0, "websockets": 0}


# --- A real server ---


def worker(server: Server) -> int:
    """The process that the application of a server is in."""
    *_, envoy = server.processes()
    return envoy.pid


async def test_clients_of_each_kind_are_answered(serve: Serve) -> None:
    server = serve(load_app)
    async with Load(server.port) as load:
        await load.more(20)
    assert not load.failures, load.report()
    assert set(load.answered) == set(CLIENTS)
    assert set(load.served) == {worker(server)}
    assert set(load.slowest) == set(CLIENTS)
    assert set(load.counts) <= {CONNECTIONS}


@of_envoy("it has no TLS")
async def test_load_under_tls(serve: Serve, pair: Pair) -> None:
    server = serve(load_app, **pair.options)
    async with Load(server.ssl_port, tls=True) as load:
        await load.more(20)
    assert not load.failures, load.report()


async def test_load_on_a_unix_socket(serve: Serve) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "load.sock")
        serve(load_app, uds=path, port=None)
        async with Load(path) as load:
            await load.more(20)
    assert not load.failures, load.report()


async def test_killed_server_fails_its_clients(serve: Serve) -> None:
    server = serve(load_app)
    async with Load(server.port) as load:
        await load.more(20)
        # All of it, and nobody has the time to say goodbye: a worker whose launcher is dead would.
        launcher, *workers = server.processes()
        launcher.suspend()
        for process in [*workers, launcher]:
            process.kill()
        killed = time.monotonic()
        await server.exit_code()
        # Who had a connection lost it, and who comes later is refused.
        await eventually(lambda: {client for client, kind in load.failures if kind == REFUSED} == set(CLIENTS))
    lost = [failure for failure in load.failed if failure.kind != REFUSED]
    assert {failure.kind for failure in lost} <= {RESET, CUT}, load.report()
    assert WEBSOCKET in {failure.client for failure in lost}, load.report()
    assert all(failure.connected > killed for failure in load.failed if failure.kind == REFUSED), load.report()


async def test_server_that_stops_tells_its_clients_to_move(serve: Serve) -> None:
    server = serve(load_app)
    async with Load(server.port) as load:
        await load.more(20)
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
        await eventually(lambda: {client for client, kind in load.failures if kind == REFUSED} == set(CLIENTS))
    assert {TOLD_CLOSE, TOLD_GOAWAY, TOLD_1012} <= set(load.counts), load.report()
    assert not load.lost_at_stop(), load.report()


# --- Servers that go wrong ---

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n"


def answer(pid: int = 1, more: bytes = b"") -> bytes:
    body = body_of(pid)
    return HEAD % (len(body), more) + body


def abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def misbehaving(behave: Behaviour) -> AsyncIterator[int]:
    """A server that treats each connection in the same way, and then closes it; gives its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await behave(reader, writer)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def counted(behave: Behaviour, kind: str, result: Callable[[Load], bool], **clients: int) -> Load:
    """A client at such a server, until `result` of its load is true."""
    patience = 1.0 if kind == TIMED_OUT else DEADLINE
    async with misbehaving(behave) as port, Load(port, **{**NOBODY, **clients}, patience=patience) as load:
        try:
            await eventually(lambda: result(load))
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{load.report()}") from None
    if kind:
        assert {kind for _, kind in load.failures} == {kind}, load.report()
    else:
        assert not load.failures, load.report()
    return load


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    abort(writer)


async def resets_amid(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(answer()[:-1])
    await writer.drain()
    abort(writer)


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def cuts_the_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(answer()[:-1])


async def is_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def answers_503(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")


async def answers_something_else(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(answer().replace(b"much", b"fine"))


async def answers_too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(answer() + b"and more")


@pytest.mark.parametrize(
    ("behave", "kind"),
    [
        (resets, RESET),
        (resets_amid, RESET),
        (says_nothing, CUT),
        (cuts_the_answer, CUT),
        (is_silent, TIMED_OUT),
        (answers_503, WRONG),
        (answers_something_else, WRONG),
        (answers_too_much, WRONG),
    ],
)
@pytest.mark.parametrize("client", ["short", "slow", "keep_alive", "paced"])
async def test_failed_request_is_counted(behave: Behaviour, kind: str, client: str) -> None:
    load = await counted(behave, kind, lambda load: bool(load.failed), **{client: 1})
    assert not load.answered
    assert "asked" in load.report()


async def test_refused_connection_is_counted(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with Load(bound.getsockname()[1]) as load:
            await eventually(lambda: len(load.failures) == len(CLIENTS))
    assert set(load.failures) == {(client, REFUSED) for client in CLIENTS}
    async with Load(tmp_path / "nothing", **{**NOBODY, "short": 1}) as load:
        await eventually(lambda: load.failed)
    assert set(load.failures) == {(SHORT, REFUSED)}


async def test_connection_that_changes_its_process_is_counted() -> None:
    async def changes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for pid in [1, 2]:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(pid))

    load = await counted(changes, WRONG, lambda load: bool(load.failed), keep_alive=1)
    assert load.failed[0].pid == 1


# --- Servers that let their clients go ---


async def test_connection_that_ends_while_idle_is_no_failure() -> None:
    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())

    load = await counted(closes, "", lambda load: load.counts[IDLE_CLOSED] > 3, paced=1)
    assert load.answered[PACED] >= load.counts[IDLE_CLOSED]


async def test_connection_that_is_reset_while_idle_is_a_failure() -> None:
    async def answers_and_resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())
        await asyncio.sleep(0.01)  # for the client to read it: a reset throws away what is unread
        abort(writer)

    await counted(answers_and_resets, RESET, lambda load: len(load.failed) > 1, paced=1)


async def test_answer_that_says_close_moves_the_client() -> None:
    async def says_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(more=b"connection: close\r\n"))

    load = await counted(says_close, "", lambda load: load.counts[TOLD_CLOSE] > 3, keep_alive=1)
    assert load.answered[KEEP_ALIVE] == load.counts[TOLD_CLOSE] == load.counts[CONNECTIONS]


# --- HTTP/2 ---


def http2(*, answered: int, goaway: int | None, error: int = 0, resets: bool = False) -> Behaviour:
    """A server that answers the first `answered` requests of a connection, and says in a GOAWAY up to which stream it
    will; then it is gone."""

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        asked: list[int] = []
        while len(asked) < 4:
            if not (data := await reader.read(65536)):
                return
            asked += [
                event.stream_id
                for event in connection.receive_data(data)
                if isinstance(event, h2.events.RequestReceived) and event.stream_id is not None
            ]
        if goaway is not None:
            frame = struct.pack(">HBBBLLL", 0, 8, 7, 0, 0, goaway, error)
            writer.write(connection.data_to_send() + frame)
        for stream_id in asked[:answered]:
            connection.send_headers(stream_id, [(":status", "200")])
            connection.send_data(stream_id, body_of(1), end_stream=True)
        if resets:
            connection.reset_stream(asked[-1])
        writer.write(connection.data_to_send())

    return serves


@pytest.mark.parametrize(
    ("behave", "answered", "unprocessed"),
    [
        (http2(answered=4, goaway=2**31 - 1), 4, 0),
        (http2(answered=4, goaway=7), 4, 0),
        (http2(answered=2, goaway=3), 2, 2),
        (http2(answered=0, goaway=0), 0, 4),
    ],
)
async def test_goaway_moves_the_client(behave: Behaviour, answered: int, unprocessed: int) -> None:
    load = await counted(behave, "", lambda load: load.counts[TOLD_GOAWAY] > 2, http2=1)
    connections = load.counts[CONNECTIONS]
    assert load.counts[TOLD_GOAWAY] == connections
    assert load.answered[HTTP2] == answered * connections
    assert load.counts[UNPROCESSED] == unprocessed * connections


@pytest.mark.parametrize(
    ("behave", "kind", "failed"),
    [
        (http2(answered=2, goaway=None), CUT, 2),
        (http2(answered=2, goaway=2**31 - 1), CUT, 2),
        (http2(answered=2, goaway=5), CUT, 1),
        (http2(answered=3, goaway=None, resets=True), RESET, 1),
        (http2(answered=4, goaway=7, error=11), WRONG, 4),
    ],
)
async def test_stream_without_an_answer_that_was_due_is_counted(behave: Behaviour, kind: str, failed: int) -> None:
    load = await counted(behave, kind, lambda load: bool(load.failed), http2=1)
    connections = Counter(failure.connected for failure in load.failed)
    assert set(connections.values()) == {failed}, load.report()


async def test_http2_connection_that_ends_while_idle_is_no_failure() -> None:
    behave = http2(answered=4, goaway=None)
    await counted(behave, "", lambda load: load.counts[IDLE_CLOSED] > 2, http2=1)


# --- WebSockets ---


def websocket(*frames: bytes, status: bytes = b"101 Switching Protocols") -> Behaviour:
    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 %s\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: %s\r\n\r\n"
            % (status, ACCEPT)
        )
        writer.write(b"".join(frames))
        writer.write_eof()
        # A client that is told to go says goodbye; else the message that it has sent is read, so as not to reset it.
        await reader.read(100)

    return serves


PID = b"\x81\x011"


@pytest.mark.parametrize(
    ("behave", "kind"),
    [
        (websocket(PID), CUT),
        (websocket(PID, b"\x88\x02" + (1000).to_bytes(2)), WRONG),
        (websocket(PID, b"\x88\x02" + (1006).to_bytes(2)), WRONG),
        (websocket(PID, b"\x81\x05other"), WRONG),
        (websocket(), CUT),
        (websocket(status=b"503 Service Unavailable"), WRONG),
    ],
)
async def test_websocket_that_ends_unasked_is_counted(behave: Behaviour, kind: str) -> None:
    load = await counted(behave, kind, lambda load: bool(load.failed), websockets=1)
    assert set(load.failures) == {(WEBSOCKET, kind)}


async def test_websocket_that_is_closed_with_1012_moves_the_client() -> None:
    behave = websocket(PID, b"\x88\x02" + (1012).to_bytes(2))
    load = await counted(behave, "", lambda load: load.counts[TOLD_1012] > 2, websockets=1)
    assert load.counts[TOLD_1012] == load.counts[CONNECTIONS]
