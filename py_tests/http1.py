"""An HTTP/1.1 client on a bare socket: it reads only what it is asked for, and can send anything."""

import asyncio
import socket
import struct
from typing import Self

from deadline import DEADLINE
from exchange import Connection, Exchange, Headers, ResponseCut

PIECE = 64 * 1024


class Http1Connection(Connection):
    protocol = "http/1.1"

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.local_port = sock.getsockname()[1]
        self.buffer = b""

    @classmethod
    async def open(cls, port: int) -> Self:
        sock = socket.socket()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(DEADLINE):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def write(self, data: bytes) -> None:
        async with asyncio.timeout(DEADLINE):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def more(self) -> bool:
        """Reads once into the buffer; False at the connection's end."""
        try:
            async with asyncio.timeout(DEADLINE):
                data = await asyncio.get_running_loop().sock_recv(self.sock, PIECE)
        except ConnectionError:
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
            host, port = self.sock.getpeername()
            lines.insert(0, (b"host", f"{host}:{port}".encode()))
        chunked = upload and b"content-length" not in names
        if chunked:
            lines.append((b"transfer-encoding", b"chunked"))
        elif body and b"content-length" not in names:
            lines.append((b"content-length", b"%d" % len(body)))
        head = b"".join(b"%s: %s\r\n" % line for line in lines)
        await self.write(f"{method} {path} HTTP/1.1\r\n".encode() + head + b"\r\n" + body)
        return Http1Exchange(self, method, chunked)

    async def ended(self, within: float = DEADLINE) -> None:
        async with asyncio.timeout(within):
            while await self.more():
                self.buffer = b""

    async def close(self) -> None:
        self.sock.close()

    async def abort(self) -> None:
        # Linger 0: close() sends RST.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Http1Exchange(Exchange):
    """Exchanges of one connection must be read in the order in which they were started."""

    def __init__(self, connection: Http1Connection, method: str = "GET", chunked: bool = False):
        self.connection = connection
        self.method = method
        self.chunked = chunked
        self.informational: list[int] = []
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

    async def head(self) -> int:
        while True:
            first, *lines = (await self.connection.until(b"\r\n\r\n")).split(b"\r\n")
            version, status, *_ = first.split(b" ")
            assert version in (b"HTTP/1.1", b"HTTP/1.0"), first
            if int(status) >= 200:
                break
            self.informational.append(int(status))
        self.status = int(status)
        self.headers = []
        for line in lines:
            name, value = line.split(b":", 1)
            self.headers.append((name, value.strip()))
        self.expect_body()
        return self.status

    def expect_body(self) -> None:
        """How the body's end will be known: RFC 9112, section 6.3."""
        fields = {name.lower(): value for name, value in self.headers}
        if self.method == "HEAD" or self.status in (204, 304):
            self.framing = "none"
        elif b"transfer-encoding" in fields:
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
                while await self.connection.until(b"\r\n"):
                    pass  # a trailer
                self.framing = "none"
                return b""
        if not self.connection.buffer and not await self.connection.more():
            if self.framing == "close":
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
