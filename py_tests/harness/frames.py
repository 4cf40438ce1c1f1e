"""Frames of HTTP/2 (RFC 9113, section 6) as bytes, right and wrong ones."""

import struct

from py_tests.harness.hostile import Field, pseudo, string

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
UNKNOWN = 0x42
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
WHOLE = END_HEADERS | END_STREAM
FRAME_SIZE = 16384
LAST_STREAM = 2**31 - 1

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

CODES = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(*fields: Field) -> bytes:
    """Fields as literals that leave no trace in the dynamic table."""
    return b"".join(b"\0" + string(name) + string(value) for name, value in fields)


METHOD, SCHEME, AUTHORITY, PATH = pseudo()
BLOCK = block(*pseudo())


def request(*fields: Field, stream: int = 1, end: bool = True) -> bytes:
    return frame(HEADERS, WHOLE if end else END_HEADERS, stream, block(*fields))


def get(*fields: Field, stream: int = 1) -> bytes:
    return request(*pseudo(), *fields, stream=stream)


def post(*fields: Field, stream: int = 1) -> bytes:
    return request(*pseudo("POST"), *fields, stream=stream, end=False)


def data(payload: bytes = b"", stream: int = 1, end: bool = True) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def reset(stream: int = 1, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window(increment: int, stream: int = 0) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def streams(count: int) -> range:
    return range(1, 2 * count, 2)
