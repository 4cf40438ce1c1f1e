"""The end of a server: requests in flight finish, new ones are refused, lifespan shuts down last."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiovoy.embedded import stacks
from py_tests.harness.apps import Receive, Scope, Send, answer, body, file_exists, gate, note, read, routes, start
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import Connection, Exchange, ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.http3 import Http3Connection
from py_tests.harness.processes import runs
from py_tests.harness.protocols import HTTP2, HTTP3, Connect, http3_too
from py_tests.harness.serving import (
    AIOVOY,
    BANNER,
    ENVOY,
    FRONT,
    RESPONSE_PATH,
    ROUTER,
    UNDER_TEST,
    UVICORN,
    Serve,
    Server,
    clean_environment,
    command,
    serve,
    unlike_uvicorn,
)

MEGABYTE = 1024 * 1024

GRACEFUL = {signal.SIGTERM: {0}, signal.SIGINT: {0}}
if UNDER_TEST == UVICORN:
    GRACEFUL = {signal.SIGTERM: {-signal.SIGTERM}, signal.SIGINT: {0, -signal.SIGINT}}

counts = {"started": 0, "finished": 0}


def say(*words: Any) -> None:
    """Writes to the server's log."""
    print(*words, file=sys.stderr, flush=True)


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers when the test opens the gate."""
    await read(receive)
    note(scope, "in flight")
    await file_exists(gate(scope))
    await answer(send, b"answered")
    say("request finished")


async def streams_gated(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"first", more=True)
    note(scope, "in flight")
    await file_exists(gate(scope))
    for number in range(100):
        await body(send, b",%d" % number, more=True)
    await body(send)
    say("request finished")


async def reads_gated(scope: Scope, receive: Receive, send: Send) -> None:
    """Is still receiving its body when the server is told to stop."""
    message = await receive()
    note(scope, "in flight")
    size = len(message["body"])
    while message["more_body"]:
        message = await receive()
        size += len(message["body"])
    await answer(send, size)
    say("request finished")


async def sends_much(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "in flight")
    await answer(send, b"x" * (20 * MEGABYTE))
    say("request finished")


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """A request of the load test; its length is that of the test, too."""
    counts["started"] += 1
    await read(receive)
    await asyncio.sleep(2)
    await answer(send, b"slow")
    counts["finished"] += 1


async def lifespan_says(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("lifespan shutdown;", counts)
    await send({"type": "lifespan.shutdown.complete"})


http = routes(gated, streams_gated, reads_gated, sends_much, plain, slow)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await (lifespan_says if scope["type"] == "lifespan" else http)(scope, receive, send)


@pytest.fixture
def server(serve: Serve) -> Server:
    """Each test ends its own."""
    return serve(app)


class InFlight:
    """A request that the application has begun and will finish when the gate opens."""

    def __init__(self, exchange: Exchange, path: Path) -> None:
        self.exchange = exchange
        self.path = path

    async def finish(self) -> bytes:
        self.path.touch()
        return (await self.exchange.response()).body


async def begin(server: Server, connection: Connection, key: str, tmp_path: Path, path: str = "/gated") -> InFlight:
    file = tmp_path / key
    headers = [(b"x-gate", str(file).encode())]
    exchange = await connection.start("GET", f"{path}?{key}", headers=headers)
    await server.noted(key, "in flight")
    return InFlight(exchange, file)


async def no_longer_listening(server: Server) -> None:
    async def refused() -> bool:
        try:
            connection = await Http1Connection.open(server.port)
        except ConnectionError:
            return True
        await connection.close()
        return False

    await eventually(refused)


# --- The order of things ---


@pytest.mark.conforms("lifespan.shutdown")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_request_in_flight_finishes_while_new_connections_are_refused(
    server: Server, connect: Connect, key: str, tmp_path: Path, number: signal.Signals
) -> None:
    in_flight = await begin(server, await connect(server), key, tmp_path)
    server.signal(number)
    await no_longer_listening(server)
    assert server.process.poll() is None
    assert "lifespan shutdown" not in server.log
    assert await in_flight.finish() == b"answered"
    assert await server.exit_code() in GRACEFUL[number]
    lines = server.log.splitlines()
    shutdown = [line for line in lines if line.startswith("lifespan shutdown")]
    assert len(shutdown) == 1
    assert lines.index("request finished") < lines.index(shutdown[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_server_ends_at_once(server: Server, number: signal.Signals) -> None:
    assert (await server.get("/plain")).status == 200
    server.signal(number)
    # Well below the graceful time-out of 30 s, which is for requests in flight.
    assert await server.exit_code(within=15) in GRACEFUL[number]
    assert server.log.count("lifespan shutdown") == 1
    assert "Traceback" not in server.log


async def test_ctrl_c_reaches_all_processes_and_is_as_graceful(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    """A terminal sends SIGINT to its whole process group."""
    in_flight = await begin(server, await connect(server), key, tmp_path)
    os.killpg(server.pid, signal.SIGINT)
    await no_longer_listening(server)
    assert await in_flight.finish() == b"answered"
    assert await server.exit_code() in GRACEFUL[signal.SIGINT]
    assert server.log.count("lifespan shutdown") == 1


# --- No request is lost ---


@http3_too
async def test_streamed_response_in_flight_completes(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    connection = await connect(server)
    in_flight = await begin(server, connection, key, tmp_path, "/streams_gated")
    server.signal(signal.SIGTERM)
    await no_longer_listening(server)
    expected = b"first" + b"".join(b",%d" % number for number in range(100))
    assert await in_flight.finish() == expected
    assert await server.exit_code() in GRACEFUL[signal.SIGTERM]


@http3_too
async def test_request_body_in_flight_arrives(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("POST", f"/reads_gated?{key}", upload=True)
    await exchange.send(b"x" * 1000)
    await server.noted(key, "in flight")
    server.signal(signal.SIGTERM)
    await no_longer_listening(server)
    await exchange.send(b"x" * (5 * MEGABYTE), end=True)
    assert (await exchange.response()).json() == 1000 + 5 * MEGABYTE
    assert await server.exit_code() in GRACEFUL[signal.SIGTERM]


async def test_large_response_reaches_a_slow_reader(server: Server, connect: Connect, key: str) -> None:
    exchange = await (await connect(server)).start("GET", f"/sends_much?{key}")
    assert await exchange.head() == 200
    await server.noted(key, "in flight")
    server.signal(signal.SIGTERM)
    await no_longer_listening(server)
    assert len(await exchange.rest()) == 20 * MEGABYTE
    assert await server.exit_code() in GRACEFUL[signal.SIGTERM]


async def test_many_requests_in_flight_are_all_answered(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    connections = [await connect(server) for _ in range(50)]
    requests = [
        await begin(server, connection, f"{key}{number}", tmp_path) for number, connection in enumerate(connections)
    ]
    server.signal(signal.SIGTERM)
    await no_longer_listening(server)
    assert [await request.finish() for request in requests] == [b"answered"] * 50
    assert await server.exit_code() in GRACEFUL[signal.SIGTERM]


async def test_every_accepted_request_under_load_is_answered(server: Server, connect: Connect) -> None:
    """Clients ask without a pause before, while and after the server is told to stop."""
    answered = 0
    several = asyncio.Event()

    async def client() -> None:
        nonlocal answered
        try:
            connection = await connect(server)
            while True:
                response = await connection.get("/slow")
                assert response.body == b"slow"
                answered += 1
                if answered > 50:
                    several.set()
                if response.header(b"connection") == b"close":
                    connection = await connect(server)
        except (ConnectionError, ResponseCut):
            # Refused, or closed before the request was accepted: the counts tell.
            return

    async def staggered(number: int) -> None:
        await asyncio.sleep(number * 0.02)
        await client()

    clients = [asyncio.create_task(staggered(number)) for number in range(64)]
    await asyncio.wait_for(several.wait(), 30)
    server.signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    assert await server.exit_code() in GRACEFUL[signal.SIGTERM]
    expected = {"started": answered, "finished": answered}
    assert f"lifespan shutdown; {expected}" in server.log


# --- Connections that stay open ---


@http3_too
async def test_response_in_flight_closes_its_connection(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    connection = await connect(server)
    in_flight = await begin(server, connection, key, tmp_path)
    server.signal(signal.SIGTERM)
    await no_longer_listening(server)
    in_flight.path.touch()
    response = await in_flight.exchange.response()
    assert response.body == b"answered"
    if isinstance(connection, Http2Connection | Http3Connection):
        assert connection.going_away.is_set()
    else:
        assert response.header(b"connection") == b"close"
    await connection.ended()


@http3_too
async def test_idle_connection_does_not_hold_the_end_up(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.get("/plain")).body == b"plain"
    server.signal(signal.SIGTERM)
    assert await server.exit_code(within=15) in GRACEFUL[signal.SIGTERM]
    await connection.ended()


async def test_connection_that_never_asked_does_not_hold_the_end_up(server: Server) -> None:
    async with await Http1Connection.open(server.port) as silent:
        await server.get("/plain")
        server.signal(signal.SIGTERM)
        assert await server.exit_code(within=15) in GRACEFUL[signal.SIGTERM]
        await silent.ended()


async def test_request_on_an_open_connection_is_answered_while_others_finish(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    connection = await connect(server)
    in_flight = await begin(server, await connect(server), key, tmp_path)
    assert (await connection.get("/plain")).body == b"plain"
    server.signal(signal.SIGTERM)
    await no_longer_listening(server)
    # Closing the idle connection is the other right thing to do.
    with contextlib.suppress(ConnectionError, ResponseCut):
        assert (await connection.get("/plain")).body == b"plain"
    assert await in_flight.finish() == b"answered"
    assert await server.exit_code() in GRACEFUL[signal.SIGTERM]


@unlike_uvicorn("uvicorn has no HTTP/2")
async def test_new_stream_of_a_connection_in_use_is_answered(server: Server, key: str, tmp_path: Path) -> None:
    async with await Http2Connection.open(server.port) as connection:
        in_flight = await begin(server, connection, key, tmp_path)
        server.signal(signal.SIGTERM)
        await no_longer_listening(server)
        if not connection.going_away.is_set():
            assert (await connection.get("/plain")).body == b"plain"
        assert connection.going_away.is_set()
        assert await in_flight.finish() == b"answered"
        await connection.ended()


gates: list[str] = []


async def shuts_down_gated(scope: Scope, receive: Receive, send: Send) -> None:
    """Its shutdown lasts until the gate opens that the first request has named."""
    if scope["type"] == "http":
        say("request begun")
        gates.append(gate(scope))
        await answer(send, b"answered")
    else:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("lifespan shutdown")
        await file_exists(gates[0])
        await send({"type": "lifespan.shutdown.complete"})


@http3_too
async def test_request_that_comes_to_an_application_which_shuts_down_is_turned_back(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    """HTTP/1: as if its connection had ended before. A client of HTTP/2 or 3 learns that nothing has come of it."""
    server = serve(shuts_down_gated)
    connection, path = await connect(server), tmp_path / "gate"
    assert (await connection.get("/", headers=[(b"x-gate", str(path).encode())])).body == b"answered"
    server.signal(signal.SIGTERM)
    await eventually(lambda: "lifespan shutdown" in server.log)
    if RESPONSE_PATH == ROUTER or (FRONT, connection.protocol) == (ENVOY, HTTP2):
        assert (await connection.get("/")).status == 503
        await connection.ended()
    else:
        with pytest.raises((ConnectionError, ResponseCut)) as raised:
            await connection.get("/")
        if connection.protocol == HTTP3:
            assert "RESET_STREAM, code 0x10b" in str(raised.value)
        if connection.protocol == HTTP2:
            assert "RST_STREAM, code 7" in str(raised.value)  # REFUSED_STREAM
    path.touch()
    assert await server.exit_code() in GRACEFUL[signal.SIGTERM]
    assert server.log.count("request begun") == 1


# --- Limits ---


async def test_graceful_time_out_ends_what_does_not_finish(connect: Connect, key: str, tmp_path: Path) -> None:
    with serve(app, timeout_graceful_shutdown=1) as server:
        in_flight = await begin(server, await connect(server), key, tmp_path)
        server.signal(signal.SIGTERM)
        # Cut, or answered with an error: the application did not answer.
        with contextlib.suppress(ResponseCut):
            assert (await in_flight.exchange.response()).status >= 500
        assert await server.exit_code(within=15) in GRACEFUL[signal.SIGTERM]
        assert server.log.count("lifespan shutdown") == 1
        assert not server.processes()


@unlike_uvicorn("its second SIGTERM does not count")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_ends_at_once(
    server: Server, connect: Connect, key: str, tmp_path: Path, number: signal.Signals
) -> None:
    in_flight = await begin(server, await connect(server), key, tmp_path)
    processes = server.processes()
    server.signal(number)
    await no_longer_listening(server)
    # One that comes before counts as an echo of the first.
    await eventually(lambda: "stopping" in server.log)
    server.signal(number)
    # Within a fraction of the graceful time-out of 30 s.
    assert await server.exit_code(within=10) != 0
    with pytest.raises(ResponseCut):
        await in_flight.exchange.response()
    await eventually(lambda: not any(process.is_running() for process in processes))


@unlike_uvicorn("its second SIGINT counts, however soon it comes")
@pytest.mark.parametrize("workers", [1, 2])
async def test_echo_of_a_signal_is_not_a_second_one(
    serve: Serve, connect: Connect, key: str, tmp_path: Path, workers: int
) -> None:
    """All have them at once, as from a wrapper that sends its group what the whole group has been sent."""
    options = {} if workers == 1 else {"workers": workers}
    server = serve(app, **options)
    in_flight = await begin(server, await connect(server), key, tmp_path)
    server.told_to_stop = True
    for number in [signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT]:
        for process in server.processes():
            process.send_signal(number)
    await no_longer_listening(server)
    assert await in_flight.finish() == b"answered"
    assert await server.exit_code() == 0


# --- Processes ---


@unlike_uvicorn("it is one process")
async def test_worker_ends_when_its_supervisor_is_killed(serve: Serve) -> None:
    server = serve(app, workers=1)
    supervisor, *children = server.processes()
    assert children
    supervisor.kill()
    await server.exit_code()
    await eventually(lambda: not any(runs(child) for child in children))
    await no_longer_listening(server)


@contextlib.contextmanager
def in_a_terminal(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that has a terminal of its own, and the terminal's other end."""
    terminal, stdin = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, which would be inherited

    log = folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command(app), env=clean_environment(), stdin=stdin, stderr=stderr, preexec_fn=take_terminal
        )
    os.close(stdin)
    try:
        end = time.monotonic() + DEADLINE
        while not BANNER.search(log.read_text()):
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.01)
        yield process, terminal
    finally:
        process.kill()
        process.wait()


@unlike_uvicorn("it is one process")
async def test_nothing_is_left_when_the_terminal_goes_away(tmp_path: Path) -> None:
    with in_a_terminal(tmp_path) as (process, terminal):
        processes = psutil.Process(process.pid).children()
        os.close(terminal)
        await eventually(lambda: process.poll() is not None)
        assert process.returncode == 0
        await eventually(lambda: not any(runs(process) for process in processes))


@unlike_uvicorn("these end it")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, stacks.SIGNAL])
async def test_other_signals_do_not_end_the_server(serve: Serve, tmp_path: Path, number: int) -> None:
    server = serve(app)
    with in_a_terminal(tmp_path) as (process, terminal):
        for pid in [server.pid, process.pid]:
            # The first is the leader of its group, in which its Envoy is.
            os.killpg(pid, number)
            assert (await server.get("/plain")).status == 200
        # They are handled in their order.
        process.terminate()
        await eventually(lambda: process.poll() is not None)
        assert process.returncode == 0
        os.close(terminal)


async def test_port_can_be_used_again_at_once(serve: Serve) -> None:
    first = serve(app)
    assert (await first.get("/plain")).status == 200
    first.signal(signal.SIGTERM)
    await first.exit_code()
    second = serve(app, port=first.port)
    assert (await second.get("/plain")).status == 200
    if UNDER_TEST == AIOVOY:
        assert second.port == first.port
