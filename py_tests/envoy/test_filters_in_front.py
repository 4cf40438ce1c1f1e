"""Filters of Envoy's in front of ours: those that hold a request back, and go on with it later."""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, read, routes
from py_tests.harness.certificates import Pair
from py_tests.harness.deadline import DEADLINE
from py_tests.harness.exchange import Connection, Response
from py_tests.harness.plain_envoy import PlainEnvoy, printed
from py_tests.harness.protocols import Connect, http3_too
from py_tests.harness.serving import unlike_uvicorn
from py_tests.harness.ws_client import TEXT, answered, begin, frame

pytestmark = unlike_uvicorn("this is about Envoy")

FAULT = """\
- name: envoy.filters.http.fault
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
    delay: {fixed_delay: 0.2s, percentage: {numerator: 100}}
"""

BUFFER = """\
- name: envoy.filters.http.buffer
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
    max_request_bytes: 33554432
"""

LUA = """\
- name: envoy.filters.http.lua
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
    default_source_code:
      inline_string: |
        function envoy_on_request(handle)
          for chunk in handle:bodyChunks() do end
        end
"""

EXT_AUTHZ = """\
- name: envoy.filters.http.ext_authz
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
    http_service:
      server_uri: {uri: "http://127.0.0.1:%(port)d", cluster: authz, timeout: 20s}
    %(body)s
"""

WITH_BODY = "with_request_body: {max_request_bytes: 33554432}"

AUTHZ_CLUSTER = """\
- name: authz
  type: STATIC
  connect_timeout: 20s
  load_assignment:
    cluster_name: authz
    endpoints:
    - lb_endpoints:
      - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
"""

# One that waits for a time, one that waits for the whole body, one that looks at it piece by piece.
FILTERS = {"fault": FAULT, "buffer": BUFFER, "fault, buffer": FAULT + BUFFER, "lua": LUA}

# The first fits into a piece, the second into no window, the last into no buffer of Envoy's.
SIZES = [0, 10, 300_000, 5_000_000]


def content(size: int) -> bytes:
    """Bytes that tell where they are from."""
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


def seen(body: bytes) -> list[Any]:
    return [len(body), hashlib.sha256(body).hexdigest()]


async def digest(scope: Scope, receive: Receive, send: Send) -> None:
    """Size and checksum of the body."""
    await answer(send, seen(await read(receive)))


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """The same, of an application that leaves time between the messages."""
    pieces, more = [], True
    while more:
        await asyncio.sleep(0.001)
        message = await receive()
        pieces.append(message["body"])
        more = message["more_body"]
    await answer(send, seen(b"".join(pieces)))


async def early(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers before it has looked at the body."""
    await answer(send, b"early")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that sends back what it gets."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


app = routes(digest, slow, early, echo)
APP = f"{__name__}:app"


@pytest.fixture(scope="module", params=FILTERS)
def held_back(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pair: Pair
) -> Iterator[PlainEnvoy]:
    """A server on every protocol with filters in front of the application."""
    # Who waits for the whole body must not leave it to the application to ask for it.
    changes = {"proxy_100_continue: true": "proxy_100_continue: false"}
    options: dict[str, Any] = {"ssl_port": 0, "http3": True, **pair.options}
    folder = tmp_path_factory.mktemp("filters")
    with printed(folder, APP, filters=FILTERS[request.param], changes=changes, **options) as server:
        asyncio.run(server.accepts())
        yield server


async def upload(connection: Connection, path: str, body: bytes, how: str) -> Response:
    """Sends `body` with its length, piece by piece without, or with trailers behind it."""
    if how == "length":
        return await connection.post(path, body)
    exchange = await connection.start("POST", path, upload=True)

    async def send() -> None:
        for at in range(0, len(body), 100_000):
            await exchange.send(body[at : at + 100_000])
        if how == "trailers":
            await exchange.send_trailers([(b"x-trailer", b"1")])
        else:
            await exchange.send(b"", end=True)

    response, _ = await asyncio.gather(exchange.response(), send())
    return response


@http3_too
@pytest.mark.parametrize("how", ["length", "pieces", "trailers"])
@pytest.mark.parametrize("size", SIZES)
async def test_body_is_whole(held_back: PlainEnvoy, connect: Connect, how: str, size: int) -> None:
    body = content(size)
    async with await connect(held_back) as connection:
        assert (await upload(connection, "/digest", body, how)).json() == seen(body)


@http3_too
async def test_body_is_whole_for_a_slow_application(held_back: PlainEnvoy, connect: Connect) -> None:
    body = content(5_000_000)
    async with await connect(held_back) as connection:
        assert (await upload(connection, "/slow", body, "pieces")).json() == seen(body)


@http3_too
async def test_request_without_a_body_is_complete(held_back: PlainEnvoy, connect: Connect) -> None:
    async with await connect(held_back) as connection:
        assert (await connection.get("/digest")).json() == seen(b"")


@http3_too
async def test_client_that_waits_to_be_told_to_go_on(held_back: PlainEnvoy, connect: Connect) -> None:
    body = content(300_000)
    headers = [(b"expect", b"100-continue"), (b"content-length", b"300000")]
    async with await connect(held_back) as connection:
        exchange = await connection.start("POST", "/digest", headers=headers, upload=True)
        status, _ = await exchange.any_head()
        assert status == 100
        await exchange.send(body, end=True)
        assert (await exchange.response()).json() == seen(body)


@http3_too
async def test_early_answer_arrives(held_back: PlainEnvoy, connect: Connect) -> None:
    async with await connect(held_back) as connection:
        assert (await upload(connection, "/early", content(5_000_000), "length")).body == b"early"


@http3_too
@pytest.mark.parametrize("held_back", ["fault"], indirect=True)  # the others wait for the end of the WebSocket
@pytest.mark.parametrize("size", [10, 300_000])
async def test_frames_that_come_with_the_handshake(held_back: PlainEnvoy, connect: Connect, size: int) -> None:
    texts = [content(size), b"second"]
    async with await connect(held_back) as connection:
        exchange = await begin(connection, "/echo", early=b"".join(frame(TEXT, text) for text in texts))
        websocket = await answered(connection, exchange)
        for text in texts:
            assert await websocket.receive() == text.decode()
        await websocket.send("third")
        assert await websocket.receive() == "third"
        assert await websocket.close() == (1000, "")


class AuthorizationServer:
    """What Envoy asks whether a request may go on. It says yes when the test does."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[bytes] = asyncio.Queue()
        self.go_on = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=2**26)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                self.asked.put_nowait(await reader.readexactly(int(length[1]) if length else 0))
                await self.go_on.wait()
                denied = head.startswith(b"GET /digest?denied")
                writer.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % (b"403 No" if denied else b"200 OK"))


@http3_too
@pytest.mark.parametrize("with_body", [False, True])
async def test_authorization_by_a_server(connect: Connect, tmp_path: Path, pair: Pair, with_body: bool) -> None:
    async with AuthorizationServer() as authorization:
        values = {"port": authorization.port, "body": WITH_BODY if with_body else ""}
        options: dict[str, Any] = {"ssl_port": 0, "http3": True, **pair.options}
        clusters = AUTHZ_CLUSTER % authorization.port
        with printed(tmp_path, APP, filters=EXT_AUTHZ % values, clusters=clusters, **options) as server:
            await server.accepts()
            for size in SIZES:
                authorization.go_on.clear()
                body = content(size)
                async with await connect(server) as connection:
                    answering = asyncio.create_task(upload(connection, "/digest", body, "pieces"))
                    async with asyncio.timeout(DEADLINE):
                        asked = await authorization.asked.get()
                    assert asked == (body if with_body else b"")
                    authorization.go_on.set()
                    assert (await answering).json() == seen(body)
            async with await connect(server) as connection:
                assert (await connection.get("/digest?denied")).status == 403
