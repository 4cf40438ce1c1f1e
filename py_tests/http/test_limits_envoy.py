"""Limits on heads, and those that Envoy keeps alone: connections, streams, and the time that clients take."""

import asyncio
from collections.abc import Iterator

import psutil
import pytest

from py_tests.harness import serving
from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, routes, start
from py_tests.harness.certificates import Pair
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import Connection, ResponseCut
from py_tests.harness.http1 import Http1Connection, stalled
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.http3 import Http3Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, http3_options
from py_tests.harness.serving import FRONT, OWN, Serve, Server, of_envoy, unlike_uvicorn
from py_tests.harness.streams import StreamExchange
from py_tests.harness.wire import Tls

pytestmark = unlike_uvicorn("this is about aiovoy")

every = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")


async def sized(scope: Scope, receive: Receive, send: Send) -> None:
    """Ends while the client has yet to read most of it."""
    await start(send)
    await body(send, bytes(int(scope["path"].split("/")[2])))
    note(scope, "ended")


app = routes(hello, sized)

APP = f"{__name__}:app"


async def outcome(connection: Connection, headers: list[tuple[bytes, bytes]]) -> int | None:
    """The status; None where the stream is reset."""
    try:
        return (await connection.get("/hello", headers=headers)).status
    except ResponseCut:
        return None


def far_above(connection: Connection) -> int | None:
    """What becomes of a head that is far above a limit: Envoy resets streams."""
    return 431 if connection.protocol == HTTP1 or FRONT == OWN else None


# --- Heads ---


@pytest.fixture(scope="module")
def strict(pair: Pair) -> Iterator[Server]:
    options = {"limit_request_header_bytes": 4096, "limit_request_header_count": 20}
    streams = {"http2_max_concurrent_streams": 7}
    with serving.serve(APP, **http3_options(pair), **options, **streams, timeout_keep_alive=60) as server:
        yield server


def long(size: int) -> list[tuple[bytes, bytes]]:
    return [(b"x-long", b"x" * size)]


def several(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"x-%d" % number, b"x") for number in range(count)]


def cookies(count: int) -> list[tuple[bytes, bytes]]:
    """As browsers send them on HTTP/2."""
    return [(b"cookie", b"cookie-%d=%032d" % (number, number)) for number in range(count)]


@every
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (long(3500), 200),
        (long(4500), 431),
        (long(30_000), 431),
        (several(19), 200),  # and the host
        (several(20), 431),
        (several(1000), 431),
        ([*several(18), *cookies(40)], 200),
        ([*several(19), *cookies(2)], 431),
        (cookies(100), 431),
    ],
    ids=[
        *("bytes", "more bytes", "many more bytes", "fields", "a field more", "many fields more"),
        *("fields and cookies", "a field more with cookies", "more bytes of cookies"),
    ],
)
async def test_heads(strict: Server, connect: Connect, headers: list[tuple[bytes, bytes]], status: int) -> None:
    """What is refused is answered, and the connection serves the next request."""
    connection = await connect(strict)
    assert await outcome(connection, headers) == status
    assert await outcome(connection, []) == 200


@every
async def test_defaults_for_heads(serve: Serve, connect: Connect) -> None:
    server = serve(APP)
    connection = await connect(server)
    for headers, status in [
        (long(60_000), 200),
        (long(62_000), 431),
        (several(99), 200),
        (several(100), 431),
        ([*several(98), *cookies(600)], 200),
        (cookies(1300), far_above(connection)),  # also where it is Envoy that counts
    ]:
        assert await outcome(connection, headers) == status


@every
async def test_heads_far_above_the_limits(strict: Server, connect: Connect) -> None:
    """Envoy does not read them to the end."""
    for headers in [[*long(35_000), *long(35_000)], several(1200)]:
        connection = await connect(strict)
        assert await outcome(connection, headers) == far_above(connection)


# --- Numbers ---


async def test_streams_of_http2(strict: Server, serve: Serve) -> None:
    for server, streams in [(strict, 7), (serve(APP), 100)]:
        async with await Http2Connection.open(server.port) as connection:
            assert (await connection.get("/hello")).status == 200
            assert connection.h2.remote_settings.max_concurrent_streams == streams


@of_envoy("it has no HTTP/3")
async def test_streams_of_http3(strict: Server) -> None:
    async with await Http3Connection.open(strict.ssl_port, Tls()) as connection:
        assert (await connection.get("/hello")).status == 200
        assert connection.endpoint.quic._remote_max_streams_bidi == 7


async def test_connections(serve: Serve) -> None:
    server = serve(APP, limit_connections=2)
    first, second = [await Http1Connection.open(server.port) for _ in range(2)]
    for connection in [first, second]:
        assert (await connection.get("/hello")).status == 200
    async with await Http1Connection.open(server.port) as third:
        with pytest.raises((ResponseCut, ConnectionError)):
            await third.get("/hello")
    await first.close()

    async def let_in() -> bool:
        async with await Http1Connection.open(server.port) as connection:
            try:
                return (await connection.get("/hello")).status == 200
            except (ResponseCut, ConnectionError):
                return False

    await eventually(let_in)
    await second.close()


# --- Time ---


@pytest.fixture(scope="module")
def impatient(pair: Pair) -> Iterator[Server]:
    """Also with handshakes, so that clients which have to shake hands first go to another server."""
    times = {"timeout_request_headers": 1, "timeout_idle": 1, "timeout_keep_alive": 60}
    with serving.serve(APP, **http3_options(pair), **times) as server:
        yield server


async def test_slow_head_of_http1(impatient: Server) -> None:
    async with await Http1Connection.open(impatient.port) as connection:
        await connection.write(b"GET /hello HTTP/1.1\r\nhost:")
        assert await connection.until(b"\r\n") == b"HTTP/1.1 408 Request Timeout"
        await connection.ended()


async def test_slow_head_of_http2(impatient: Server) -> None:
    """A HEADERS frame that does not end the head, and no CONTINUATION."""
    async with await Http2Connection.open(impatient.port) as connection:
        await connection.wire.send(b"\0\0\1\1\0\0\0\0\1\x82")
        await connection.ended()


@of_envoy("it has no TLS")
async def test_slow_handshake_is_cut(impatient: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient.ssl_port)
    async with asyncio.timeout(DEADLINE):
        writer.write(b"\x16\x03\x01")
        assert await reader.read() == b""
    writer.close()


@pytest.mark.protocols(HTTP2, HTTP3)
async def test_response_that_is_not_taken_is_cut(serve: Serve, connect: Connect, key: str) -> None:
    """Also when the application has given all of it and is gone."""
    server = serve(APP, timeout_idle=1)
    connection = await connect(server)
    exchange = await connection.start("GET", f"/sized/200000?{key}")
    assert isinstance(exchange, StreamExchange)
    assert await exchange.head() == 200
    await server.noted(key, "ended")
    await eventually(lambda: exchange.reset)


LARGE = 3_000_000
"""More than the kernel keeps for a client that does not read."""


def is_gone(port: int, client: int) -> bool:
    """Whether the server's end of the connection from the port of a client is."""
    connections = psutil.net_connections("tcp")
    ends = [(one.laddr.port, one.raddr.port) for one in connections if one.laddr and one.raddr]
    return (port, client) not in ends


async def test_connection_of_a_response_that_is_not_taken_is_cut(impatient: Server, key: str) -> None:
    with stalled(
        impatient.port, f"GET /sized/{LARGE}?{key} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode()
    ) as client:
        await impatient.noted(key, "ended")
        own = client.getsockname()[1]
        await eventually(lambda: is_gone(impatient.port, own))


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_end_of_a_response_waits_for_a_client_that_pauses(serve: Serve, key: str, connection: str) -> None:
    """The connection is over for the server then, but for what the client has not taken."""
    server = serve(APP, timeout_keep_alive=2)
    request = f"GET /sized/{LARGE}?{key} HTTP/1.1\r\nhost: a\r\nconnection: {connection}\r\n\r\n"
    with stalled(server.port, request.encode()) as client:
        await server.noted(key, "ended")
        await asyncio.sleep(3)  # longer than the keep-alive time-out, and than Envoy's own grace of a second
        answered = b"".join(iter(lambda: client.recv(65536), b""))
    assert answered.count(b"\0") == LARGE


@every
async def test_idle_connection_is_closed(serve: Serve, connect: Connect) -> None:
    server = serve(APP, timeout_keep_alive=2)
    connection = await connect(server)
    assert (await connection.get("/hello")).status == 200
    await connection.ended()
