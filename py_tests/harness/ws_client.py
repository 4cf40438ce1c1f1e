"""A WebSocket client over any of the suite's connections. What the server sends is read by `wsproto`;
what goes to it are bytes, so that a test can send anything."""

import base64
import dataclasses
import hashlib
import socket
from typing import Any

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

from py_tests.harness.apps import Headers
from py_tests.harness.exchange import Connection, Exchange, Response, ResponseCut
from py_tests.harness.http1 import Http1Connection, Http1Exchange
from py_tests.harness.serving import BANNER, Server

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode

KEY = base64.b64encode(b"sixteen bytes !!")
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())

NO_STATUS, VANISHED = 1005, 1006


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame of the server's, or one of several pieces of a large one. Its payload is inflated."""

    opcode: Opcode
    payload: Any
    """Text, bytes, or code and reason of a close frame."""
    ends: bool = True
    """It completes its message."""


class Refused(Exception):
    """The handshake has been answered by something else than a WebSocket."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status} {response.body!r}")
        self.response = response


def fields(connection: Connection, headers: Headers = ()) -> Headers:
    """The head of a handshake on this connection, after method and path."""
    version = (b"sec-websocket-version", b"13")
    if isinstance(connection, Http1Connection):
        return [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", KEY), version, *headers]
    return [(b":protocol", b"websocket"), version, *headers]


async def begin(connection: Connection, path: str, headers: Headers = (), early: bytes = b"") -> Exchange:
    """Sends a handshake, and does not wait for the answer. With `early`, frames leave together with it."""
    head = fields(connection, headers)
    if not isinstance(connection, Http1Connection):
        exchange = await connection.start("CONNECT", path, headers=head, upload=True)
        if early:
            await exchange.send(early)
        return exchange
    host = (b"host", connection.wire.authority.encode())
    lines = b"".join(b"%s: %s\r\n" % line for line in [host, *head])
    await connection.write(f"GET {path} HTTP/1.1\r\n".encode() + lines + b"\r\n" + early)
    return Http1Exchange(connection)


async def answered(connection: Connection, exchange: Exchange, deflate: PerMessageDeflate | None = None) -> "WebSocket":
    """Waits for the answer to a handshake; raises `Refused` if there is to be no WebSocket."""
    exchange.status, exchange.headers = await exchange.any_head()
    http1 = isinstance(exchange, Http1Exchange)
    if exchange.status != (101 if http1 else 200):
        exchange.begin_body()
        raise Refused(Response(exchange.status, exchange.headers, await exchange.rest()))
    if isinstance(exchange, Http1Exchange):
        exchange.framing = "close"
    return WebSocket(connection, exchange, deflate)


async def dial(
    connection: Connection,
    path: str,
    headers: Headers = (),
    *,
    early: bytes = b"",
    subprotocols: str = "",
    deflate: PerMessageDeflate | None = None,
) -> "WebSocket":
    """Opens a WebSocket, on HTTP/1.1 in the connection's place."""
    lines = list(headers)
    if subprotocols:
        lines.append((b"sec-websocket-protocol", subprotocols.encode()))
    if deflate is not None:
        offer = deflate.offer()
        assert isinstance(offer, str)
        lines.append((b"sec-websocket-extensions", f"{deflate.name}; {offer}".encode()))
    return await answered(connection, await begin(connection, path, lines, early), deflate)


class WebSocket:
    """A WebSocket whose handshake has succeeded."""

    def __init__(self, connection: Connection, exchange: Exchange, deflate: PerMessageDeflate | None) -> None:
        self.connection = connection
        self.exchange = exchange
        self.agreed = self.header(b"sec-websocket-extensions")
        if deflate is not None and self.agreed is not None:
            deflate.finalize(self.agreed.decode().partition(";")[2])
        self.protocol = FrameProtocol(client=True, extensions=[deflate] if deflate else [])
        self.frames = self.protocol.received_frames()

    def header(self, name: bytes) -> bytes | None:
        """The value of a header of the handshake that may come once."""
        values = [value for key, value in self.exchange.headers if key.lower() == name]
        assert len(values) < 2, values
        return values[0] if values else None

    async def write(self, data: bytes) -> None:
        await self.exchange.send(data)

    async def send(self, data: str | bytes) -> None:
        """Sends a message in a single frame, compressed if that was agreed on."""
        if self.protocol.extensions and self.protocol.extensions[0].enabled():
            await self.write(bytes(self.protocol.send_data(data)))
        elif isinstance(data, str):
            await self.write(frame(TEXT, data.encode()))
        else:
            await self.write(frame(BINARY, data))

    async def frame(self) -> Frame:
        """The next frame, or a piece of it; raises `ResponseCut` where the server's bytes end."""
        while (received := next(self.frames, None)) is None:
            # The parser's generator ends where it lacks bytes.
            if not (data := await self.exchange.chunk()):
                raise ResponseCut(reason="the end of the stream where a frame was due")
            self.protocol.receive_bytes(data)
            self.frames = self.protocol.received_frames()
        payload: Any = received.payload
        if isinstance(payload, bytearray):
            payload = bytes(payload)
        elif isinstance(payload, tuple):
            payload = (int(payload[0]), payload[1] or "")
        return Frame(received.opcode, payload, received.message_finished)

    async def receive(self) -> Any:
        """The next message, whole; pings are answered."""
        pieces: list[Any] = []
        while True:
            frame_ = await self.frame()
            if frame_.opcode is PING:
                await self.write(frame(PONG, frame_.payload))
                continue
            assert frame_.opcode in (TEXT, BINARY, CONTINUATION), frame_
            pieces.append(frame_.payload)
            if frame_.ends:
                return pieces[0][:0].join(pieces)

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close frame, which comes next."""
        frame_ = await self.frame()
        assert frame_.opcode is CLOSE, frame_
        code, reason = frame_.payload
        return code, reason

    async def ended(self) -> None:
        """Waits for the end of what the server sends, in good order; nothing may come before."""
        assert await self.exchange.chunk() == b""

    async def close(self, code: int | None = 1000, reason: str = "") -> tuple[int, str]:
        """The closing handshake, from this side; gives code and reason of the answer."""
        await self.write(close_frame(code, reason))
        answer = await self.closed()
        await self.ended()
        return answer

    async def leave(self) -> None:
        """Resets the stream; on HTTP/1.1 the connection."""
        if isinstance(self.connection, Http1Connection):
            await self.connection.abort()
        else:
            await self.exchange.leave()

    async def half_close(self) -> None:
        """Says that nothing more will come, without a close frame."""
        if isinstance(self.connection, Http1Connection):
            self.connection.sock.shutdown(socket.SHUT_WR)
        else:
            await self.exchange.send(b"", end=True)


def complaints(server: Server) -> list[str]:
    """What the server has logged since the test began, without its banner."""
    return [line for line in server.fresh_log.splitlines() if not BANNER.search(line)]


MASK = b"\x37\xfa\x21\x3d"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK) -> bytes:
    """A frame of a client's; what is wrong with it is up to the test."""
    if len(payload) < 126:
        length = bytes([len(payload)])
    elif len(payload) < 65536:
        length = b"\x7e" + len(payload).to_bytes(2)
    else:
        length = b"\x7f" + len(payload).to_bytes(8)
    return framed(fin << 7 | rsv << 4 | opcode, length, payload, mask)


def framed(first: int, length: bytes, payload: bytes, mask: bytes | None = MASK) -> bytes:
    """A frame of its parts, whose length may be a lie."""
    if mask is None:
        return bytes([first]) + length + payload
    return bytes([first, 0x80 | length[0]]) + length[1:] + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    pad = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(len(payload))


def close_frame(code: int | None = 1000, reason: str = "") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2) + reason.encode())
