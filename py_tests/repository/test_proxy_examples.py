"""The proxies in examples/ that stand in front of `aiovoy upstream`, with what their first lines say."""

import asyncio
import contextlib
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness import ws_apps
from py_tests.harness.apps import Receive, Scope, Send, answer, body, file_exists, gate, note, read, routes, start
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import Connection, Exchange
from py_tests.harness.folders import EXAMPLES, ROOT
from py_tests.harness.in_front import NGINX, Example, example, pasted, started
from py_tests.harness.protocols import HTTP1, HTTP2, Connect
from py_tests.harness.serving import Server, unlike_uvicorn
from py_tests.harness.ws_client import close_frame, dial

pytestmark = [unlike_uvicorn("this is about aiovoy"), pytest.mark.protocols(HTTP1, HTTP2)]

TCP, UDS, NGINX_CONF = "envoy-in-front.yaml", "envoy-in-front-uds.yaml", "nginx.conf"

# `make check` has it installed.
nginx_is_there = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

# --- The application ---


async def where(scope: Scope, receive: Receive, send: Send) -> None:
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    seen = {"pid": os.getpid(), "client": scope["client"], "scheme": scope["scheme"], "headers": headers}
    await answer(send, {**seen, "http_version": scope["http_version"]})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back each piece when it comes."""
    await start(send)
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        more = message["more_body"]
        await body(send, message["body"], more=more)


async def trailers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await body(send, b"all of it")
    await send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"1234")]})


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    """Says who answers, and ends when the test says so."""
    await start(send)
    await body(send, b"%d" % os.getpid(), more=True)
    await file_exists(gate(scope))
    await body(send, b", in the end")


async def left(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes that the client has gone."""
    await read(receive)
    note(scope, (await receive())["type"])


routed = routes(where, echo, trailers, gated, left)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says at `/` that it is well, for the health check."""
    if scope["type"] == "websocket":
        await ws_apps.echo(scope, receive, send)
    elif scope.get("path") == "/":
        await answer(send, b"well")
    else:
        await routed(scope, receive, send)


OURS = {"hello:app": f"{__name__}:app", "examples": str(ROOT)}


@pytest.fixture
def folder() -> Iterator[Path]:
    """`tmp_path` may be longer than the path of a socket can be."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module", params=[TCP, UDS])
def running(request: pytest.FixtureRequest) -> Iterator[Example]:
    """An example with the application above; one for all tests that leave it as it is."""
    with tempfile.TemporaryDirectory() as folder, example(request.param, Path(folder), OURS) as running:
        yield running


@pytest.fixture
async def connection(running: Example, connect: Connect) -> Connection:
    await running.accepts()
    return await connect(running.proxy)


# --- What clients get ---


@pytest.mark.protocols(HTTP1)
def test_each_example_is_tested(protocol: str) -> None:
    files = [path for path in EXAMPLES.iterdir() if path.is_file()]
    assert {file.name for file in files if "aiovoy upstream" in file.read_text()} == {TCP, UDS, NGINX_CONF}


@pytest.mark.parametrize("name", [TCP, UDS])
async def test_example_runs_as_its_first_lines_say(name: str, folder: Path, connect: Connect) -> None:
    with example(name, folder) as running:
        await running.accepts()
        assert (await (await connect(running.proxy)).get("/")).body == b"Hello, world!"
        await eventually(lambda: running.statistics()["membership_healthy"] == len(running.upstreams))
        assert running.statistics()["health_check.success"] >= len(running.upstreams)


async def test_upstream_is_spoken_to_over_http_2(connection: Connection) -> None:
    assert (await connection.get("/where")).json()["http_version"] == "2"


async def test_client_is_who_envoy_says(running: Example, connection: Connection) -> None:
    """For a client on the loopback Envoy says an address of this machine, if it has another one."""
    told = (await connection.get("/where", [(b"x-forwarded-for", b"203.0.113.7")])).json()
    named = told["headers"]["x-forwarded-for"].split(",")
    by_address = len(running.upstreams) > 1
    # Where proxies are known by address, Envoy appends; where they have none, its word is the only one.
    assert named[:-1] == (["203.0.113.7"] if by_address else [])
    assert told["client"] == ["203.0.113.7" if by_address and named[-1] == "127.0.0.1" else named[-1], 0]
    assert told["scheme"] == told["headers"]["x-forwarded-proto"] == "http"


async def test_trailers_are_passed(connection: Connection, protocol: str) -> None:
    te = [(b"te", b"trailers")] if protocol == HTTP2 else [(b"te", b"trailers"), (b"connection", b"te")]
    response = await connection.get("/trailers", te)
    assert response.body == b"all of it"
    assert response.trailers == [(b"x-checksum", b"1234")]


async def test_bodies_go_both_ways_at_once(connection: Connection) -> None:
    await goes_both_ways(connection)


async def goes_both_ways(connection: Connection) -> None:
    """Each piece is back before the next one leaves."""
    exchange = await connection.start("POST", "/echo", upload=True)
    for number in range(5):
        piece = b"piece %d" % number
        await exchange.send(piece)
        if not number:
            assert await exchange.head() == 200
        received = b""
        while len(received) < len(piece):
            received += await exchange.chunk()
        assert received == piece
    await exchange.send(b"the end", end=True)
    assert await exchange.rest() == b"the end"


async def test_large_body_comes_back(connection: Connection) -> None:
    data = os.urandom(2_000_000)
    assert (await connection.post("/echo", data)).body == data


@pytest.mark.parametrize("message", ["text", b"bytes", "x" * 100_000])
async def test_websocket(connection: Connection, message: str | bytes) -> None:
    socket = await dial(connection, "/")
    await socket.send(message)
    assert await socket.receive() == message
    assert (await socket.close())[0] == 1000


# --- When a process stops, or is at its limit ---


async def load(connect: Connect, running: Example, stop: asyncio.Event, seen: list[Any]) -> None:
    """A client that asks and posts in turn until it is told to stop, and notes what it got."""
    connection = await connect(running.proxy)
    while not stop.is_set():
        got = await connection.get("/where")
        seen.append((got.status, got.json()["pid"] if got.status == 200 else got.body))
        posted = await connection.post("/echo", b"posted")
        seen.append((posted.status, posted.body))


async def test_no_request_fails_when_a_process_stops(folder: Path, connect: Connect) -> None:
    with example(TCP, folder, OURS) as running:
        await running.accepts()
        first, second = running.upstreams
        stop, seen = asyncio.Event(), list[Any]()
        async with asyncio.timeout(2 * DEADLINE), asyncio.TaskGroup() as clients:
            for _ in range(8):
                clients.create_task(load(connect, running, stop, seen))
            await eventually(lambda: {(200, first.pid), (200, second.pid)} <= set(seen))
            first.signal(signal.SIGTERM)
            assert await first.exit_code() == 0
            before = len(seen)
            await eventually(lambda: len(seen) > before + 200)
            stop.set()
        assert set(seen) == {(200, first.pid), (200, second.pid), (200, b"posted")}
        assert (200, first.pid) not in seen[before + 16 :]
        await eventually(lambda: running.statistics()["membership_healthy"] == 1)


async def test_request_in_flight_is_answered_when_its_process_stops(folder: Path, connect: Connect) -> None:
    with example(TCP, folder, OURS) as running:
        await running.accepts()
        gate_file = folder / "gate"
        exchange, server = await begin(connect, running, gate_file)
        server.signal(signal.SIGTERM)
        await eventually(lambda: "stopping" in server.log)
        gate_file.touch()
        assert await exchange.rest() == b", in the end"
        assert await server.exit_code() == 0


async def test_process_at_its_limit_is_passed_by(folder: Path, connect: Connect) -> None:
    """Requests that may be repeated go to the other one; POST is told to come again."""
    with example(TCP, folder, {**OURS, "100": "2"}) as running:
        await running.accepts()
        async with filled(connect, running, folder) as busy:
            connection = await connect(running.proxy)

            async def has_repeated() -> bool:
                assert (await connection.get("/where")).json()["pid"] != busy.pid
                return running.statistics()["upstream_rq_retry_success"] > 2

            await eventually(has_repeated)

            async def is_refused() -> bool:
                posted = await connection.post("/echo", b"posted")
                if posted.status == 200:
                    return False
                assert (posted.status, posted.header(b"retry-after")) == (503, b"1")
                return True

            await eventually(is_refused)


async def test_websocket_is_told_when_its_process_stops(folder: Path, connect: Connect) -> None:
    with example(TCP, folder, OURS) as running:
        await running.accepts()
        socket = await dial(await connect(running.proxy), "/")
        for server in running.upstreams:
            server.signal(signal.SIGTERM)
        assert (await socket.closed())[0] == 1012
        await socket.write(close_frame(1012))
        assert [await server.exit_code() for server in running.upstreams] == [0, 0]


async def test_request_waits_while_the_only_process_is_replaced(folder: Path, connect: Connect) -> None:
    # However long that takes here.
    patient = {"num_retries: 10": "num_retries: 1000", "timeout: 15s": "timeout: 600s"}
    with example(UDS, folder, OURS, patient) as running:
        await running.accepts()
        connection = await connect(running.proxy)
        (old,) = running.upstreams
        assert (await connection.get("/where")).json()["pid"] == old.pid
        old.signal(signal.SIGTERM)
        assert await old.exit_code() == 0
        posted = await (await connect(running.proxy)).start("POST", "/echo", body=b"posted")
        asked = await connection.start("GET", "/where")
        await eventually(lambda: running.statistics()["upstream_cx_connect_fail"] > 1)
        with started(running.commands[0]) as new:
            assert (await asked.response()).json()["pid"] == new.pid
            assert (await posted.response()).body == b"posted"


async def test_application_is_told_when_envoy_gives_up(folder: Path, connect: Connect, key: str) -> None:
    with example(TCP, folder, OURS, {"timeout: 15s": "timeout: 2s"}) as running:
        await running.accepts()
        assert (await (await connect(running.proxy)).get(f"/left?{key}")).status == 504

        async def is_told() -> bool:
            return ["http.disconnect"] in [await server.notes(key) for server in running.upstreams]

        await eventually(is_told)


async def begin(connect: Connect, running: Example, gate_file: Path) -> tuple[Exchange, Server]:
    """A request that lasts until there is `gate_file`, and the process that has it."""
    exchange = await (await connect(running.proxy)).start("GET", "/gated", headers=[(b"x-gate", bytes(gate_file))])
    assert await exchange.head() == 200
    pid = int(await exchange.chunk())
    (server,) = [server for server in running.upstreams if server.pid == pid]
    return exchange, server


@contextlib.asynccontextmanager
async def filled(connect: Connect, running: Example, folder: Path) -> AsyncIterator[Server]:
    """A process that has as many requests as it takes, which is two, while the other one has none."""
    held: list[tuple[Path, Exchange, Server]] = []
    while len({server.pid for _, _, server in held}) == len(held):
        gate_file = folder / f"gate{len(held)}"
        held.append((gate_file, *await begin(connect, running, gate_file)))
    *_, (_, _, busy) = held

    async def end(at: Callable[[Server], bool]) -> None:
        for gate_file, exchange, _ in [one for one in held if at(one[2])]:
            gate_file.touch()
            assert await exchange.rest() == b", in the end"

    await end(lambda server: server is not busy)
    yield busy
    await end(lambda server: server is busy)


@pytest.mark.protocols(HTTP1)
async def test_process_that_is_killed_is_left_alone(folder: Path, connect: Connect, protocol: str) -> None:
    with example(TCP, folder, OURS) as running:
        await running.accepts()
        first, second = running.upstreams
        await eventually(lambda: running.statistics()["membership_healthy"] == 2)
        first.signal(signal.SIGKILL)
        assert await first.exit_code() == -signal.SIGKILL
        connection = await connect(running.proxy)
        for _ in range(50):
            assert (await connection.get("/where")).json()["pid"] == second.pid
        await eventually(lambda: running.statistics()["membership_healthy"] == 1)


# --- nginx ---


@pytest.fixture
def behind_nginx(folder: Path) -> Iterator[Example]:
    with example(NGINX_CONF, folder, OURS) as running:
        yield running


@nginx_is_there
@pytest.mark.protocols(HTTP1)
async def test_nginx_runs_as_its_file_says(folder: Path, connect: Connect, protocol: str) -> None:
    with example(NGINX_CONF, folder) as running:
        await running.accepts()
        assert (await (await connect(running.proxy)).get("/")).body == b"Hello, world!"


@nginx_is_there
@pytest.mark.protocols(HTTP1)
async def test_nginx_passes_all_that_http_1_1_has(behind_nginx: Example, connect: Connect, protocol: str) -> None:
    await behind_nginx.accepts()
    connection = await connect(behind_nginx.proxy)
    told = (await connection.get("/where", [(b"x-forwarded-for", b"203.0.113.7"), (b"host", b"shop.test")])).json()
    assert (told["client"], told["scheme"], told["http_version"]) == (["127.0.0.1", 0], "http", "1.1")
    assert told["headers"]["host"] == "shop.test"
    await goes_both_ways(connection)
    data = os.urandom(2_000_000)
    assert (await (await connect(behind_nginx.proxy)).post("/echo", data)).body == data
    socket = await dial(await connect(behind_nginx.proxy), "/")
    await socket.send("text")
    assert await socket.receive() == "text"
    assert (await socket.close())[0] == 1000


@nginx_is_there
@pytest.mark.protocols(HTTP1)
async def test_nginx_asks_another_process_if_one_stops(behind_nginx: Example, protocol: str) -> None:
    await behind_nginx.accepts()
    first, second = behind_nginx.upstreams

    async def answered() -> int:
        """By whom; on a connection of its own, since nginx closes one after a thousand requests."""
        pid: int = (await behind_nginx.proxy.get("/where")).json()["pid"]
        return pid

    assert {await answered() for _ in range(20)} == {first.pid, second.pid}
    first.signal(signal.SIGTERM)
    while first.process.poll() is None:
        await answered()
    assert await first.exit_code() == 0
    assert {await answered() for _ in range(20)} == {second.pid}


@nginx_is_there
@pytest.mark.protocols(HTTP1)
async def test_nginx_asks_another_process_if_one_is_at_its_limit(folder: Path, connect: Connect, protocol: str) -> None:
    with example(NGINX_CONF, folder, {**OURS, "100": "2"}) as running:
        await running.accepts()
        async with filled(connect, running, folder) as busy:
            connection = await connect(running.proxy)
            for _ in range(10):
                assert (await connection.get("/where")).json()["pid"] != busy.pid
            assert busy.log.count("503 (aiovoy_limit_concurrency)") > 1


# --- What stands in two places ---


@pytest.mark.parametrize("name", [TCP, UDS, NGINX_CONF])
@pytest.mark.protocols(HTTP1)
def test_commands_and_configuration_fit(name: str, protocol: str) -> None:
    configuration = (EXAMPLES / name).read_text().split("\n\n", 1)[1]
    commands = [words for words in pasted(name) if words[1] == "upstream"]
    limits = 0
    for words in commands:
        options = dict(zip(words[3::2], words[4::2], strict=True))
        where = options.get("--uds") or rf"127.0.0.1(:|, port_value: ){options['--port']}"
        assert re.search(where, configuration)
        idle_timeout = number("keepalive_timeout" if name == NGINX_CONF else "idle_timeout:", configuration)
        assert float(options["--timeout-keep-alive"]) > idle_timeout
        limits += int(options["--limit-concurrency"])
    if name != NGINX_CONF:
        assert limits == number("max_requests:", configuration)


def number(key: str, configuration: str) -> float:
    (found,) = re.findall(rf" {key} (\d+)", configuration)
    return float(found)
