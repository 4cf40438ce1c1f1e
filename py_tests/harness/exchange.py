"""What the suite's HTTP clients have in common: a connection makes exchanges.

They are small and show what arrived as it arrived; none retries, decodes or hides.
"""

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from py_tests.harness.deadline import DEADLINE

Headers = Iterable[tuple[bytes, bytes]]

# A body up to this size leaves with its head, so that a server can see both at once.
WITH_HEAD = 16 * 1024


Head = tuple[int, list[tuple[bytes, bytes]]]
"""Status and headers."""


class ResponseCut(Exception):
    """The response ended before it was complete; `status` is None if not even its head came."""

    def __init__(self, status: int | None = None, body: bytes = b"", reason: str = "") -> None:
        super().__init__(f"status {status}, {len(body)} bytes of body, then {reason or 'the end'}")
        self.status = status
        self.body = body
        self.reason = reason


@dataclass(frozen=True)
class Response:
    """A complete response. Header names are as on the wire, without pseudo-headers."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list[Head] = field(default_factory=list)
    """The heads with status 1xx that came before."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]

    def header(self, name: bytes) -> bytes | None:
        """The value of a header that may come once."""
        values = self.values(name)
        assert len(values) < 2, values
        return values[0] if values else None

    def json(self) -> Any:
        assert self.status == 200, (self.status, self.body)
        return json.loads(self.body)


class Exchange(ABC):
    """One request and its response."""

    status: int | None = None
    headers: list[tuple[bytes, bytes]]
    sent = 0
    """Bytes of request body that the kernel has taken; on HTTP/3, those that have left for it."""

    def __init__(self) -> None:
        self.interim: list[Head] = []
        self.trailers: list[tuple[bytes, bytes]] = []

    @abstractmethod
    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Sends a piece of the request body; waits while the server does not take it."""

    @abstractmethod
    async def send_trailers(self, fields: Headers) -> None:
        """Ends the request with trailers."""

    @abstractmethod
    async def any_head(self) -> Head:
        """Waits for the next head, interim or final."""

    @abstractmethod
    def silent(self) -> bool:
        """Whether nothing of a response is here that has not been asked for."""

    @abstractmethod
    async def chunk(self) -> bytes:
        """The next piece of the response body, b"" at its end. What is not asked for is not read
        (HTTP/1.1) or not acknowledged (HTTP/2 and 3): the server sees a slow reader."""

    @abstractmethod
    async def leave(self) -> None:
        """Gives the exchange up: HTTP/1.1 closes the connection, HTTP/2 and 3 reset the stream."""

    async def head(self) -> int:
        """Waits for the response's final head; gives the status."""
        while (head := await self.any_head())[0] < 200:
            self.interim.append(head)
        self.status, self.headers = head
        self.begin_body()
        return self.status

    def begin_body(self) -> None:  # noqa: B027 (only some have to do something)
        """Called once the final head is here."""

    async def response(self) -> Response:
        """Waits for the whole response, or raises ResponseCut."""
        status = await self.head()
        return Response(status, self.headers, await self.rest(), self.trailers, self.interim)

    async def rest(self) -> bytes:
        """Waits for what of the body has not been asked for yet, or raises ResponseCut."""
        pieces = []
        try:
            while piece := await self.chunk():
                pieces.append(piece)
        except ResponseCut as cut:
            raise ResponseCut(self.status, b"".join(pieces), cut.reason) from None
        return b"".join(pieces)


class Connection(ABC):
    """A connection to the server under test."""

    protocol: str
    local_port: int

    @abstractmethod
    async def start(
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        upload: bool = False,
    ) -> Exchange:
        """Sends a request; with `upload`, its body is left to `Exchange.send`."""

    @abstractmethod
    async def ended(self, within: float = DEADLINE) -> None:
        """Waits for the server to close the connection."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def abort(self) -> None:
        """Leaves without goodbye: the peer sees a TCP reset; on HTTP/3, an error."""

    async def request(self, method: str, path: str, *, headers: Headers = (), body: bytes = b"") -> Response:
        """Sends a whole request and waits for its response, which may come before the body left."""
        if len(body) <= WITH_HEAD:
            return await (await self.start(method, path, headers=headers, body=body)).response()
        length = (b"content-length", b"%d" % len(body))
        exchange = await self.start(method, path, headers=[*headers, length], upload=True)
        sending = asyncio.create_task(exchange.send(body, end=True))
        try:
            return await exchange.response()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending

    async def get(self, path: str, headers: Headers = ()) -> Response:
        return await self.request("GET", path, headers=headers)

    async def post(self, path: str, body: bytes, headers: Headers = ()) -> Response:
        return await self.request("POST", path, headers=headers, body=body)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
