"""HTTP/2 connections at fault, by RFC 9113 and 7541: what the client gets, and that the server lives on."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from hpack import Decoder

from py_tests.harness.deadline import DEADLINE
from py_tests.harness.frames import (
    ACK,
    AUTHORITY,
    BLOCK,
    CODES,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    LAST_STREAM,
    METHOD,
    PADDED,
    PATH,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SCHEME,
    SETTINGS,
    UNKNOWN,
    WHOLE,
    WINDOW_UPDATE,
    block,
    data,
    frame,
    get,
    post,
    request,
    reset,
    settings,
    streams,
    window,
)
from py_tests.harness.hostile import (
    CALLED,
    CLOSED,
    KEPT,
    WAITS,
    End,
    Outcome,
    Row,
    account,
    by_front,
    called,
    calls_of,
    check,
    converse_all,
    each,
    forget,
    integer,
    outcomes,
    pseudo,
)
from py_tests.harness.hostile import app as app
from py_tests.harness.serving import FRONT, OWN, Server, serve, unlike_uvicorn
from py_tests.hostile import upstream_answers

pytestmark = unlike_uvicorn("it speaks no HTTP/2")

# --- Rows ---


def answered(name: str, frames: bytes, *calls: str, status: int = 200) -> Row:
    return Row(name, (frames,), (f"1: {status}",), calls, KEPT)


def malformed(name: str, frames: bytes, *calls: str, code: str = "PROTOCOL_ERROR") -> Row:
    """The stream is reset."""
    return Row(name, (frames,), (f"1: {code}",), calls, KEPT)


def fatal(name: str, code: str | None, frames: bytes, *calls: str) -> Row:
    """The connection ends, with GOAWAY if there is a code."""
    return Row(name, (frames,), (f"GOAWAY {code}",) if code else (), calls, CLOSED)


def silent(name: str, frames: bytes, *calls: str, end: End = KEPT) -> Row:
    return Row(name, (frames,), (), calls, end)


PSEUDO_HEADERS = [
    answered("plain", get(), "GET /a"),
    answered("host for authority", request(METHOD, SCHEME, PATH, ("host", "a")), "GET /a"),
    answered("host besides authority", get(("host", "b")), "GET /a"),
    malformed("host with a space besides authority", get(("host", "a b"))),
    malformed("no method", request(SCHEME, AUTHORITY, PATH)),
    malformed("no scheme", request(METHOD, AUTHORITY, PATH)),
    malformed("no path", request(METHOD, SCHEME, AUTHORITY)),
    malformed("no authority", request(METHOD, SCHEME, PATH)),
    malformed("none", request(("x", "1"))),
    malformed("no field at all", request()),
    malformed("two hosts besides authority", get(("host", "a"), ("host", "b"))),
    malformed("two hosts for authority", request(METHOD, SCHEME, PATH, ("host", "a"), ("host", "b"))),
    malformed("method twice", get((":method", "PUT"))),
    malformed("path twice", get((":path", "/b"))),
    malformed("authority twice", get((":authority", "b"))),
    malformed("scheme twice", get((":scheme", "http"))),
    malformed("after a field", request(METHOD, SCHEME, ("x", "1"), AUTHORITY, PATH)),
    malformed("status", get((":status", "200"))),
    malformed("unknown", get((":x", "1"))),
    malformed("no name", get((":", "1"))),
    malformed("upper case", request((":METHOD", "GET"), SCHEME, AUTHORITY, PATH)),
    malformed("protocol without CONNECT", get((":protocol", "websocket"))),
]

METHODS = [
    answered("unknown", request(*pseudo("FROBNICATE")), "FROBNICATE /a"),
    answered("lower case", request(*pseudo("get")), "GET /a"),
    answered("of 10 kB", request(*pseudo("G" * 10_000)), f"{'G' * 10_000} /a"),
    malformed("empty", request(*pseudo(""))),
    malformed("request line", request(*pseudo("GET /b HTTP/1.1"))),
    malformed("with line end", request(*pseudo("GET\r\nx: 1"))),
    malformed("with a high byte", request(*pseudo("G\xc9T"))),
    malformed("CONNECT with a path", request(*pseudo("CONNECT"))),
    malformed("CONNECT without authority", request((":method", "CONNECT"))),
    malformed(
        "CONNECT with a protocol and no path", request((":method", "CONNECT"), SCHEME, AUTHORITY, (":protocol", "x"))
    ),
    # Envoy drains the connection: GOAWAY without an error, and its end once drain_timeout is over.
    Row(
        "CONNECT with an unknown protocol",
        (request(*pseudo("CONNECT"), (":protocol", "x")),),
        ("1: 403",),
        (),
        CLOSED,
    ),
    Row(
        "CONNECT",
        (request((":method", "CONNECT"), (":authority", "a:443"), end=False),),
        ("1: 501", "1: NO_ERROR"),
        (),
        KEPT,
    ),
]

TARGETS = [
    answered("quotes and brackets", request(*pseudo(path='/"<>^`{}|\\[]')), 'GET /"<>^`{}|\\[]'),
    answered("of 16 kB", request(*pseudo(path="/" + "a" * 16_000)), f"GET /{'a' * 16_000}"),
    answered("asterisk for OPTIONS", request(*pseudo("OPTIONS", path="*")), status=404),
    answered("fragment", request(*pseudo(path="/a#b")), status=400),
    answered("high byte", request(*pseudo(path="/\xe4")), status=400),
    malformed("empty", request(*pseudo(path=""))),
    malformed("without slash", request(*pseudo(path="a"))),
    malformed("absolute", request(*pseudo(path="http://b/a"))),
    malformed("asterisk for GET", request(*pseudo(path="*"))),
    malformed("query only", request(*pseudo(path="?b"))),
    malformed("space", request(*pseudo(path="/a b"))),
    malformed("line end", request(*pseudo(path="/a\r\nx: 1"))),
    malformed("version", request(*pseudo(path="/a HTTP/1.1"))),
    malformed("nul", request(*pseudo(path="/\0"))),
    malformed("tab", request(*pseudo(path="/\t"))),
    malformed("delete", request(*pseudo(path="/\x7f"))),
    answered("scheme https", request(*pseudo(scheme="https")), "GET /a"),
    answered("scheme unknown", request(*pseudo(scheme="ftp")), "GET /a"),
    answered("scheme in upper case", request(*pseudo(scheme="HTTP")), "GET /a"),
    malformed("scheme empty", request(*pseudo(scheme=""))),
    malformed("scheme with space", request(*pseudo(scheme="ht tp"))),
    malformed("scheme with line end", request(*pseudo(scheme="http\r\n"))),
]

AUTHORITIES = [
    answered("with port", request(*pseudo(authority="a:80")), "GET /a host=a:80"),
    answered("percent", request(*pseudo(authority="%41")), "GET /a host=%41"),
    answered("comma", request(*pseudo(authority="a,b")), status=400),
    answered("port that is no number", request(*pseudo(authority="a:b")), status=400),
    answered("two hosts in one", request(METHOD, SCHEME, PATH, ("host", "a,b")), status=400),
    malformed("empty", request(*pseudo(authority=""))),
    malformed("user", request(*pseudo(authority="u@a"))),
    malformed("space", request(*pseudo(authority="a b"))),
    malformed("slash", request(*pseudo(authority="a/b"))),
    malformed("line end", request(*pseudo(authority="a\r\nx: 1"))),
    malformed("high byte", request(*pseudo(authority="\xe4"))),
]

FIELDS = [
    answered("high bytes", get(("x", "\xe4\xff")), "GET /a x=\xe4\xff"),
    answered("tab in value", get(("x", "1\t2")), "GET /a x=1\t2"),
    answered("empty value", get(("x", "")), "GET /a x="),
    answered("te: trailers", get(("te", "trailers")), "GET /a"),
    answered("http2-settings", get(("http2-settings", "AAMAAABk")), "GET /a"),
    answered("expect", post(("expect", "100-continue")) + data(b"hello"), "POST /a [hello]"),
    answered("cookies", get(("cookie", "a=1"), ("cookie", "b=2")), "GET /a"),
    answered("space before value", get(("x", " 1")), status=400),
    answered("space after value", get(("x", "1 ")), status=400),
    answered("tab before value", get(("x", "\t1")), status=400),
    answered("space before a cookie", get(("cookie", " a=1")), status=400),
    answered("space after a cookie", get(("cookie", "a=1 "), ("cookie", "b=2")), "GET /a"),
    malformed("line end in value", get(("x", "1\r\ny: 2"))),
    malformed("carriage return in value", get(("x", "1\r2"))),
    malformed("line feed in value", get(("x", "1\n2"))),
    malformed("nul in value", get(("x", "1\x002"))),
    malformed("vertical tab in value", get(("x", "1\v2"))),
    malformed("backspace in value", get(("x", "1\b2"))),
    malformed("delete in value", get(("x", "1\x7f2"))),
    malformed("upper-case name", get(("X", "1"))),
    malformed("empty name", get(("", "1"))),
    malformed("space in name", get(("x y", "1"))),
    malformed("colon in name", get(("x:y", "1"))),
    malformed("line end in name", get(("x\r\ny", "1"))),
    malformed("nul in name", get(("x\0", "1"))),
    malformed("high byte in name", get(("x\xe4", "1"))),
    malformed("delete in name", get(("x\x7f", "1"))),
    malformed("parenthesis in name", get(("x(y", "1"))),
    malformed("connection", get(("connection", "keep-alive"))),
    malformed("connection: close", get(("connection", "close"))),
    malformed("keep-alive", get(("keep-alive", "1"))),
    malformed("proxy-connection", get(("proxy-connection", "1"))),
    malformed("upgrade", get(("upgrade", "h2c"))),
    malformed("transfer-encoding", get(("transfer-encoding", "chunked"))),
    malformed("transfer-encoding with a body", post(("transfer-encoding", "chunked")) + data(b"0\r\n\r\n")),
    malformed("te: gzip", get(("te", "gzip"))),
    malformed("te: trailers, gzip", get(("te", "trailers, gzip"))),
    answered("101 of them", get(*((f"x{n}", "1") for n in range(101))), status=431),
    malformed("1200 of them", get(*((f"x{n}", "1") for n in range(1200))), code="INTERNAL_ERROR"),
    answered("1000 cookies", get(*(("cookie", "a=1") for _ in range(1000))), "GET /a"),
    malformed("1200 cookies", get(*(("cookie", "a=1") for _ in range(1200))), code="INTERNAL_ERROR"),
    malformed(
        "together 96 kB",
        frame(HEADERS, END_STREAM, 1, BLOCK)
        + b"".join(frame(CONTINUATION, 0, 1, block((f"x{n}", "1" * 16_000))) for n in range(6))
        + frame(CONTINUATION, END_HEADERS, 1),
        code="INTERNAL_ERROR",
    ),
]

LENGTHS = [
    answered("right", post(("content-length", "5")) + data(b"hello"), "POST /a [hello]"),
    malformed("more than is sent", post(("content-length", "5")) + data(b"hell"), "POST /a cut"),
    malformed("less than is sent", post(("content-length", "5")) + data(b"hello!"), "POST /a cut"),
    malformed("0 and a body", post(("content-length", "0")) + data(b"hello"), "POST /a cut"),
    malformed("no body", request(*pseudo("POST"), ("content-length", "5"))),
    malformed("twice", post(("content-length", "5"), ("content-length", "6")) + data(b"hello")),
    malformed("twice the same", post(("content-length", "5"), ("content-length", "5")) + data(b"hello")),
    malformed("list", post(("content-length", "5, 5")) + data(b"hello")),
    malformed("negative", post(("content-length", "-5")) + data(b"hello")),
    malformed("plus", post(("content-length", "+5")) + data(b"hello")),
    malformed("hexadecimal", post(("content-length", "0x5")) + data(b"hello")),
    malformed("word", post(("content-length", "five")) + data(b"hello")),
    malformed("empty", post(("content-length", "")) + data(b"hello")),
    malformed("of 20 digits", post(("content-length", "9" * 20)) + data(b"hello")),
]

HELLO = post() + data(b"hello", end=False)

TRAILERS = [
    answered("plain", HELLO + request(("x", "1")), "POST /a [hello]"),
    answered("none", HELLO + request(), "POST /a [hello]"),
    malformed("pseudo-header", HELLO + request((":path", "/b")), "POST /a cut"),
    malformed("content-length", HELLO + request(("content-length", "1")), "POST /a cut"),
    malformed("upper case", HELLO + request(("X", "1")), "POST /a cut"),
    malformed("connection", HELLO + request(("connection", "close")), "POST /a cut"),
    malformed("line end", HELLO + request(("x", "1\r\n")), "POST /a cut"),
    malformed("not the end", HELLO + request(("x", "1"), end=False), "POST /a cut"),
    malformed("another request", HELLO + get(), "POST /a cut"),
]

DATA_FRAMES = [
    answered("padded", post() + frame(DATA, END_STREAM | PADDED, 1, b"\x03hello\0\0\0"), "POST /a [hello]"),
    answered("padding not zero", post() + frame(DATA, END_STREAM | PADDED, 1, b"\x03hello\1\2\3"), "POST /a [hello]"),
    fatal("on stream 0", "PROTOCOL_ERROR", frame(DATA, END_STREAM, 0, b"x")),
    fatal("on an idle stream", "PROTOCOL_ERROR", data(b"x")),
    fatal("on an even stream", "PROTOCOL_ERROR", data(b"x", stream=2)),
    fatal("after the end", "STREAM_CLOSED", get() + data(b"x"), "GET /a cut"),
    silent("after a reset", post() + reset() + data(b"x"), "POST /a cut"),
    fatal("padding too long", "PROTOCOL_ERROR", post() + frame(DATA, PADDED, 1, b"\xffx"), "POST /a cut"),
    fatal("padding without length", "PROTOCOL_ERROR", post() + frame(DATA, PADDED, 1), "POST /a cut"),
    fatal("a byte too long", "FRAME_SIZE_ERROR", post() + data(b"x" * (FRAME_SIZE + 1)), "POST /a cut"),
    malformed(
        "beyond the stream's window",
        post() + data(b"x" * FRAME_SIZE, end=False) * 20,
        "POST /a cut",
        code="FLOW_CONTROL_ERROR",
    ),
]

HEADERS_FRAMES = [
    answered("reserved bit", get(stream=1 | 1 << 31), "GET /a"),
    Row("last stream", (get(stream=LAST_STREAM),), (f"{LAST_STREAM}: 200",), ("GET /a",), WAITS),
    Row("backwards", (get(stream=5) + get(stream=3),), ("5: 200",), ("GET /a",), KEPT),
    answered(
        "in pieces",
        frame(HEADERS, END_STREAM, 1)
        + b"".join(frame(CONTINUATION, 0, 1, bytes([byte])) for byte in BLOCK)
        + frame(CONTINUATION, END_HEADERS, 1),
        "GET /a",
    ),
    fatal("on stream 0", None, get(stream=0)),
    fatal("on an even stream", None, get(stream=2)),
    fatal("twice", None, get() + get(), "GET /a cut"),
    fatal("padding too long", "PROTOCOL_ERROR", frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + BLOCK)),
    fatal("too long", "FRAME_SIZE_ERROR", get(("x", "1" * FRAME_SIZE))),
    fatal("depends on itself", None, frame(HEADERS, WHOLE | HAS_PRIORITY, 1, struct.pack(">IB", 1, 1) + BLOCK)),
    fatal("short priority", "FRAME_SIZE_ERROR", frame(HEADERS, WHOLE | HAS_PRIORITY, 1, b"\0")),
    fatal("then PING", "PROTOCOL_ERROR", frame(HEADERS, END_STREAM, 1, BLOCK) + frame(PING, 0, 0, b"12345678")),
    fatal("then HEADERS", "PROTOCOL_ERROR", frame(HEADERS, END_STREAM, 1, BLOCK) + get(stream=3)),
    fatal("then DATA", "PROTOCOL_ERROR", frame(HEADERS, 0, 1, BLOCK) + data()),
    fatal("then unknown", "PROTOCOL_ERROR", frame(HEADERS, END_STREAM, 1, BLOCK) + frame(UNKNOWN, 0, 1)),
    fatal(
        "continued elsewhere",
        "PROTOCOL_ERROR",
        frame(HEADERS, END_STREAM, 1, BLOCK) + frame(CONTINUATION, END_HEADERS, 3),
    ),
    fatal("CONTINUATION alone", "PROTOCOL_ERROR", frame(CONTINUATION, END_HEADERS, 1, BLOCK)),
    fatal("CONTINUATION after the end", "PROTOCOL_ERROR", get() + frame(CONTINUATION, END_HEADERS, 1), "GET /a cut"),
    fatal(
        "PUSH_PROMISE", None, post() + frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + BLOCK), "POST /a cut"
    ),
    Row(
        "101 streams",
        (b"".join(post(stream=n) for n in streams(101)),),
        ("201: REFUSED_STREAM",),
        ("POST /a cut",) * 100,
        WAITS,
    ),
]

CONTROL_FRAMES = [
    silent("PRIORITY on stream 0", frame(PRIORITY, 0, 0, struct.pack(">IB", 1, 1))),
    answered("PRIORITY on itself", frame(PRIORITY, 0, 1, struct.pack(">IB", 1, 1)) + get(), "GET /a"),
    answered(
        "PRIORITY in a circle",
        frame(PRIORITY, 0, 3, struct.pack(">IB", 5, 1)) + frame(PRIORITY, 0, 5, struct.pack(">IB", 3, 1)) + get(),
        "GET /a",
    ),
    fatal("PRIORITY short", "FRAME_SIZE_ERROR", frame(PRIORITY, 0, 1, b"\0" * 4)),
    fatal("RST_STREAM on stream 0", None, reset(0)),
    fatal("RST_STREAM on an idle stream", None, reset()),
    fatal("RST_STREAM short", "FRAME_SIZE_ERROR", post() + frame(RST_STREAM, 0, 1, b"\0" * 3), "POST /a cut"),
    silent("RST_STREAM twice", post() + reset() + reset(), "POST /a cut"),
    silent("RST_STREAM without error", post() + reset(code=0), "POST /a cut"),
    silent("RST_STREAM with an unknown code", post() + reset(code=2**32 - 1), "POST /a cut"),
    fatal("PING on a stream", None, frame(PING, 0, 1, b"12345678")),
    fatal("PING short", "FRAME_SIZE_ERROR", frame(PING, 0, 0, b"1234567")),
    answered("PING answer unasked", frame(PING, ACK, 0, b"12345678") + get(), "GET /a"),
    fatal("GOAWAY on a stream", None, frame(GOAWAY, 0, 1, b"\0" * 8)),
    fatal("GOAWAY short", "FRAME_SIZE_ERROR", frame(GOAWAY, 0, 0, b"\0" * 7)),
    Row("GOAWAY, then a request", (frame(GOAWAY, 0, 0, b"\0" * 8) + get(),), ("1: 200",), ("GET /a",), WAITS),
    fatal("WINDOW_UPDATE of 0", None, window(0)),
    fatal("WINDOW_UPDATE of 0 on a stream", None, post() + window(0, 1), "POST /a cut"),
    fatal("WINDOW_UPDATE beyond 2**31", None, window(2**31 - 1)),
    fatal("WINDOW_UPDATE beyond 2**31 on a stream", None, post() + window(2**31 - 1, 1), "POST /a cut"),
    fatal("WINDOW_UPDATE on an idle stream", None, window(1, 1)),
    fatal("WINDOW_UPDATE short", "FRAME_SIZE_ERROR", frame(WINDOW_UPDATE, 0, 0, b"\0" * 3)),
    answered("WINDOW_UPDATE on a closed stream", get() + window(1, 1), "GET /a"),
    answered("unknown", frame(UNKNOWN, 0xFF, 1, b"x" * 100) + get(), "GET /a"),
    fatal("unknown too long", "FRAME_SIZE_ERROR", frame(UNKNOWN, 0, 0, b"x" * (FRAME_SIZE + 1))),
    answered("ALTSVC", frame(0xA, 0, 0, b"\0\1ab") + get(), "GET /a"),
    answered("ORIGIN", frame(0xC, 0, 0, b"\0\1a") + get(), "GET /a"),
    answered("PRIORITY_UPDATE", frame(0x10, 0, 0, b"\0\0\0\1u=1") + get(), "GET /a"),
    silent("half a frame's head", b"\0\0\x10\0", end=WAITS),
    silent("half a frame", get()[:-1], end=WAITS),
    fatal("of 16 MB", "FRAME_SIZE_ERROR", b"\xff\xff\xff\0\0\0\0\0\1"),
    fatal("HTTP/1 request", "FRAME_SIZE_ERROR", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
]

SETTINGS_FRAMES = [
    fatal("on a stream", None, frame(SETTINGS, 0, 1)),
    fatal("of 5 bytes", "FRAME_SIZE_ERROR", frame(SETTINGS, 0, 0, b"\0" * 5)),
    fatal("answer with settings", "FRAME_SIZE_ERROR", frame(SETTINGS, ACK, 0, b"\0" * 6)),
    fatal("answers unasked", None, frame(SETTINGS, ACK, 0) * 3),
    answered("unknown", settings((0xFFFF, 1)) + get(), "GET /a"),
    answered("push", settings((2, 1)) + get(), "GET /a"),
    fatal("push of 2", None, settings((2, 2))),
    fatal("window beyond 2**31", None, settings((4, 2**31))),
    Row(
        "window closed, then open",
        (settings((4, 0)) + get(), CALLED, settings((4, 65535))),
        ("1: 200",),
        ("GET /a",),
        KEPT,
    ),
    malformed(
        "window of a stream beyond 2**31",
        post() + window(2**31 - 1 - 65535, 1) + settings((4, 2**31 - 1)),
        "POST /a cut",
        code="FLOW_CONTROL_ERROR",
    ),
    fatal("frame size too small", None, settings((5, FRAME_SIZE - 1))),
    fatal("frame size too large", None, settings((5, 2**24))),
    answered("table of 4 GB", settings((1, 2**32 - 1)) + get(), "GET /a"),
    answered("no table", settings((1, 0)) + get(), "GET /a"),
    answered("no header list", settings((6, 0)) + get(), "GET /a"),
    answered("no streams", settings((3, 0)) + get(), "GET /a"),
    fatal("connect protocol of 2", None, settings((8, 2))),
]

# One field of 4,000 bytes in the table, and a block that names it 12,000 times.
BOMB = BLOCK + b"\x40\x01x" + integer(4000, 7) + b"1" * 4000 + b"\xbe" * 12_000

COMPRESSION = [
    *(
        fatal(name, "COMPRESSION_ERROR", frame(HEADERS, WHOLE, 1, payload))
        for name, payload in {
            "index 0": b"\x80",
            "index beyond the table": integer(1000, 7, 0x80),
            "name beyond the table": integer(1000, 6, 0x40) + b"\x01a",
            "integer without end": b"\xff" * 20,
            "string of 256 MB": b"\0\x7f\xff\xff\xff\x7f",
            "string cut": b"\0\x05ab",
            "end of string within Huffman": BLOCK + b"\0\x01x\x84\xff\xff\xff\xff",
            "Huffman padding of zeros": BLOCK + b"\0\x01x\x81\x00",
            "table size after a field": BLOCK + b"\x20",
            "table size too large": integer(1 << 20, 5, 0x20) + BLOCK,
        }.items()
    ),
    malformed("bomb", frame(HEADERS, WHOLE, 1, BOMB), code="INTERNAL_ERROR"),
]

TABLE = by_front(
    {
        "pseudo-header": PSEUDO_HEADERS,
        "method": METHODS,
        "target": TARGETS,
        "authority": AUTHORITIES,
        "field": FIELDS,
        "content-length": LENGTHS,
        "trailer": TRAILERS,
        "DATA": DATA_FRAMES,
        "HEADERS": HEADERS_FRAMES,
        "control": CONTROL_FRAMES,
        "SETTINGS": SETTINGS_FRAMES,
        "HPACK": COMPRESSION,
    },
    upstream_answers.HTTP2,
)


# --- Conversations ---


class Client:
    """A connection that writes bytes and keeps the server's answers as text."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.port = writer.get_extra_info("sockname")[1]
        self.decoder = Decoder()
        self.answers: list[str] = []
        self.statuses: dict[int, str] = {}

    async def write(self, frames: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # the server may have had enough
            self.writer.write(frames)
            await self.writer.drain()

    async def more(self) -> bool:
        """Reads a frame; False at the connection's end."""
        try:
            async with asyncio.timeout(DEADLINE):
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        except (ConnectionError, asyncio.IncompleteReadError):
            return False
        self.take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        return True

    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            status = dict(self.decoder.decode(payload, raw=True))[b":status"].decode()
            if status != "100":
                assert stream not in self.statuses, "a second head"
                self.statuses[stream] = status
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.answers.append(f"{stream}: {self.statuses[stream]}")
        elif kind == RST_STREAM:
            self.answers.append(f"{stream}: {CODES[int.from_bytes(payload, 'big')]}")
        elif kind == GOAWAY and any(payload[4:8]):
            self.answers.append(f"GOAWAY {CODES[int.from_bytes(payload[4:8], 'big')]}")


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", server.port))
    try:
        await forget(server, client.port)
        await client.write(PREFACE + settings())
        yield client
    finally:
        client.writer.close()


async def converse(server: Server, row: Row) -> Outcome:
    async with connected(server) as client:
        for step in row.steps:
            if isinstance(step, bytes):
                await client.write(step)
            else:
                await called(server, client.port, 1)
        while len(client.answers) < len(row.answers) and await client.more():
            pass
        if row.end is KEPT:
            calls = await calls_of(server, client.port, len(row.calls))
            next_answer = "1001: 200"
            await client.write(get(stream=1001))
            while next_answer not in client.answers and await client.more():
                pass
            client.answers.remove(next_answer)
            return Outcome(tuple(client.answers), calls, KEPT)
        if row.end is WAITS:
            client.writer.write_eof()
        while await client.more():
            pass
        return Outcome(tuple(client.answers), await calls_of(server, client.port, len(row.calls)), row.end)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """It closes no connection for being idle before the test gives up."""
    with serve(f"{__name__}:app", timeout_keep_alive=2 * DEADLINE) as server:
        yield server


@pytest.fixture(name="outcomes", scope="module")
def outcomes_fixture(request: pytest.FixtureRequest, server: Server) -> dict[Row, Outcome | Exception]:
    return outcomes(request, server, converse)


@each(TABLE)
def test_connection(row: Row, outcomes: dict[Row, Outcome | Exception]) -> None:
    check(row, outcomes[row])


# --- Floods ---

FLOODS = {
    "PING": frame(PING, 0, 0, b"12345678") * 20_000,
    "SETTINGS": settings() * 20_000,
    "SETTINGS that change": settings((4, 65535)) * 20_000,
    "requests and resets": b"".join(get(stream=n) + reset(n) for n in streams(5000)),
    "uploads and resets": b"".join(post(stream=n) + reset(n) for n in streams(5000)),
    "refused streams": b"".join(post(stream=n) for n in streams(5000)),
    "malformed requests": b"".join(request(stream=n) for n in streams(20_000)),
    "PRIORITY": b"".join(frame(PRIORITY, 0, n, struct.pack(">IB", 0, 1)) for n in streams(20_000)),
    "WINDOW_UPDATE": window(1) * 20_000,
    "WINDOW_UPDATE on a stream": post() + window(1, 1) * 20_000,
    "empty CONTINUATION": frame(HEADERS, END_STREAM, 1, BLOCK) + frame(CONTINUATION, 0, 1) * 20_000,
    "CONTINUATION": frame(HEADERS, END_STREAM, 1, BLOCK) + frame(CONTINUATION, 0, 1, block(("x", "1"))) * 20_000,
    "empty DATA": post() + data(end=False) * 20_000,
    "padding for DATA": post() + frame(DATA, PADDED, 1, b"\xff" + b"\0" * 255) * 1000,
}
if FRONT == OWN:
    # Envoy bears any number of them.
    FLOODS["answers to PING"] = frame(PING, ACK, 0, b"12345678") * 20_000
    FLOODS["unknown"] = frame(UNKNOWN, 0, 0) * 20_000


@pytest.mark.parametrize("name", FLOODS)
async def test_flood_ends_its_connection(server: Server, name: str) -> None:
    async with connected(server) as client:

        async def flood() -> None:
            frames = FLOODS[name]
            for at in range(0, len(frames), 65536):
                await client.write(frames[at : at + 65536])

        flooding = asyncio.create_task(flood())
        while await client.more():
            pass
        flooding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flooding
        calls = await calls_of(server, client.port, 0)
        assert all(call.endswith(" cut") for call in calls)


# --- Slow clients ---

TIMED_OUT = ("1: 408", "1: NO_ERROR")

SLOW = by_front(
    {
        "slow": [
            Row("settings", (b"",), (), (), CLOSED),
            Row("half a frame", (get()[:-1],), TIMED_OUT, (), CLOSED),
            Row("head", (frame(HEADERS, END_STREAM, 1, BLOCK),), TIMED_OUT, (), CLOSED),
            Row("body", (post() + data(b"he", end=False),), TIMED_OUT, ("POST /a cut",), CLOSED),
            Row("trailers", (HELLO + frame(HEADERS, END_STREAM, 1),), TIMED_OUT, ("POST /a cut",), CLOSED),
            Row("window", (settings((4, 0)) + get(),), ("1: INTERNAL_ERROR",), ("GET /a",), CLOSED),
        ]
    },
    upstream_answers.SLOW_HTTP2,
)["slow"]


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """Only once a request has begun: what is asked of the application comes on connections of its own."""
    with serve(f"{__name__}:app", timeout_request_headers=0.3, timeout_idle=0.3) as server:
        yield server


@pytest.fixture(scope="module")
def let_go(impatient: Server) -> dict[Row, Outcome | Exception]:
    """All at once, since they wait for the keep-alive time-out."""
    return asyncio.run(converse_all(impatient, SLOW, converse))


@pytest.mark.parametrize("slow", SLOW, ids=lambda row: row.name)
def test_stalled_connection_is_let_go(let_go: dict[Row, Outcome | Exception], slow: Row) -> None:
    check(slow, let_go[slow])


async def test_nothing_is_left_of_them(server: Server, outcomes: dict[Row, Outcome | Exception]) -> None:
    assert (await account(server))["all"] == 0
