"""HTTP/3 connections at fault, by RFC 9114 and 9204: what the client gets, and that the server lives on."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from aioquic._buffer import Buffer
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN, ErrorCode
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicErrorCode
from pylsqpack import Decoder

from py_tests.harness.certificates import Pair, authority
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.hostile import (
    CLOSED,
    KEPT,
    Field,
    Outcome,
    Row,
    account,
    calls_of,
    check,
    each,
    forget,
    integer,
    outcomes,
    pseudo,
    string,
)
from py_tests.harness.hostile import app as app
from py_tests.harness.protocols import HTTP3
from py_tests.harness.serving import Server, serve, unlike_uvicorn

pytestmark = [unlike_uvicorn("it speaks no HTTP/3"), pytest.mark.protocols(HTTP3)]

# --- Frames ---

DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0, 1, 3, 4, 5, 7, 13
UNKNOWN = 0x21
CONTROL, PUSH, ENCODER, DECODER = (bytes([kind]) for kind in range(4))
"""What unidirectional streams begin with."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(payload)) + payload


def block(*fields: Field) -> bytes:
    """Fields as literals that refer to no table (RFC 9204, section 4.5.6)."""
    lines = (integer(len(name), 3, 0x20) + name.encode("latin-1") + string(value) for name, value in fields)
    return b"\0\0" + b"".join(lines)


def request(*fields: Field) -> bytes:
    return frame(HEADERS, block(*fields))


METHOD, SCHEME, AUTHORITY, PATH = pseudo(scheme="https")


def get(*fields: Field) -> bytes:
    return request(METHOD, SCHEME, AUTHORITY, PATH, *fields)


def post(*fields: Field) -> bytes:
    return request((":method", "POST"), SCHEME, AUTHORITY, PATH, *fields)


# --- Rows ---

REQUEST_STREAM, CONTROL_STREAM, OTHER_STREAM, NEXT_STREAM = 0, 2, 6, 8


@dataclass(frozen=True)
class Piece:
    """Bytes of one stream."""

    stream: int
    data: bytes
    end: bool = False


START = Piece(CONTROL_STREAM, CONTROL + frame(SETTINGS))


def answered(name: str, request: bytes, *calls: str, status: int = 200) -> Row:
    return Row(name, (START, Piece(REQUEST_STREAM, request, True)), (f"0: {status}",), calls, KEPT)


def malformed(name: str, request: bytes, *calls: str, code: str = "H3_GENERAL_PROTOCOL_ERROR") -> Row:
    """The stream is reset."""
    return Row(name, (START, Piece(REQUEST_STREAM, request, True)), (f"0: {code}",), calls, KEPT)


def fatal(name: str, code: str, request: bytes, *calls: str) -> Row:
    """The connection ends."""
    return Row(name, (START, Piece(REQUEST_STREAM, request, True)), (code,), calls, CLOSED)


def beside(name: str, *pieces: Piece, code: str | None = None) -> Row:
    """What other streams carry beside a request."""
    if code is not None:
        return Row(name, pieces, (code,), (), CLOSED)
    return Row(name, (*pieces, Piece(REQUEST_STREAM, get(), True)), ("0: 200",), ("GET /a",), KEPT)


def other(name: str, data: bytes, code: str | None = None) -> Row:
    return beside(name, START, Piece(OTHER_STREAM, data), code=code)


def control(name: str, frames: bytes, code: str | None = None) -> Row:
    """What the control stream carries after its type."""
    return beside(name, Piece(CONTROL_STREAM, CONTROL + frames), code=code)


def line(method: str = "GET", path: str = "/a", authority: str = "a", scheme: str = "https") -> bytes:
    return request(*pseudo(method, path, authority, scheme))


PSEUDO_HEADERS = [
    answered("plain", get(), "GET /a"),
    malformed("no method", request(SCHEME, AUTHORITY, PATH)),
    malformed("no scheme", request(METHOD, AUTHORITY, PATH)),
    malformed("no path", request(METHOD, SCHEME, AUTHORITY)),
    malformed("no authority", request(METHOD, SCHEME, PATH)),
    malformed("host for authority", request(METHOD, SCHEME, PATH, ("host", "a"))),
    malformed("host that differs", get(("host", "b"))),
    malformed("two hosts", get(("host", "a"), ("host", "b"))),
    malformed("none", request(("x", "1"))),
    malformed("no field at all", request()),
    malformed("method twice", get((":method", "PUT")), code="H3_NO_ERROR"),
    malformed("path twice", get((":path", "/b"))),
    malformed("authority twice", get((":authority", "b"))),
    malformed("after a field", request(METHOD, SCHEME, ("x", "1"), AUTHORITY, PATH)),
    malformed("status", get((":status", "200"))),
    malformed("unknown", get((":x", "1"))),
    malformed("upper case", request((":METHOD", "GET"), SCHEME, AUTHORITY, PATH)),
    malformed("protocol without CONNECT", get((":protocol", "websocket"))),
    answered("method unknown", line("FROBNICATE"), "FROBNICATE /a"),
    answered("method in lower case", line("get"), "GET /a"),
    answered("method empty", line(""), status=400),
    malformed("method with line end", line("GET\r\nx: 1")),
    malformed("request line for method", line("GET /b HTTP/1.1")),
    malformed("CONNECT with a path", line("CONNECT")),
    answered("CONNECT", request((":method", "CONNECT"), (":authority", "a:443")), status=501),
    answered("scheme http", line(scheme="http"), "GET /a"),
    answered("scheme unknown", line(scheme="ftp"), "GET /a"),
    answered("scheme empty", line(scheme=""), "GET /a"),
    answered("authority with port", line(authority="a:80"), "GET /a host=a:80"),
    answered("authority with comma", line(authority="a,b"), status=400),
    answered("authority with a port that is no number", line(authority="a:b"), status=400),
    answered("authority empty", line(authority=""), "GET /a host="),
    malformed("authority with user", line(authority="u@a")),
    malformed("authority with space", line(authority="a b")),
    malformed("authority with slash", line(authority="a/b")),
    malformed("authority with line end", line(authority="a\r\nx: 1")),
    malformed("authority with high byte", line(authority="\xe4")),
    answered("path with quotes and brackets", line(path='/"<>^`{}|\\[]'), 'GET /"<>^`{}|\\[]'),
    answered("path of 16 kB", line(path="/" + "a" * 16_000), f"GET /{'a' * 16_000}"),
    answered("path with fragment", line(path="/a#b"), status=400),
    answered("asterisk for OPTIONS", line("OPTIONS", path="*"), status=404),
    malformed("path empty", line(path="")),
    malformed("path without slash", line(path="a"), code="H3_NO_ERROR"),
    malformed("path absolute", line(path="http://b/a"), code="H3_NO_ERROR"),
    malformed("asterisk for GET", line(path="*"), code="H3_NO_ERROR"),
    malformed("path with space", line(path="/a b")),
    malformed("path with line end", line(path="/a\r\nx: 1")),
    malformed("path with nul", line(path="/\0")),
    malformed("path with tab", line(path="/\t")),
    malformed("path with delete", line(path="/\x7f")),
    malformed("path with high byte", line(path="/\xe4")),
]

FIELDS = [
    answered("tab in value", get(("x", "1\t2")), "GET /a x=1\t2"),
    answered("empty value", get(("x", "")), "GET /a x="),
    answered("te: trailers", get(("te", "trailers")), "GET /a"),
    answered("space before value", get(("x", " 1")), status=400),
    answered("space after value", get(("x", "1 ")), status=400),
    *(
        malformed(name, get(field))
        for name, field in {
            "high bytes in value": ("x", "\xe4\xff"),
            "line end in value": ("x", "1\r\ny: 2"),
            "carriage return in value": ("x", "1\r2"),
            "line feed in value": ("x", "1\n2"),
            "nul in value": ("x", "1\x002"),
            "vertical tab in value": ("x", "1\v2"),
            "delete in value": ("x", "1\x7f2"),
            "upper-case name": ("X", "1"),
            "empty name": ("", "1"),
            "space in name": ("x y", "1"),
            "colon in name": ("x:y", "1"),
            "line end in name": ("x\r\ny", "1"),
            "high byte in name": ("x\xe4", "1"),
            "parenthesis in name": ("x(y", "1"),
            "connection": ("connection", "keep-alive"),
            "keep-alive": ("keep-alive", "1"),
            "proxy-connection": ("proxy-connection", "1"),
            "upgrade": ("upgrade", "h2c"),
            "transfer-encoding": ("transfer-encoding", "chunked"),
            "te: gzip": ("te", "gzip"),
        }.items()
    ),
    answered("101 of them", get(*((f"x{n}", "1") for n in range(101))), status=431),
    malformed("1200 of them", get(*((f"x{n}", "1") for n in range(1200))), code="H3_EXCESSIVE_LOAD"),
    answered("1000 cookies", get(*(("cookie", "a=1") for _ in range(1000))), "GET /a"),
    malformed("1200 cookies", get(*(("cookie", "a=1") for _ in range(1200))), code="H3_EXCESSIVE_LOAD"),
]

LENGTHS = [
    answered("right", post(("content-length", "5")) + frame(DATA, b"hello"), "POST /a [hello]"),
    malformed("more than is sent", post(("content-length", "5")) + frame(DATA, b"hell"), "POST /a cut"),
    malformed("less than is sent", post(("content-length", "5")) + frame(DATA, b"hello!"), "POST /a cut"),
    malformed("0 and a body", post(("content-length", "0")) + frame(DATA, b"hello"), "POST /a cut"),
    malformed("no body", post(("content-length", "5"))),
    malformed("twice", post(("content-length", "5"), ("content-length", "6")) + frame(DATA, b"hello")),
    malformed("twice the same", post(("content-length", "5"), ("content-length", "5")) + frame(DATA, b"hello")),
    *(
        malformed(value, post(("content-length", value)) + frame(DATA, b"hello"))
        for value in ("-5", "+5", "5, 5", "five", "0x5", "9" * 20, "")
    ),
]

HELLO = post() + frame(DATA, b"hello")

FRAMES = [
    answered("trailers", HELLO + request(("x", "1")), "POST /a [hello]"),
    answered("trailers without fields", HELLO + request(), "POST /a [hello]"),
    answered("trailers with content-length", HELLO + request(("content-length", "1")), "POST /a [hello]"),
    malformed("trailers with connection", HELLO + request(("connection", "close")), "POST /a cut"),
    fatal("trailers with a pseudo-header", "INTERNAL_ERROR", HELLO + request((":path", "/b")), "POST /a cut"),
    fatal("trailers in upper case", "INTERNAL_ERROR", HELLO + request(("X", "1")), "POST /a cut"),
    fatal("trailers twice", "H3_FRAME_UNEXPECTED", HELLO + request(("x", "1")) * 2, "POST /a cut"),
    fatal("DATA after trailers", "H3_FRAME_UNEXPECTED", HELLO + request(("x", "1")) + frame(DATA), "POST /a cut"),
    fatal("DATA first", "H3_FRAME_UNEXPECTED", frame(DATA, b"x")),
    answered("DATA of nothing", post() + frame(DATA) * 100, "POST /a"),
    answered("unknown first", frame(UNKNOWN, b"x") + get(), "GET /a"),
    answered("unknown between", post() + frame(UNKNOWN, b"x") + frame(DATA, b"hello"), "POST /a [hello]"),
    # quiche takes the end of the stream for that of the frame.
    answered("DATA cut", post() + frame(DATA, b"hello")[:-1], "POST /a [hell]"),
    fatal("HEADERS cut", "H3_FRAME_UNEXPECTED", get()[:-1]),
    fatal("HEADERS of 2**62", "H3_FRAME_UNEXPECTED", b"\x01" + b"\xff" * 8),
    fatal("nothing", "H3_FRAME_UNEXPECTED", b""),
    fatal("SETTINGS", "H3_FRAME_UNEXPECTED", frame(SETTINGS) + get()),
    fatal("GOAWAY", "H3_FRAME_UNEXPECTED", frame(GOAWAY, b"\0") + get()),
    fatal("PUSH_PROMISE", "H3_FRAME_ERROR", frame(PUSH_PROMISE, b"\0" + block(METHOD, SCHEME, AUTHORITY, PATH))),
    fatal("CANCEL_PUSH", "H3_FRAME_ERROR", frame(CANCEL_PUSH, b"\0")),
    fatal("MAX_PUSH_ID", "H3_FRAME_UNEXPECTED", frame(MAX_PUSH_ID, b"\0")),
    fatal("PING of HTTP/2", "H3_FRAME_UNEXPECTED", frame(6, b"12345678")),
    fatal("PRIORITY of HTTP/2", "H3_FRAME_UNEXPECTED", frame(2, b"12345")),
]

COMPRESSION = [
    fatal(name, "QPACK_DECOMPRESSION_FAILED", frame(HEADERS, payload))
    for name, payload in {
        "nothing": b"",
        "beyond the static table": b"\0\0" + integer(200, 6, 0xC0),
        "dynamic table": b"\0\0\x80",
        "string cut": b"\0\0\x23x",
        "integer without end": b"\0\0" + b"\xff" * 20,
        "end of string within Huffman": block(METHOD, SCHEME, AUTHORITY, PATH) + b"\x21x\x84\xff\xff\xff\xff",
    }.items()
]

STREAMS = [
    other("second control stream", CONTROL + frame(SETTINGS), "H3_STREAM_CREATION_ERROR"),
    other("push stream", PUSH + b"\0", "H3_GENERAL_PROTOCOL_ERROR"),
    other("unknown stream", encode_uint_var(UNKNOWN) + b"abc"),
    other("decoder stream: acknowledgement unasked", DECODER + b"\x80", "QPACK_DECODER_STREAM_ERROR"),
    beside("no control stream"),
    control("no SETTINGS", frame(GOAWAY, b"\0"), "H3_MISSING_SETTINGS"),
    control("SETTINGS twice", frame(SETTINGS) * 2, "H3_FRAME_UNEXPECTED"),
    control("setting of HTTP/2", frame(SETTINGS, b"\2\1"), "H3_SETTINGS_ERROR"),
    control("setting twice", frame(SETTINGS, b"\6\1\6\1"), "H3_SETTINGS_ERROR"),
    control("setting without value", frame(SETTINGS, b"\6"), "H3_FRAME_ERROR"),
    control("connect protocol of 2", frame(SETTINGS, b"\x08\2"), "H3_SETTINGS_ERROR"),
    control("datagrams of 2", frame(SETTINGS, b"\x33\2"), "H3_SETTINGS_ERROR"),
    control("table of 16 MB", frame(SETTINGS, b"\x01\x80\xff\xff\xff")),
    control("DATA", frame(SETTINGS) + frame(DATA, b"x"), "H3_FRAME_UNEXPECTED"),
    control("HEADERS", frame(SETTINGS) + get(), "H3_FRAME_UNEXPECTED"),
    control("PUSH_PROMISE", frame(SETTINGS) + frame(PUSH_PROMISE, b"\0\0\0"), "H3_FRAME_ERROR"),
    control("CANCEL_PUSH", frame(SETTINGS) + frame(CANCEL_PUSH, b"\5"), "H3_FRAME_ERROR"),
    control("PING of HTTP/2", frame(SETTINGS) + frame(6, b"12345678"), "H3_FRAME_UNEXPECTED"),
    control("MAX_PUSH_ID that falls", frame(SETTINGS) + frame(MAX_PUSH_ID, b"\5") + frame(MAX_PUSH_ID, b"\1")),
    control("GOAWAY", frame(SETTINGS) + frame(GOAWAY, b"\0")),
    control("unknown", frame(SETTINGS) + frame(UNKNOWN, b"x" * 100)),
]

TABLE = {
    "pseudo-header": PSEUDO_HEADERS,
    "field": FIELDS,
    "content-length": LENGTHS,
    "frame": FRAMES,
    "QPACK": COMPRESSION,
    "stream": STREAMS,
}


# --- Conversations ---


class Client(QuicConnectionProtocol):
    """A connection that sends bytes on streams and keeps the server's answers as text."""

    answers: tuple[str, ...] = ()
    terminated = False

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived) and event.stream_id % 4 == 0:
            received = self.received[event.stream_id] = self.received.get(event.stream_id, b"") + event.data
            if event.end_stream:
                self.answers += (f"{event.stream_id}: {self.status(event.stream_id, received)}",)
        elif isinstance(event, StreamReset):
            self.answers += (f"{event.stream_id}: {ErrorCode(event.error_code).name}",)
        elif isinstance(event, ConnectionTerminated):
            self.terminated = True
            code = ErrorCode if event.frame_type is None else QuicErrorCode
            if event.error_code:
                self.answers += (code(event.error_code).name,)

    def start(self) -> None:
        assert self._transport is not None
        self.port: int = self._transport.get_extra_info("sockname")[1]
        self.received: dict[int, bytes] = {}
        self.decoder = Decoder(0, 0)

    def status(self, stream: int, received: bytes) -> str:
        """The status in the first frame; what follows must be the answer's body and nothing else."""
        buffer = Buffer(data=received)
        kinds = []
        while not buffer.eof():
            kinds.append(buffer.pull_uint_var())
            payload = buffer.pull_bytes(buffer.pull_uint_var())
            if kinds == [HEADERS]:
                _, fields = self.decoder.feed_header(stream, payload)
        assert kinds in ([HEADERS], [HEADERS, DATA]), kinds
        return dict(fields)[b":status"].decode()

    def send(self, piece: Piece) -> None:
        self._quic.send_stream_data(piece.stream, piece.data, piece.end)
        self.transmit()


async def converse(server: Server, row: Row) -> Outcome:
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, server_name="localhost")
    configuration.load_verify_locations(cadata=authority().cert_pem.bytes())
    async with connect("127.0.0.1", server.ssl_port, configuration=configuration, create_protocol=Client) as client:
        assert isinstance(client, Client)
        client.start()
        port = client.port
        await forget(server, port)
        for step in row.steps:
            assert isinstance(step, Piece)
            client.send(step)
        await eventually(lambda: client.terminated or len(client.answers) >= len(row.answers))
        if row.end is CLOSED:
            await eventually(lambda: client.terminated)
            return Outcome(client.answers, await calls_of(server, port, len(row.calls)), CLOSED)
        calls = await calls_of(server, port, len(row.calls))
        next_answer = f"{NEXT_STREAM}: 200"
        client.send(Piece(NEXT_STREAM, get(), True))
        await eventually(lambda: client.terminated or next_answer in client.answers)
        answers = tuple(answer for answer in client.answers if answer != next_answer)
        return Outcome(answers, calls, CLOSED if client.terminated else KEPT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pair = Pair(tmp_path_factory.mktemp("tls"))
    with serve(f"{__name__}:app", **pair.options, ssl_port=0, http3=True, timeout_keep_alive=2 * DEADLINE) as server:
        yield server


@pytest.fixture(name="outcomes", scope="module")
def outcomes_fixture(request: pytest.FixtureRequest, server: Server) -> dict[Row, Outcome | Exception]:
    return outcomes(request, server, converse)


@each(TABLE)
def test_connection(row: Row, outcomes: dict[Row, Outcome | Exception]) -> None:
    check(row, outcomes[row])


async def test_nothing_is_left_of_them(server: Server, outcomes: dict[Row, Outcome | Exception]) -> None:
    assert (await account(server))["all"] == 0
