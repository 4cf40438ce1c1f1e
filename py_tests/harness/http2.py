"""An HTTP/2 client over TLS, or by prior knowledge over cleartext: the `h2` package and a socket."""

import asyncio
import contextlib
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from py_tests.harness.deadline import DEADLINE
from py_tests.harness.exchange import Connection, Headers
from py_tests.harness.streams import StreamExchange, request_fields
from py_tests.harness.wire import Tls, Wire

FRAME_HEAD = 9
GOAWAY = 0x7
CANCEL = 0x8
# Room on the connection for streams that are read slowly beside streams that are not; each stream
# keeps the protocol's own window of 65,535 bytes.
CONNECTION_WINDOW = 16 * 1024 * 1024


class Http2Connection(Connection):
    protocol = "http/2"
    reader: asyncio.Task[None]

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.sock = wire.sock
        self.local_port = wire.local_port
        self.streams: dict[int, Http2Exchange] = {}
        self.going_away = asyncio.Event()
        self.closed = asyncio.Event()
        self.window_opened = asyncio.Event()
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            # A test may want to send what a correct client would not.
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)

    @classmethod
    async def open(cls, port: int, tls: Tls | None = None) -> Self:
        wire = await Wire.open(port, tls, "h2")
        assert wire.tls is None or wire.tls.selected_alpn_protocol() == "h2"
        connection = cls(wire)
        connection.h2.initiate_connection()
        connection.h2.increment_flow_control_window(CONNECTION_WINDOW)
        await connection.flush()
        connection.reader = asyncio.create_task(connection.read())
        return connection

    async def flush(self) -> None:
        if data := self.h2.data_to_send():
            with contextlib.suppress(ConnectionError):
                # The reader tells of a lost connection.
                await self.wire.send(data)

    async def read(self) -> None:
        """Runs as a task for the connection's life: gives what arrives to its stream."""
        buffer = b""
        reason = "the connection's end"
        try:
            while data := await self.wire.receive(256 * 1024):
                buffer = self.frames(buffer + data)
                await self.flush()
        except ConnectionError as error:
            reason = f"the connection's end: {error!r}"
        except h2.exceptions.ProtocolError as error:
            reason = f"a breach of HTTP/2 by the server: {error!r}"
        finally:
            self.closed.set()
            self.window_opened.set()
            for stream in self.streams.values():
                stream.cut(reason)

    def frames(self, data: bytes) -> bytes:
        """Takes whole frames off `data`; gives back what is not yet a frame."""
        frames, rest = whole_frames(data)
        for frame in frames:
            if frame[3] == GOAWAY:
                # h2 would take it for the end of everything; it lets streams in flight finish.
                self.going_away.set()
                continue
            for event in self.h2.receive_data(frame):
                self.happened(event)
        return rest

    def happened(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self.window_opened.set()
        elif isinstance(event, h2.events.StreamEnded):
            self.streams[event.stream_id].put(None)
        elif isinstance(
            event, h2.events.ResponseReceived | h2.events.InformationalResponseReceived | h2.events.TrailersReceived
        ):
            self.streams[event.stream_id].put(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            stream = self.streams[event.stream_id]
            if stream.left:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                stream.put((event.data, event.flow_controlled_length))
        elif isinstance(event, h2.events.StreamReset):
            self.streams[event.stream_id].cut(f"RST_STREAM, code {int(event.error_code)}")
            self.window_opened.set()

    async def start(
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        upload: bool = False,
    ) -> "Http2Exchange":
        if self.going_away.is_set():
            raise ConnectionAbortedError("the server has sent GOAWAY")
        scheme = "http" if self.wire.tls is None else "https"
        head = request_fields(method, scheme, self.wire.authority, path, headers)
        stream_id = self.h2.get_next_available_stream_id()
        exchange = self.streams[stream_id] = Http2Exchange(self, stream_id)
        self.h2.send_headers(stream_id, head, end_stream=not body and not upload)
        if self.closed.is_set():
            exchange.cut("the connection's end")
        elif body:
            await exchange.send(body, end=True)
        await self.flush()
        return exchange

    async def ended(self, within: float = DEADLINE) -> None:
        async with asyncio.timeout(within):
            await self.closed.wait()

    async def close(self) -> None:
        await self.stop_reading()
        self.wire.close()

    async def abort(self) -> None:
        await self.stop_reading()
        self.wire.abort()

    async def stop_reading(self) -> None:
        self.reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.reader


class Http2Exchange(StreamExchange):
    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        super().__init__(stream_id)
        self.connection = connection

    async def send(self, data: bytes, *, end: bool = False) -> None:
        h2_connection = self.connection.h2
        rest = memoryview(data)
        while rest or end:
            if self.reset:
                raise ConnectionResetError("the stream is closed")
            window = h2_connection.local_flow_control_window(self.stream_id)
            size = min(window, h2_connection.max_outbound_frame_size, len(rest))
            if rest and size <= 0:
                self.connection.window_opened.clear()
                async with asyncio.timeout(DEADLINE):
                    await self.connection.window_opened.wait()
                continue
            last = end and size == len(rest)
            h2_connection.send_data(self.stream_id, bytes(rest[:size]), end_stream=last)
            await self.connection.flush()
            self.sent += size
            rest = rest[size:]
            if last:
                break

    async def send_trailers(self, fields: Headers) -> None:
        self.connection.h2.send_headers(self.stream_id, list(fields), end_stream=True)
        await self.connection.flush()

    async def acknowledge(self, cost: int) -> None:
        self.connection.h2.acknowledge_received_data(cost, self.stream_id)
        await self.connection.flush()

    async def leave(self) -> None:
        self.left = True
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            self.connection.h2.reset_stream(self.stream_id, CANCEL)
        await self.connection.flush()


def whole_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The frames that `data` begins with, each with its head, and what is not yet one."""
    frames = []
    while len(data) >= FRAME_HEAD and len(data) >= (end := FRAME_HEAD + int.from_bytes(data[:3])):
        frames.append(data[:end])
        data = data[end:]
    return frames, data
