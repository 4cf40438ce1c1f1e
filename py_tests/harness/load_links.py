"""The connections of the load's clients: what a client waits for is all there, or an exception says what is missing.

Failures of the connection come as what they are: `ConnectionError`, and `ssl.SSLError` in a handshake.
"""

import contextlib
import re
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import h2.config
import h2.connection
import h2.errors
import h2.events
from wsproto.frame_protocol import FrameProtocol

from py_tests.harness.http2 import GOAWAY, whole_frames
from py_tests.harness.load_app import pid_in
from py_tests.harness.wire import Wire
from py_tests.harness.ws_client import ACCEPT, KEY, PING, PONG, TEXT, close_frame, frame

CONNECTIONS, UNPROCESSED = "connections", "unprocessed"
"""What links count: connections that were opened; HTTP/2 streams beyond what the server's GOAWAY promised to answer,
which the client may repeat."""

UNSENT, UNANSWERED = "while sending the request", "with nothing of the answer there"

_PIECE = 64 * 1024


class Cut(Exception):
    """The connection's end where an answer was due."""


class Wrong(Exception):
    """What came is not what was asked for."""


class Told(Exception):
    """The WebSocket's server closes it, and says that the client may come again."""


class Link:
    """A client's connection, and after its end the next one."""

    def __init__(self, to: int | Path, context: ssl.SSLContext | None, counts: Counter[str]) -> None:
        """With a `context`, it speaks TLS."""
        self._to = to
        self._context = context
        self._counts = counts
        self._wire: Wire | None = None
        self.pid: int | None = None
        """The process at the other end; a connection stays with one."""
        self.connected = 0.0
        """When the connection was begun, and `asked` when the last exchange was, by `time.monotonic`."""
        self.asked = 0.0
        self.waiting = 1
        """The exchanges that end with the connection."""
        self.doing = ""

    @property
    def opened(self) -> bool:
        return self._wire is not None

    @property
    def wire(self) -> Wire:
        assert self._wire is not None
        return self._wire

    async def open(self) -> None:
        self.pid = None
        self.connected = time.monotonic()
        self.doing = "while connecting"
        self._wire = await Wire.connect(self._to)
        if self._context is not None:
            self.doing = "in the TLS handshake"
            await self._wire.shake_hands(self._context, "localhost")
        self._counts[CONNECTIONS] += 1

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def checked(self, data: bytes) -> int:
        """The process that a body is of."""
        try:
            pid = pid_in(data)
        except ValueError as error:
            raise Wrong(str(error)) from None
        if self.pid not in (None, pid):
            raise Wrong(f"an answer of process {pid} on a connection of process {self.pid}")
        self.pid = pid
        return pid

    async def receive(self) -> bytes:
        """Some bytes."""
        if data := await self.wire.receive(_PIECE):
            return data
        raise Cut

    def arrived(self) -> tuple[bytes, bool]:
        """What has come by itself, and whether the connection has ended after it."""
        received = b""
        try:
            while True:
                if self.wire.tls is not None:
                    # First what has come with the last answer.
                    for data in self._deciphered(self.wire.tls):
                        received += data
                data = self.wire.sock.recv(_PIECE)
                if not data:
                    return received, True
                if self.wire.tls is not None:
                    self.wire.incoming.write(data)
                else:
                    received += data
        except BlockingIOError:
            return received, False
        except ssl.SSLZeroReturnError:
            return received, True

    def _deciphered(self, tls: ssl.SSLObject) -> Iterator[bytes]:
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := tls.read(_PIECE):
                yield data


class Http1Link(Link):
    def ended(self) -> bool:
        """Whether the connection has ended since the last answer."""
        self.doing = "between two exchanges"
        arrived, has_ended = self.arrived()
        if arrived:
            raise Wrong(f"{arrived!r}, which nobody asked for")
        return has_ended

    async def exchange(self, request: bytes) -> tuple[bytes, bool]:
        """The answer's body, and whether it is the connection's last one."""
        self.doing = UNSENT
        await self.wire.send(request)
        received = b""
        while True:
            self.doing = f"with {len(received)} bytes of the answer there" if received else UNANSWERED
            received += await self.receive()
            head, end, data = received.partition(b"\r\n\r\n")
            if not end:
                continue
            if not head.startswith(b"HTTP/1.1 200 "):
                raise Wrong(f"{received!r}")
            length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
            if length is None or len(data) > int(length[1]):
                raise Wrong(f"{received!r}")
            if len(data) == int(length[1]):
                return data, re.search(rb"\r\nconnection: close", head, re.IGNORECASE) is not None


class Http2Link(Link):
    async def open(self) -> None:
        self.waiting = 1
        await super().open()
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._h2.initiate_connection()
        self._rest = b""
        self._streams: dict[int, list[bytes]] = {}
        self._answers: list[bytes | Exception] = []
        self._last_stream_id: int | None = None

    @property
    def going_away(self) -> bool:
        return self._last_stream_id is not None

    def ended(self) -> bool:
        """Whether the connection has ended since the last answer, or the server has asked to leave it."""
        self.doing = "between two exchanges"
        arrived, has_ended = self.arrived()
        self._take(arrived)
        return has_ended or self.going_away

    def ask(self, paths: Sequence[str]) -> None:
        """Begins a request for each of `paths`."""
        scheme = "https" if self.wire.tls is not None else "http"
        for path in paths:
            stream_id = self._h2.get_next_available_stream_id()
            head = [(":method", "GET"), (":scheme", scheme), (":authority", "localhost"), (":path", path)]
            self._h2.send_headers(stream_id, head, end_stream=True)
            self._streams[stream_id] = []

    def waits(self) -> bool:
        """Whether answers are due: not those of streams that the server has said it will not answer."""
        self.waiting = len(self._streams) or 1
        return bool(self._streams)

    async def some(self) -> list[bytes | Exception]:
        """The bodies of the answers that come next, if any, and what is wrong with streams."""
        self.doing = f"with {len(self._streams)} streams unanswered"
        if self.going_away:
            self.doing += f", after a GOAWAY that promised answers up to {self._last_stream_id}"
        await self.wire.send(self._h2.data_to_send())
        self._take(await self.receive())
        answers, self._answers = self._answers, []
        return answers

    def _take(self, data: bytes) -> None:
        frames, self._rest = whole_frames(self._rest + data)
        for frame_ in frames:
            if frame_[3] == GOAWAY:
                # The library would take it for the end of everything.
                self._go_away(int.from_bytes(frame_[9:13]), int.from_bytes(frame_[13:17]))
                continue
            for event in self._h2.receive_data(frame_):
                self._happened(event)

    def _go_away(self, last_stream_id: int, code: int) -> None:
        if code != h2.errors.ErrorCodes.NO_ERROR:
            raise Wrong(f"GOAWAY with the error code {code}")
        self._last_stream_id = last_stream_id
        beyond = [stream_id for stream_id in self._streams if stream_id > last_stream_id]
        self._counts[UNPROCESSED] += len(beyond)
        for stream_id in beyond:
            del self._streams[stream_id]

    def _happened(self, event: h2.events.Event) -> None:
        stream_id = getattr(event, "stream_id", None)
        if stream_id not in self._streams:
            return
        if isinstance(event, h2.events.ResponseReceived):
            if (status := dict(event.headers)[b":status"]) != b"200":
                del self._streams[stream_id]
                self._answers.append(Wrong(f"status {status!r}"))
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
            self._streams[stream_id].append(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            self._answers.append(b"".join(self._streams.pop(stream_id)))
        elif isinstance(event, h2.events.StreamReset):
            del self._streams[stream_id]
            self._answers.append(ConnectionResetError(f"RST_STREAM, code {event.error_code}"))


class WebSocketLink(Link):
    async def open(self) -> None:
        await super().open()
        self.doing = "in the WebSocket's handshake"
        self._protocol = FrameProtocol(client=True, extensions=[])
        self._frames = self._protocol.received_frames()
        await self.wire.send(
            b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: %s\r\n\r\n" % KEY
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += await self.receive()
        head, _, rest = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in head:
            raise Wrong(f"{received!r}")
        self._protocol.receive_bytes(rest)
        self.pid = int(await self._message())

    async def echo(self, text: str) -> int:
        """Sends a message and waits until it has come back. Gives the process that has sent it."""
        self.doing = "while sending a message"
        # What the server has said before it went is worth more than the error.
        with contextlib.suppress(ConnectionError):
            await self.wire.send(frame(TEXT, text.encode()))
        if (message := await self._message()) != text:
            raise Wrong(f"{message!r} instead of {text!r}")
        assert self.pid is not None
        return self.pid

    async def _message(self) -> str:
        self.doing = "where a message was due"
        text = ""
        while True:
            while (received := next(self._frames, None)) is None:
                # The parser's generator ends where it lacks bytes.
                self._protocol.receive_bytes(await self.receive())
                self._frames = self._protocol.received_frames()
            payload = received.payload
            if isinstance(payload, tuple):
                await self._closed(int(payload[0]))
            elif isinstance(payload, str):
                text += payload
                if received.message_finished:
                    return text
            elif received.opcode is PING:
                await self.wire.send(frame(PONG, payload))
            else:
                raise Wrong(f"{received}")

    async def _closed(self, code: int) -> None:
        """Answers a close frame, as the protocol wants it, and waits for the connection's end."""
        if code != 1012:
            raise Wrong(f"closed with {code}")
        # It is over, however it ends.
        with contextlib.suppress(ConnectionError):
            await self.wire.send(close_frame(code))
            while await self.wire.receive(_PIECE):
                pass
        raise Told
