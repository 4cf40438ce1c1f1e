"""What the log says, from level `info` on, of requests that do not get to the application."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from py_tests.harness import serving
from py_tests.harness.apps import Receive, Scope, Send, answer, body, file_exists, gate, note, read, routes, start
from py_tests.harness.certificates import Pair
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, http3_options
from py_tests.harness.serving import FRONT, OWN, Serve, Server, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("its log does not say")

every = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    await answer(send, status=404)


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "called")
    await file_exists(gate(scope))
    await answer(send)


async def begun(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 500)
    await body(send, b"begun", more=True)
    while (await receive())["type"] != "http.disconnect":
        pass


app = routes(hello, gated, begun)

APP = f"{__name__}:app"

LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] \[info\] refused with (.*)")


LIMITS = {"limit_request_body": 4, "timeout_request_headers": 1}


@pytest.fixture(scope="module")
def strict(pair: Pair) -> Iterator[Server]:
    with serving.serve(APP, **http3_options(pair), **LIMITS, limit_concurrency=1) as server:
        yield server


def lines(server: Server) -> list[str]:
    """What the log has said since the test began, and that is refusals only."""
    written = [line for line in server.fresh_log.splitlines() if line and "running on" not in line]
    found = [LINE.fullmatch(line) for line in written]
    assert all(found), written
    return [line[1] for line in found if line]


def said(line: str) -> str:
    return WITHOUT_ENVOY.get(line, line) if FRONT == OWN else line


async def only_line(server: Server) -> str:
    """The one about the test's request."""
    await eventually(lambda: len(lines(server)) > 0)
    # If it is told twice, the second time is before another request's.
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(LAST)
        await connection.until(b"\r\n")
    await eventually(lambda: any("/last" in line for line in lines(server)))
    line, last = lines(server)
    assert last == "413 (aiovoy_limit_request_body): GET /last, from 127.0.0.1"
    return line.removesuffix(", from 127.0.0.1")


HOST = " HTTP/1.1|host: a|"

LAST = b"GET /last HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n"


# What the server without Envoy says instead: it shows nothing of a head that it has not read to its end.
WITHOUT_ENVOY = {
    "400 (missing_host_header): GET /a": "400 (bad_host): no head",
    "400 (aiovoy_bad_host): GET /a": "400 (bad_host): no head",
    "400 (http1.codec_error): no head": "400 (bad_framing): no head",
    "501 (http1.invalid_transfer_encoding): no head": "400 (bad_framing): no head",
    "400 (http1.codec_error): POST /begun": "400 (bad_chunks): no head",
    "404 (absolute_path_rejected): OPTIONS *": "404 (aiovoy_no_mount): OPTIONS *",
    "400 (http1.invalid_characters): no head": "400 (bad_request_line): no head",
    "431 (http1.too_many_headers): no head": "431 (too_many_fields): no head",
    "408 (request_header_timeout): no head": "408 (slow_head): no head",
    "a reset (http2.too_many_headers): no head": "431 (aiovoy_limit_request_header_count): POST /hello",
}


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ("GET /a?secret HTTP/1.1||", "400 (missing_host_header): GET /a"),
        ("GET /a HTTP/1.1|host: a|host: b||", "400 (aiovoy_bad_host): GET /a"),
        (f"GET /a{HOST}content-length: x||", "400 (http1.codec_error): no head"),
        (f"POST /a{HOST}transfer-encoding: gzip||", "501 (http1.invalid_transfer_encoding): no head"),
        (f"POST /begun{HOST}transfer-encoding: chunked||x|", "400 (http1.codec_error): POST /begun"),
        (f"OPTIONS *{HOST}|", "404 (absolute_path_rejected): OPTIONS *"),
        (f"CONNECT a:1{HOST}|", "501 (aiovoy_connect): CONNECT"),
        (f"GET /\x80\x1b{HOST}|", "400 (http1.invalid_characters): no head"),
        (f'GET /"{HOST}{"x: 1|" * 200}|', r"431 (aiovoy_limit_request_header_count): GET /\x22"),
        (f"GET /a{HOST}{'x: 1|' * 2000}|", "431 (http1.too_many_headers): no head"),
        (f"GET /a{HOST}", "408 (request_header_timeout): no head"),
        (
            f"POST /a{HOST}x-request-id: 1\\\xff|content-length: 5||",
            r"413 (aiovoy_limit_request_body): POST /a (request 1\x5C\xFF)",
        ),
        (f"GET /{'a' * 1000}{HOST}x: {'1' * 70_000}||", f"431 (aiovoy_limit_request_header_bytes): GET /{'a' * 495}"),
        (
            f"GET /a{HOST}upgrade: websocket|connection: upgrade|sec-websocket-version: 12||",
            "426 (expected `sec-websocket-version: 13`): GET /a",
        ),
    ],
)
async def test_requests_of_http1(strict: Server, request_: str, line: str) -> None:
    async with await Http1Connection.open(strict.port) as connection:
        await connection.write(request_.replace("|", "\r\n").encode("latin-1"))
        await connection.until(b"\r\n")
    assert await only_line(strict) == said(line)


@pytest.mark.protocols(HTTP2, HTTP3)
@pytest.mark.parametrize(
    ("headers", "line"),
    [
        ([(b"content-length", b"5")], "413 (aiovoy_limit_request_body): POST /hello"),
        ([(b"x", b"1")] * 200, "431 (aiovoy_limit_request_header_count): POST /hello"),
        ([(b"x", b"1")] * 2000, "a reset (http{0}.too_many_headers): no head"),
        pytest.param(
            [(b"x y", b"1")],
            "a reset (http{0}.invalid{1}header{1}field): no head",
            marks=of_envoy("what breaks the rules of HTTP/2 is not logged"),
        ),
    ],
    ids=["length", "fields", "many fields", "name"],
)
async def test_requests_of_other_protocols(
    strict: Server, connect: Connect, headers: list[tuple[bytes, bytes]], line: str
) -> None:
    connection = await connect(strict)
    with contextlib.suppress(ResponseCut):
        await (await connection.start("POST", "/hello", headers=headers, upload=True)).response()
    told = await only_line(strict)
    version = connection.protocol[-1]
    assert told == said(line.format(version, "." if version == "2" else "_"))


@every
async def test_bodies(strict: Server, connect: Connect) -> None:
    """Also where a response has begun, that of an application which says that it fails."""
    connection = await connect(strict)
    exchange = await connection.start("POST", "/begun", upload=True)
    assert await exchange.head() == 500
    await exchange.send(b"12345")
    with contextlib.suppress(ResponseCut):
        await exchange.rest()
    assert await only_line(strict) == "a reset (aiovoy_limit_request_body): POST /begun"

    async def has_returned() -> bool:
        return (await (await connect(strict)).get("/hello")).status == 404

    await eventually(has_returned)


@every
async def test_requests_that_are_too_many(strict: Server, connect: Connect, key: str, tmp_path: Path) -> None:
    path = tmp_path / "gate"
    exchange = await (await connect(strict)).start("GET", f"/gated?{key}", headers=[(b"x-gate", str(path).encode())])

    async def refused() -> bool:
        return (await (await connect(strict)).get("/hello")).status == 503

    await eventually(refused)
    path.touch()
    assert (await exchange.response()).status == 200
    assert await only_line(strict) == "503 (aiovoy_limit_concurrency): GET /hello"

    async def has_returned() -> bool:
        return not await refused()

    await eventually(has_returned)


@every
async def test_nothing_is_said_of_what_is_served(serve: Serve, pair: Pair, connect: Connect) -> None:
    """Nor of clients that leave, whatever they were answered."""
    # A call ends a moment after its answer: with a limit of one the next request could be too early.
    strict = serve(APP, **http3_options(pair), **LIMITS)
    connection = await connect(strict)
    assert (await connection.get("/hello")).status == 404
    exchange = await connection.start("POST", "/begun", upload=True)
    assert await exchange.head() == 500
    await exchange.leave()
    async with await Http1Connection.open(strict.port) as half:
        await half.write(b"GET /left HTTP/1.1\r\n")
    async with await Http1Connection.open(strict.port) as last:
        await last.write(LAST)
        await last.until(b"\r\n")
    await eventually(lambda: any("/last" in line for line in lines(strict)))
    assert len(lines(strict)) == 1


async def test_client_is_that_of_the_scope(serve: Serve) -> None:
    server = serve(APP, limit_request_body=4)
    async with await Http1Connection.open(server.port) as connection:
        await connection.post("/hello", b"12345", headers=[(b"x-forwarded-for", b'203.0.113.7, a"b')])
    await eventually(lambda: len(lines(server)) > 0)
    assert lines(server) == [r"413 (aiovoy_limit_request_body): POST /hello, from a\x22b"]
