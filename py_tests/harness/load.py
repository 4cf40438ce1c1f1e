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
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import h2.exceptions
from wsproto.frame_protocol import ParseFailed

from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.load_links import UNANSWERED, UNSENT, Cut, Http1Link, Http2Link, Link, Told, WebSocketLink, Wrong
from py_tests.harness.wire import Tls, Truncated

L = TypeVar("L", bound=Link)

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

TOLD_CLOSE, TOLD_GOAWAY, TOLD_1012, IDLE_CLOSED = (
    "connection: close",
    "GOAWAY",
    "1012",
    "idle closed",
)
"""What is counted beside answers, and is no failure: a client was told to move, in one of three ways, and did; or its
connection ended between two exchanges, and nobody had told it. See also `CONNECTIONS` and `UNPROCESSED`."""

PATIENCE = 15.0
PACE = 0.3

# Between two exchanges of the other kinds, on average: without, the clients would take the processors from the server.
_PAUSE = 0.003
# After a failure: a closed port answers at once.
_RETRY = 0.02

_STREAMS = ["/", "/", "/slow", "/"]


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


def _came_too_late(failure: Failure) -> bool:
    if failure.kind == REFUSED:
        return True
    if failure.pid is not None:
        # Closed while it was idle, as far as the server knew. What an application has begun is counted elsewhere.
        unheard = failure.detail.endswith((UNSENT, UNANSWERED))
        return failure.client in (KEEP_ALIVE, PACED) and failure.kind in (RESET, CUT) and unheard
    unavailable = failure.client == WEBSOCKET and failure.kind == WRONG and "HTTP/1.1 503" in failure.detail
    return failure.kind == RESET or unavailable


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

    def lost_at_stop(self) -> list[Failure]:
        """Failures that a server which stops is to blame for. Not those of clients who came too late: they were
        refused, or reset while they waited to be accepted, or had a WebSocket's handshake answered with 503, or found
        their idle connection closed when they had just sent something."""
        return [failure for failure in self.failed if not _came_too_late(failure)]

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
        link = self._link(Http1Link, "http/1.1")
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
        link = self._link(Http2Link, "h2")
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
        link = self._link(WebSocketLink, "http/1.1")
        while not self._ending:
            async with self._exchange(WEBSOCKET, link, _PAUSE):
                try:
                    if not link.opened:
                        await link.open()
                    self._answered(WEBSOCKET, link, await link.echo(f"message {self.answered[WEBSOCKET]}"))
                except Told:
                    self.counts[TOLD_1012] += 1
                    link.close()

    def _link(self, kind: type[L], alpn: str) -> L:
        link = kind(self.to, self._contexts.get(alpn), self.counts)
        self._links.append(link)
        return link

    @contextlib.asynccontextmanager
    async def _exchange(self, client: str, link: Link, pause: float) -> AsyncIterator[None]:
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

    def _fail(self, client: str, link: Link, error: Exception) -> None:
        kind = next(kind for kind, errors in _KINDS.items() if isinstance(error, errors))
        detail = f"{error!r} {link.doing}"
        self.failed.append(Failure(client, kind, detail, link.connected, link.asked, time.monotonic(), link.pid))

    def _answered(self, client: str, link: Link, pid: int) -> None:
        self.answered[client] += 1
        self.served[pid] += 1
        self.slowest[client] = max(self.slowest.get(client, 0.0), time.monotonic() - link.asked)
