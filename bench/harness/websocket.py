"""The least of a WebSocket client: a handshake, one frame for each message, and no pong that is not asked for."""

from __future__ import annotations

import socket
import zlib
from itertools import cycle

from harness.cases import Case

TEXT, BINARY = 1, 2

FIN, COMPRESSED, MASKED = 0x80, 0x40, 0x80

# What a compressed message ends with, which is not sent (RFC 7692, section 7.2.1).
TAIL = b"\x00\x00\xff\xff"

MASK = b"\x37\xfa\x21\x3d"

TIMEOUT = 10.0


class WrongFrameError(OSError):
    """The server sent what it should not have, or closed the connection."""


def connect(port: int, case: Case, strict: bool = True) -> socket.socket:
    """Opens a WebSocket, with compression if `case` wants it; a server that has none is refused if `strict`."""
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(handshake(port, case))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # The server waits for a message: nothing comes behind the head.
        piece = connection.recv(4096)
        if not piece:
            break
        head += piece
    accepted = b"permessage-deflate" in head
    if not head.startswith(b"HTTP/1.1 101 ") or (strict and accepted != case.deflate):
        connection.close()
        raise WrongFrameError(f"expected a handshake with{'' if case.deflate else 'out'} compression, got {head!r}")
    return connection


def handshake(port: int, case: Case) -> bytes:
    """The request that opens a WebSocket."""
    extensions = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n" if case.deflate else ""
    return (
        f"GET {case.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extensions}\r\n"
    ).encode()


def message(case: Case) -> bytes:
    """The message of `case` in a frame. If compressed, it does not refer to earlier ones, so it can be sent again."""
    payload = case.body or b""
    first = FIN | (TEXT if case.text else BINARY)
    if case.deflate:
        # With a window of 12 bits: servers may ask for as small a one (RFC 7692, section 7.1.2.2).
        compressor = zlib.compressobj(wbits=-12)
        payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
        first |= COMPRESSED
    return frame(first, payload)


def frame(first: int, payload: bytes) -> bytes:
    """A masked frame."""
    if len(payload) < 126:
        length = bytes([MASKED | len(payload)])
    elif len(payload) < 2**16:
        length = bytes([MASKED | 126]) + len(payload).to_bytes(2)
    else:
        length = bytes([MASKED | 127]) + len(payload).to_bytes(8)
    masked = bytes(byte ^ key for byte, key in zip(payload, cycle(MASK), strict=False))
    return bytes([first]) + length + MASK + masked


def frame_length(data: bytes | bytearray) -> tuple[int, int]:
    """Bytes of the head and of the whole of the frame that `data` begins with; (0, 0) if that is not to be seen yet."""
    if len(data) < 2:
        return 0, 0
    head = {126: 4, 127: 10}.get(data[1], 2)
    if len(data) < head:
        return 0, 0
    return head, head + (data[1] if head == 2 else int.from_bytes(data[2:head]))


def exchange(connection: socket.socket, case: Case) -> bytes:
    """Sends the message of `case` and gives the one that comes back."""
    connection.sendall(message(case))
    data = b""
    head = end = 0
    while not end or len(data) < end:
        piece = connection.recv(2**20)
        if not piece:
            raise WrongFrameError(f"the server closed the connection after {data[:40]!r}")
        data += piece
        head, end = frame_length(data)
    if data[0] & ~COMPRESSED != FIN | (TEXT if case.text else BINARY) or len(data) > end:
        raise WrongFrameError(f"expected one message, got {data[:40]!r}")
    if data[0] & COMPRESSED:
        return zlib.decompressobj(wbits=-15).decompress(data[head:] + TAIL)
    return data[head:]
