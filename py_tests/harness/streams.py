"""What the exchanges of HTTP/2 and HTTP/3 have in common: a stream that their connection feeds."""

import asyncio
import collections
from abc import abstractmethod

from py_tests.harness.deadline import DEADLINE
from py_tests.harness.exchange import Exchange, Head, Headers, ResponseCut

Fields = list[tuple[bytes, bytes]]


def request_fields(method: str, scheme: str, authority: str, path: str, headers: Headers) -> Fields:
    """A request's head. The first `host` among `headers` is its `:authority`; others are sent as they are."""
    fields = [(name.lower(), value) for name, value in headers]
    host = next((field for field in fields if field[0] == b"host"), (b"host", authority.encode()))
    if host in fields:
        fields.remove(host)
    return [
        (b":method", method.encode()),
        (b":scheme", scheme.encode()),
        (b":authority", host[1]),
        (b":path", path.encode()),
        *fields,
    ]


class StreamExchange(Exchange):
    def __init__(self, stream_id: int) -> None:
        super().__init__()
        self.stream_id = stream_id
        self.left = False
        # Heads and trailers (lists), data (pairs of bytes and their cost in the window), None for
        # the end, a ResponseCut for an early one.
        self.arrived: collections.deque[Fields | tuple[bytes, int] | ResponseCut | None] = collections.deque()
        self.arrival = asyncio.Event()
        self.over = False
        self.reset = False

    def put(self, item: Fields | tuple[bytes, int] | ResponseCut | None) -> None:
        if not self.over:
            self.over = item is None or isinstance(item, ResponseCut)
            self.arrived.append(item)
            self.arrival.set()

    def cut(self, reason: str) -> None:
        # A reset after the whole response says that no more of the request is wanted.
        self.reset = True
        self.put(ResponseCut(reason=reason))

    @abstractmethod
    async def acknowledge(self, cost: int) -> None:
        """Lets the server send so much more."""

    async def take(self) -> Fields | tuple[bytes, int] | None:
        async with asyncio.timeout(DEADLINE):
            while not self.arrived:
                self.arrival.clear()
                await self.arrival.wait()
        item = self.arrived[0]
        if isinstance(item, ResponseCut):
            raise item
        if item is not None:
            self.arrived.popleft()
        return item

    def silent(self) -> bool:
        return not self.arrived

    async def any_head(self) -> Head:
        fields = await self.take()
        assert isinstance(fields, list), fields
        assert fields[0][0] == b":status", fields
        return int(fields[0][1]), fields[1:]

    async def chunk(self) -> bytes:
        while True:
            item = await self.take()
            if item is None:
                return b""
            if isinstance(item, list):
                self.trailers = item
                continue
            data, cost = item
            if cost:
                await self.acknowledge(cost)
            if data:
                return data
