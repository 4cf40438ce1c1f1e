"""An HTTP/1.1 client on a bare socket: it reads only what it is asked for, and can send anything."""

import asyncio
import select
import socket
from typing import Self

from py_tests.harness.deadline import DEADLINE
from py_tests.harness.exchange import Connection, Exchange, Head, Headers, ResponseCut
from py_tests.harness.wire import Tls, Wire

PIECE = 64 * 1024


class Http1Connection(Connection):
    protocol = "http/1.1"
    version = "1.1"

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.sock = wire.sock
        self.local_port = wire.local_port
        self.buffer = b""
        self.broken = False
        """The connection did not end in good order."""

    @classmethod
    async def open(cls, port: int, tls: Tls | None = None) -> Self:
        return cls(await Wire.open(port, tls, "http/1.1"))

    async def write(self, data: bytes) -> None:
        async with asyncio.timeout(DEADLINE):
            await self.wire.send(data)

    async def more(self) -> bool:
        """Reads once into the buffer; False at the connection's end."""
        try:
            async with asyncio.timeout(DEADLINE):
                data = await self.wire.receive(PIECE)
        except ConnectionError:
            self.broken = True
            return False
        self.buffer += data
        return bool(data)

    async def until(self, mark: bytes) -> bytes:
        """Takes what comes before `mark`, and the mark, from the connection."""
        while (end := self.buffer.find(mark)) < 0:
            if not await self.more():
                raise ResponseCut(reason=f"the connection's end where {mark!r} was due")
        taken, self.buffer = self.buffer[:end], self.buffer[end + len(mark) :]
        return taken

    async def start(
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        upload: bool = False,
    ) -> "Http1Exchange":
        lines = list(headers)
        names = {name.lower() for name, _ in lines}
        if b"host" not in names:
            lines.insert(0, (b"host", self.wire.authority.encode()))
        chunked = upload and b"content-length" not in names
        assert self.version == "1.1" or not chunked, "HTTP/1.0 knows no chunks"
        if chunked:
            lines.append((b"transfer-encoding", b"chunked"))
        elif body and b"content-length" not in names:
            lines.append((b"content-length", b"%d" % len(body)))
        head = b"".join(b"%s: %s\r\n" % line for line in lines)
        await self.write(f"{method} {path} HTTP/{self.version}\r\n".encode() + head + b"\r\n" + body)
        return Http1Exchange(self, method, chunked)

    async def ended(self, within: float = DEADLINE) -> None:
        async with asyncio.timeout(within):
            while await self.more():
                self.buffer = b""

    async def close(self) -> None:
        self.wire.close()

    async def abort(self) -> None:
        self.wire.abort()


class Http10Connection(Http1Connection):
    """Requests of HTTP/1.0; the server closes the connection after the response."""

    protocol = "http/1.0"
    version = "1.0"


class Http1Exchange(Exchange):
    """Exchanges of one connection must be read in the order in which they were started."""

    def __init__(self, connection: Http1Connection, method: str = "GET", chunked: bool = False):
        super().__init__()
        self.connection = connection
        self.method = method
        self.chunked = chunked
        self.framing = ""
        self.left = 0

    async def send(self, data: bytes, *, end: bool = False) -> None:
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            framed = b"%x\r\n%s\r\n" % (len(piece), piece) if self.chunked else piece
            await self.connection.write(framed)
            self.sent += len(piece)
        if end and self.chunked:
            await self.connection.write(b"0\r\n\r\n")

    async def send_trailers(self, fields: Headers) -> None:
        assert self.chunked
        lines = b"".join(b"%s: %s\r\n" % field for field in fields)
        await self.connection.write(b"0\r\n" + lines + b"\r\n")

    async def any_head(self) -> Head:
        first, *lines = (await self.connection.until(b"\r\n\r\n")).split(b"\r\n")
        version, status, *_ = first.split(b" ")
        assert version in (b"HTTP/1.1", b"HTTP/1.0"), first
        return int(status), [parsed(line) for line in lines]

    def silent(self) -> bool:
        readable, _, _ = select.select([self.connection.sock], [], [], 0)
        return not readable and not self.connection.buffer

    def begin_body(self) -> None:
        """How the body's end will be known: RFC 9112, section 6.3."""
        fields = {name.lower(): value for name, value in self.headers}
        if self.method == "HEAD" or self.status in (204, 304):
            self.framing = "none"
        elif b"transfer-encoding" in fields:
            assert self.connection.version == "1.1", "chunks for a client that knows none"
            assert fields[b"transfer-encoding"] == b"chunked", fields
            assert b"content-length" not in fields, fields
            self.framing = "chunked"
        elif b"content-length" in fields:
            self.framing = "length"
            self.left = int(fields[b"content-length"])
        else:
            self.framing = "close"

    async def chunk(self) -> bytes:
        if self.framing == "none" or (self.framing == "length" and not self.left):
            return b""
        if self.framing == "chunked" and not self.left:
            self.left = int((await self.connection.until(b"\r\n")).split(b";")[0], 16)
            if not self.left:
                while line := await self.connection.until(b"\r\n"):
                    self.trailers.append(parsed(line))
                self.framing = "none"
                return b""
        if not self.connection.buffer and not await self.connection.more():
            if self.framing == "close" and not self.connection.broken:
                return b""
            raise ResponseCut(reason=f"the connection's end with {self.left} bytes due")
        return await self.take()

    async def take(self) -> bytes:
        buffer = self.connection.buffer
        size = len(buffer) if self.framing == "close" else min(self.left, len(buffer))
        taken, self.connection.buffer = buffer[:size], buffer[size:]
        self.left -= size
        if self.framing == "chunked" and not self.left:
            assert await self.connection.until(b"\r\n") == b""
        return taken

    async def leave(self) -> None:
        await self.connection.close()


def parsed(line: bytes) -> tuple[bytes, bytes]:
    """A header line as name and value."""
    name, value = line.split(b":", 1)
    return name, value.strip()


def stalled(port: int, request: bytes) -> socket.socket:
    """A client with little room for what it does not read."""
    client = socket.socket()
    client.settimeout(DEADLINE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    return client
