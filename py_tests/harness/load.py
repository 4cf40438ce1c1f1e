"""Load on a server that serves `load_app`, by clients of many kinds, each of which counts what went wrong and how.

    async with Load(server.port) as load:
        await load.more(10)
        ...                          # whatever happens to the server
        await load.more(10)
    assert not load.failures, load.report()

The clients run in the test's own loop. They wait for one another's answers and not for a clock, so a loop that is busy
otherwise makes the load thinner, but no count wrong. That one loop also sets the times of what the test does to the
server apart from those of what clients do: they are never at the same time.
"""

import asyncio
import contextlib
import itertools
import random
import re
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.http2 import GOAWAY, whole_frames
from py_tests.harness.load_app import pid_in
from py_tests.harness.wire import Tls, Truncated, Wire
from py_tests.harness.ws_client import ACCEPT, KEY, PING, PONG, TEXT, close_frame, frame

SHORT, SLOW, KEEP_ALIVE, PACED, HTTP2, WEBSOCKET = CLIENTS = (
    "short",
    "slow",
    "keep-alive",
    "paced",
    "http/2",
    "websocket",
)
"""The kinds of clients:

- short: a new connection for each request, which says `connection: close`
- slow: a new connection for each request, of 150 ms in the application; the client closes it
- keep-alive: requests on one connection with hardly a pause
- paced: the same with pauses of up to `PACE` seconds, so that its connection is idle most of the time
- http/2: several streams at a time on one connection, one of them slow
- websocket: messages that come back
"""

REFUSED, RESET, CUT, TIMED_OUT, WRONG = (
    "refused",
    "reset",
    "cut",
    "timed out",
    "wrong",
)
"""What can go wrong with an exchange:

- refused: nobody listens: ECONNREFUSED, or no file of that name
- reset: the connection, or an HTTP/2 stream, was reset
- cut: the connection ended in good order, but before the answer did
- timed out: no whole answer within the client's patience, which begins with the connecting
- wrong: an answer that is whole, but not the right one; or bytes that nobody asked for
"""

TOLD_CLOSE, TOLD_GOAWAY, TOLD_1012, IDLE_CLOSED, UNPROCESSED, CONNECTIONS = (
    "connection: close",
    "GOAWAY",
    "1012",
    "idle closed",
    "unprocessed",
    "connections",
)
"""What is counted beside answers, and is no failure:

- a client was told to move, in one of three ways, and did
- idle closed: a connection ended between two exchanges, and nobody had told the client
- unprocessed: an HTTP/2 stream beyond what the server's GOAWAY promised to answer, which the client may repeat
- connections that were opened
"""

PATIENCE = 15.0
PACE = 0.3

# Between two exchanges of the other kinds, on average: without, the clients would take the processors from the server.
_PAUSE = 0.003
# After a failure: a closed port answers at once.
_RETRY = 0.02

_STREAMS = ["/", "/", "/slow", "/"]
_PIECE = 64 * 1024


class Cut(Exception):
    """The connection's end where an answer was due."""


class Wrong(Exception):
    """What came is not what was asked for."""


class Told(Exception):
    """The WebSocket's server closes it, and says that the client may come again."""


@dataclass(frozen=True)
class Failure:
    """An exchange that failed. Times are of `time.monotonic`."""

    client: str
    kind: str
    detail: str
    connected: float
    """When the client began to connect, if only for an earlier exchange."""
    asked: float
    """When the exchange began."""
    seen: float
    """When the client found out."""
    pid: int | None
    """The process that has answered on this connection before."""

    def __str__(self) -> str:
        before = f"of process {self.pid}" if self.pid else "without an answer before"
        return (
            f"{self.seen:.3f} {self.client}: {self.kind}: {self.detail}; asked {self.seen - self.asked:.3f} s before, "
            f"connected {self.seen - self.connected:.3f} s before, {before}"
        )


# What is caught for which kind; the first that fits.
_KINDS: dict[str, tuple[type[Exception], ...]] = {
    REFUSED: (ConnectionRefusedError, FileNotFoundError),
    CUT: (Cut, Truncated, ssl.SSLEOFError, ssl.SSLZeroReturnError),
    RESET: (ConnectionError,),
    TIMED_OUT: (TimeoutError,),
    WRONG: (Wrong, ssl.SSLError, h2.exceptions.ProtocolError, ParseFailed),
}
_EXPECTED = tuple(itertools.chain.from_iterable(_KINDS.values()))


class Load:
    """Clients of a server, as many of each kind as is said; a context manager, in which they are at work.

    `to` is a port of this machine, or the path of a Unix domain socket. `patience` is in seconds.
    """

    def __init__(
        self,
        to: int | Path,
        *,
        tls: bool = False,
        short: int = 4,
        slow: int = 2,
        keep_alive: int = 2,
        paced: int = 4,
        http2: int = 1,
        websockets: int = 2,
        slow_path: str = "/slow",
        patience: float = PATIENCE,
    ) -> None:
        self.to = to
        self.patience = patience
        self.answered: Counter[str] = Counter()
        """Whole and right answers (a WebSocket's: echoes) by kind of client."""
        self.served: Counter[int] = Counter()
        """The same by process that gave them."""
        self.counts: Counter[str] = Counter()
        """What is neither answer nor failure: `TOLD_CLOSE` and the others."""
        self.failed: list[Failure] = []
        self.slowest: dict[str, float] = {}
        """The longest that an answered exchange took, in seconds with the connecting, by kind of client."""
        self._contexts = {alpn: Tls().context(alpn) for alpn in ["http/1.1", "h2"]} if tls else {}
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self._links: list[Link] = []
        self._clients = [
            *(self._http1(SHORT, "/", keep=False, close=True) for _ in range(short)),
            *(self._http1(SLOW, slow_path, keep=False) for _ in range(slow)),
            *(self._http1(KEEP_ALIVE, "/") for _ in range(keep_alive)),
            *(self._http1(PACED, "/", pause=PACE / 2) for _ in range(paced)),
            *(self._http2() for _ in range(http2)),
            *(self._websocket() for _ in range(websockets)),
        ]
        self.kinds = [
            kind
            for kind, number in zip(CLIENTS, [short, slow, keep_alive, paced, http2, websockets], strict=True)
            if number
        ]

    @property
    def failures(self) -> dict[tuple[str, str], int]:
        """How many exchanges failed, by kind of client and of failure."""
        return dict(Counter((failure.client, failure.kind) for failure in self.failed))

    def report(self) -> str:
        """All that is counted, and the first failures of each sort."""
        sorts: dict[tuple[str, str], list[str]] = {}
        for failure in self.failed:
            sorts.setdefault((failure.client, failure.kind), []).append(str(failure))
        slowest = {client: round(seconds, 3) for client, seconds in self.slowest.items()}
        return "\n".join(
            [
                f"answered {dict(self.answered)}",
                f"by process {dict(self.served)}",
                f"counted {dict(self.counts)}",
                f"slowest {slowest}",
                f"failures {self.failures}",
                *itertools.chain.from_iterable(lines[:5] for lines in sorts.values()),
            ]
        )

    async def more(self, each: int = 5, within: float = 2 * DEADLINE) -> None:
        """Waits until each kind of client has been answered so many times more."""
        goal = {kind: self.answered[kind] + each for kind in self.kinds}

        def reached() -> bool:
            self._check()
            return all(self.answered[kind] >= number for kind, number in goal.items())

        try:
            await eventually(reached, within)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.report()}") from None

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(client) for client in self._clients]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Lets each exchange that has begun come to its end, which is counted."""
        self._ending = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.wait(self._tasks)
        for link in self._links:
            link.close()
        if kind is None:
            self._check()

    def _check(self) -> None:
        """Raises what has ended a client: an error of the load's own, such as that of a machine without free ports."""
        for task in self._tasks:
            if task.done():
                task.result()

    # --- What each client does ---

    async def _http1(
        self, client: str, path: str, *, keep: bool = True, close: bool = False, pause: float = _PAUSE
    ) -> None:
        close_line = b"connection: close\r\n" if close else b""
        request = b"GET %s HTTP/1.1\r\nhost: localhost\r\n%s\r\n" % (path.encode(), close_line)
        link = Http1Link(self, "http/1.1")
        while not self._ending:
            async with self._exchange(client, link, pause):
                if link.opened and link.ended():
                    self.counts[IDLE_CLOSED] += 1
                    link.close()
                if not link.opened:
                    await link.open()
                data, last = await link.exchange(request)
                self._answered(client, link, link.checked(data))
                if last and not close:
                    self.counts[TOLD_CLOSE] += 1
                if last or not keep:
                    link.close()

    async def _http2(self) -> None:
        link = Http2Link(self, "h2")
        while not self._ending:
            async with self._exchange(HTTP2, link, _PAUSE):
                if link.opened and link.ended():
                    self.counts[TOLD_GOAWAY if link.going_away else IDLE_CLOSED] += 1
                    link.close()
                if not link.opened:
                    await link.open()
                link.ask(_STREAMS)
                while link.waits():
                    for answer in await link.some():
                        if isinstance(answer, Exception):
                            self._fail(HTTP2, link, answer)
                        else:
                            self._answered(HTTP2, link, link.checked(answer))
                if link.going_away:
                    self.counts[TOLD_GOAWAY] += 1
                    link.close()

    async def _websocket(self) -> None:
        link = WebSocketLink(self, "http/1.1")
        while not self._ending:
            async with self._exchange(WEBSOCKET, link, _PAUSE):
                try:
                    if not link.opened:
                        await link.open()
                    self._answered(WEBSOCKET, link, await link.echo(f"message {self.answered[WEBSOCKET]}"))
                except Told:
                    self.counts[TOLD_1012] += 1
                    link.close()

    @contextlib.asynccontextmanager
    async def _exchange(self, client: str, link: "Link", pause: float) -> AsyncIterator[None]:
        """Counts what goes wrong within, for as many exchanges as wait on the connection. Pauses after it."""
        link.asked = time.monotonic()
        try:
            async with asyncio.timeout(self.patience):
                yield
        except _EXPECTED as error:
            for _ in range(link.waiting):
                self._fail(client, link, error)
            link.close()
            await asyncio.sleep(_RETRY)
        else:
            await asyncio.sleep(random.random() * 2 * pause)

    def _fail(self, client: str, link: "Link", error: Exception) -> None:
        kind = next(kind for kind, errors in _KINDS.items() if isinstance(error, errors))
        detail = f"{error!r} {link.doing}"
        self.failed.append(Failure(client, kind, detail, link.connected, link.asked, time.monotonic(), link.pid))

    def _answered(self, client: str, link: "Link", pid: int) -> None:
        self.answered[client] += 1
        self.served[pid] += 1
        self.slowest[client] = max(self.slowest.get(client, 0.0), time.monotonic() - link.asked)


class Link:
    """A client's connection, and after its end the next one."""

    def __init__(self, load: Load, alpn: str) -> None:
        load._links.append(self)
        self._load = load
        self._alpn = alpn
        self._wire: Wire | None = None
        self.pid: int | None = None
        """The process at the other end; a connection stays with one."""
        self.connected = self.asked = 0.0
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
        self._wire = await Wire.connect(self._load.to)
        if context := self._load._contexts.get(self._alpn):
            self.doing = "in the TLS handshake"
            await self._wire.shake_hands(context, "localhost")
        self._load.counts[CONNECTIONS] += 1

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

    def arrived(self) -> bytes | None:
        """What has come by itself; None if the connection has ended after it."""
        received = b""
        try:
            while True:
                if self.wire.tls is not None:
                    # First what has come with the last answer.
                    received += self._deciphered(self.wire.tls)
                data = self.wire.sock.recv(_PIECE)
                if not data:
                    return None
                if self.wire.tls is not None:
                    self.wire.incoming.write(data)
                else:
                    received += data
        except BlockingIOError:
            return received
        except ssl.SSLZeroReturnError:
            return None

    def _deciphered(self, tls: ssl.SSLObject) -> bytes:
        received = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := tls.read(_PIECE):
                received += data
        return received


class Http1Link(Link):
    def ended(self) -> bool:
        """Whether the connection has ended since the last answer."""
        self.doing = "between two exchanges"
        arrived = self.arrived()
        if arrived:
            raise Wrong(f"{arrived!r}, which nobody asked for")
        return arrived is None

    async def exchange(self, request: bytes) -> tuple[bytes, bool]:
        """The answer's body, and whether it is the connection's last one."""
        self.doing = "while sending the request"
        await self.wire.send(request)
        received = b""
        while True:
            self.doing = f"with {len(received)} bytes of the answer there"
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
        arrived = self.arrived()
        if arrived:
            self._take(arrived)
        return arrived is None or self.going_away

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
        self._load.counts[UNPROCESSED] += len(beyond)
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
