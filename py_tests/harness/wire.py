"""The socket below the suite's TCP clients, plain or under TLS: it is read only when asked."""

import asyncio
import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from py_tests.harness.certificates import Pair, client_context
from py_tests.harness.deadline import DEADLINE


@dataclass(frozen=True)
class Tls:
    """How a client speaks TLS: it trusts the suite's authority, and may have a certificate of its own."""

    name: str = "localhost"
    certificate: Pair | None = None
    ciphers: str | None = None
    """Those of TLS 1.2, and no newer version, over TCP."""

    def context(self, *alpn: str) -> ssl.SSLContext:
        context = client_context(*alpn, certificate=self.certificate)
        if self.ciphers is not None:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(self.ciphers)
        return context


class Truncated(ConnectionResetError):
    """The connection's end without the alert of TLS that should have come before."""


class Wire:
    """A TCP connection, or one to a Unix domain socket."""

    tls: ssl.SSLObject | None = None
    local_port = 0

    def __init__(self, sock: socket.socket, to: int | Path) -> None:
        self.sock = sock
        self.authority = "localhost"
        if isinstance(to, int):
            self.local_port = sock.getsockname()[1]
            # Not from the socket: a server that stops may have closed it already.
            self.authority = f"127.0.0.1:{to}"
        self.writing = asyncio.Lock()

    @classmethod
    async def open(cls, port: int, tls: Tls | None = None, *alpn: str) -> Self:
        async with asyncio.timeout(DEADLINE):
            wire = await cls.connect(port)
            try:
                if tls is not None:
                    await wire.shake_hands(tls.context(*alpn), tls.name)
            except BaseException:
                wire.close()
                raise
        return wire

    @classmethod
    async def connect(cls, to: int | Path) -> Self:
        """To a port of this machine or to a Unix domain socket, without TLS so far."""
        sock = socket.socket() if isinstance(to, int) else socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            if isinstance(to, int):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", to))
            else:
                await _connect_unix(sock, to)
        except BaseException:
            sock.close()
            raise
        return cls(sock, to)

    async def shake_hands(self, context: ssl.SSLContext, name: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.feed()
        await self.flush()

    async def feed(self) -> None:
        """Gives TLS what arrives next."""
        await self.flush()
        if data := await asyncio.get_running_loop().sock_recv(self.sock, 64 * 1024):
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    async def flush(self) -> None:
        async with self.writing:
            if data := self.outgoing.read():
                await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self, size: int) -> bytes:
        """Up to `size` bytes; none at the connection's end."""
        if self.tls is None:
            return await asyncio.get_running_loop().sock_recv(self.sock, size)
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                await self.feed()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLEOFError as error:
                raise Truncated(str(error)) from None
            except ssl.SSLError as error:
                raise ConnectionResetError(str(error)) from None

    async def send(self, data: bytes) -> None:
        if self.tls is None:
            async with self.writing:
                await asyncio.get_running_loop().sock_sendall(self.sock, data)
        elif data:
            self.tls.write(data)
            await self.flush()

    def close(self) -> None:
        self.sock.close()

    def abort(self) -> None:
        # Linger 0: close() sends RST.
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


async def _connect_unix(sock: socket.socket, path: Path) -> None:
    """As a blocking `connect` does: where the queue is full, it waits for a place."""
    while True:
        try:
            sock.connect(str(path))
        except BlockingIOError:
            await asyncio.sleep(0.005)
        else:
            return
