"""An HTTP/3 client: the `aioquic` package, with flow control by hand."""

import asyncio
import contextlib
import socket
import sys
from typing import Any, Self, cast

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset
from aioquic.tls import SessionTicket

from py_tests.harness.certificates import authority
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import Connection, Headers
from py_tests.harness.streams import Fields, StreamExchange, request_fields
from py_tests.harness.wire import Tls

GOAWAY = 0x7
# What a stream may bring that has not been asked for; as in HTTP/2. The connection's own window,
# which the library raises by itself, is wide enough for all.
STREAM_WINDOW = 65_535
CONNECTION_WINDOW = 16 * 1024 * 1024
PIECE = 64 * 1024


class Http3Connection(Connection):
    protocol = "http/3"

    def __init__(self, endpoint: "Endpoint", port: int, tickets: list[SessionTicket]) -> None:
        self.endpoint = endpoint
        self.tickets = tickets
        self.port = port
        self.local_port: int = endpoint.transport.get_extra_info("sockname")[1]

    @classmethod
    async def open(cls, port: int, tls: Tls, host: str = "127.0.0.1") -> Self:
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN,
            server_name=tls.name,
            max_stream_data=STREAM_WINDOW,
            max_data=CONNECTION_WINDOW,
        )
        configuration.load_verify_locations(cadata=authority().cert_pem.bytes())
        if tls.certificate is not None:
            configuration.load_cert_chain(tls.certificate.certfile, tls.certificate.keyfile)
        # As the socket says of packets whom they are from.
        family, address = (socket.AF_INET6, (host, port, 0, 0)) if ":" in host else (socket.AF_INET, (host, port))
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((host, 0))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        tickets: list[SessionTicket] = []
        quic = Quic(configuration=configuration, session_ticket_handler=tickets.append)
        _, endpoint = await loop.create_datagram_endpoint(lambda: Endpoint(quic), sock=sock)
        try:
            endpoint.connect(address)
            async with asyncio.timeout(DEADLINE):
                await endpoint.wait_connected()
        except BaseException:
            endpoint.transport.close()
            raise
        return cls(endpoint, port, tickets)

    @property
    def going_away(self) -> asyncio.Event:
        return self.endpoint.http.going_away

    async def start(
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        upload: bool = False,
    ) -> "Http3Exchange":
        if self.going_away.is_set():
            raise ConnectionAbortedError("the server has sent GOAWAY")
        head = request_fields(method, "https", f"127.0.0.1:{self.port}", path, headers)
        stream_id = self.endpoint.quic.get_next_available_stream_id()
        exchange = self.endpoint.streams[stream_id] = Http3Exchange(self.endpoint, stream_id, method)
        self.endpoint.http.send_headers(stream_id, head, end_stream=not body and not upload)
        if self.endpoint.closed.is_set():
            exchange.cut("the connection's end")
        elif body:
            await exchange.send(body, end=True)
        self.endpoint.transmit()
        return exchange

    async def ended(self, within: float = DEADLINE) -> None:
        async with asyncio.timeout(within):
            await self.endpoint.closed.wait()

    async def move(self) -> None:
        """Goes on from another port, with another connection id."""
        endpoint, old = self.endpoint, self.endpoint.transport
        await eventually(lambda: endpoint.quic._peer_cid_available)
        await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: endpoint, local_addr=(old.get_extra_info("sockname")[0], 0)
        )
        old.close()
        self.local_port = endpoint.transport.get_extra_info("sockname")[1]
        endpoint.change_connection_id()

    async def close(self) -> None:
        self.leave(ErrorCode.H3_NO_ERROR)

    async def abort(self) -> None:
        self.leave(ErrorCode.H3_INTERNAL_ERROR)

    def leave(self, code: int) -> None:
        self.endpoint.close(error_code=code)
        self.endpoint.stop()


class Quic(QuicConnection):
    """Lets a stream send more when it is told to, not by itself."""

    def stream(self, stream_id: int) -> Any:
        return self._streams[stream_id]

    def reset_tokens(self) -> list[bytes]:
        """Those of the server's connection ids (RFC 9000, section 10.3), which the library does not look for."""
        ids = [self._peer_cid, *self._peer_cid_available]
        return [one.stateless_reset_token for one in ids if one.stateless_reset_token]

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        # The library doubles the window of a stream that has used half of it: it has used none.
        used, stream.receiver.highest_offset = stream.receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            stream.receiver.highest_offset = used


class Http(H3Connection):
    """Tells of GOAWAY, and leaves the length of bodies to the exchange, which knows HEAD and 304."""

    def __init__(self, quic: QuicConnection) -> None:
        self.going_away = asyncio.Event()
        super().__init__(quic)

    def _check_control_frame_type(self, frame_type: int) -> None:
        if frame_type == GOAWAY:
            self.going_away.set()
        super()._check_control_frame_type(frame_type)

    def _check_content_length(self, stream: Any) -> None:
        pass


class Datagrams:
    """Takes datagrams as a transport does, to send those that follow each other at once, as browsers do.

    The kernel is told where one ends (UDP_SEGMENT, udp(7)). It takes them apart, or hands them to a server as they are
    that says it can do so itself (UDP_GRO).
    """

    SEGMENT = 103
    MOST = 60_000

    def __init__(self) -> None:
        self._taken: list[tuple[list[bytes], Any]] = []

    def sendto(self, data: bytes, address: Any) -> None:
        if self._taken:
            datagrams, other = self._taken[-1]
            size = len(datagrams[0])
            fits = size * (len(datagrams) + 1) < self.MOST
            if address == other and fits and len(datagrams[-1]) == size >= len(data):
                datagrams.append(data)
                return
        self._taken.append(([data], address))

    def send(self, transport: asyncio.DatagramTransport) -> None:
        for datagrams, address in self._taken:
            segment = [(socket.SOL_UDP, self.SEGMENT, len(datagrams[0]).to_bytes(2, sys.byteorder))]
            try:
                transport.get_extra_info("socket")._sock.sendmsg(datagrams, segment, 0, address)
            except BlockingIOError:
                for datagram in datagrams:
                    transport.sendto(datagram, address)


class Endpoint(QuicConnectionProtocol):
    """The connection's socket, timers and streams."""

    transport: asyncio.DatagramTransport

    def __init__(self, quic: Quic) -> None:
        super().__init__(quic)
        self.quic = quic
        self.http = Http(quic)
        self.streams: dict[int, Http3Exchange] = {}
        self.closed = asyncio.Event()
        self.progress = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = cast(asyncio.DatagramTransport, transport)

    def transmit(self) -> None:
        datagrams = Datagrams()
        self._transport = cast(asyncio.DatagramTransport, datagrams)
        try:
            super().transmit()
        finally:
            self._transport = self.transport
        datagrams.send(self.transport)

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        if data[-16:] in self.quic.reset_tokens():
            self.end("the connection's end by a stateless reset")
            return
        super().datagram_received(data, addr)
        self.progress.set()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.end(f"the connection's end, code {event.error_code:#x} {event.reason_phrase}")
            return
        happened = self.http.handle_event(event)
        if isinstance(event, StreamDataReceived) and event.stream_id in self.streams:
            self.streams[event.stream_id].feed(happened, len(event.data), event.end_stream)
        elif isinstance(event, StreamReset) and event.stream_id in self.streams:
            self.streams[event.stream_id].cut(f"RESET_STREAM, code {event.error_code:#x}")
        elif isinstance(event, StopSendingReceived) and event.stream_id in self.streams:
            self.streams[event.stream_id].reset = True

    def end(self, reason: str) -> None:
        self.closed.set()
        self.progress.set()
        for stream in self.streams.values():
            stream.cut(reason)

    def stop(self) -> None:
        """Ends without waiting for what the server has to say to it."""
        if self._timer is not None:
            self._timer.cancel()
        self.end("the connection's end")
        self.transport.close()


class Http3Exchange(StreamExchange):
    def __init__(self, endpoint: Endpoint, stream_id: int, method: str) -> None:
        super().__init__(stream_id)
        self.endpoint = endpoint
        self.method = method
        self.due: int | None = None
        """Bytes of body that the head has promised and that have not come."""

    def feed(self, events: Any, cost: int, end: bool) -> None:
        """What came in one piece of the stream, which used up `cost` bytes of its window."""
        for event in events:
            if isinstance(event, HeadersReceived):
                fields: Fields = event.headers
                self.put(fields)
                self.expect(dict(fields))
            elif isinstance(event, DataReceived) and event.data:
                if self.due is not None:
                    self.due -= len(event.data)
                # Framing counts as body: both are the server's to send again once asked for.
                self.put((event.data, cost))
                cost = 0
        self.credit(cost)
        if end and self.due:
            self.cut(f"the stream's end with {self.due} bytes due")
        elif end:
            self.put(None)

    def expect(self, fields: dict[bytes, bytes]) -> None:
        if self.method != "HEAD" and fields.get(b":status", b"304") != b"304" and b"content-length" in fields:
            self.due = int(fields[b"content-length"])

    async def send(self, data: bytes, *, end: bool = False) -> None:
        for at in range(0, max(len(data), 1), PIECE):
            piece = data[at : at + PIECE]
            if self.reset:
                raise ConnectionResetError("the stream is closed")
            if piece or end:
                self.endpoint.http.send_data(self.stream_id, piece, end_stream=end and at + PIECE >= len(data))
            await self.sent_all()
            self.sent += len(piece)

    async def sent_all(self) -> None:
        """Waits until all that was given to the stream has left."""
        stream = self.endpoint.quic.stream(self.stream_id)
        self.endpoint.transmit()
        while len(stream.sender._pending) and not self.reset:
            self.endpoint.progress.clear()
            async with asyncio.timeout(DEADLINE):
                await self.endpoint.progress.wait()

    async def send_trailers(self, fields: Headers) -> None:
        self.endpoint.http.send_headers(self.stream_id, list(fields), end_stream=True)
        self.endpoint.transmit()

    async def acknowledge(self, cost: int) -> None:
        self.credit(cost)
        self.endpoint.transmit()

    def credit(self, cost: int) -> None:
        """Opens the stream's window by so much; the server is told with the next datagram."""
        with contextlib.suppress(KeyError):  # which it is once the stream has ended
            self.endpoint.quic.stream(self.stream_id).max_stream_data_local += cost

    async def leave(self) -> None:
        self.left = True
        self.endpoint.quic.reset_stream(self.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        with contextlib.suppress(KeyError, ValueError):
            self.endpoint.quic.stop_stream(self.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        self.endpoint.transmit()
