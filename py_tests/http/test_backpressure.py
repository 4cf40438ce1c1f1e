"""A slow side makes the other one wait: what is under way stays bounded, in both directions."""

import asyncio
import contextlib
import hashlib

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, file_exists, gate, note, routes, start
from py_tests.harness.deadline import settled
from py_tests.harness.exchange import Exchange
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Server, unlike_uvicorn

MEGABYTE = 1024 * 1024
PIECE = 64 * 1024

# Kernel buffers (several MB on loopback on either side), HTTP/2 windows and our own queues; far
# below the total, so that a server without back-pressure cannot pass. HTTP/3 has no kernel buffers,
# and a slow client.
TOTAL = {HTTP1: 128 * MEGABYTE, HTTP2: 128 * MEGABYTE, HTTP3: 8 * MEGABYTE}
UNDER_WAY = {HTTP1: 24 * MEGABYTE, HTTP2: 24 * MEGABYTE, HTTP3: 2 * MEGABYTE}
RESIDENT = {HTTP1: 48 * MEGABYTE, HTTP2: 48 * MEGABYTE, HTTP3: 8 * MEGABYTE}


# --- The client reads slowly ---


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends as many bytes as the path says; notes when `send` made it wait, and how many had been sent."""
    total = int(scope["path"].split("/")[2])
    piece = bytes(range(256)) * (PIECE // 256)
    await start(send)
    sent = 0
    pending = 0
    waited = False
    while sent < total:
        sending = asyncio.ensure_future(body(send, piece, more=True))
        pending += 1
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        if not done and not waited:
            waited = True
            note(scope, {"pending": pending})
            note(scope, {"sent": sent})
            note(scope, "waiting")
        await sending
        pending -= 1
        sent += PIECE
    await body(send)
    note(scope, "finished")


async def read_all(exchange: Exchange) -> int:
    size = 0
    while piece := await exchange.chunk():
        size += len(piece)
    return size


@pytest.mark.conforms("http.response.slow")
async def test_slow_reader_makes_send_wait(server: Server, connect: Connect, protocol: str, key: str) -> None:
    before, total = server.memory(), TOTAL[protocol]
    exchange = await (await connect(server)).start("GET", f"/flood/{total}?{key}")
    assert await exchange.head() == 200
    waiting, sent, _ = (await server.noted(key, "waiting"))[:3]
    assert waiting == {"pending": 1}
    assert sent["sent"] < UNDER_WAY[protocol]
    assert "finished" not in await server.notes(key)
    assert server.memory() - before < RESIDENT[protocol]
    assert await read_all(exchange) == total
    await server.noted(key, "finished")
    assert server.memory() - before < RESIDENT[protocol]


async def hints(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends early hints until it has to wait, then the response; notes how many bytes they were."""
    links = [b"<" + b"x" * 1000 + b">"]
    for sent in range(100_000):
        sending = asyncio.ensure_future(send({"type": "http.response.early_hint", "links": links}))
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        if not done:
            note(scope, sent)
            note(scope, "waiting")
            break
    await sending
    await answer(send, sent)


@pytest.mark.protocols(HTTP1)
@unlike_uvicorn("uvicorn has no early hints")
async def test_early_hints_wait_for_a_slow_reader(server: Server, connect: Connect, key: str) -> None:
    exchange = await (await connect(server)).start("GET", f"/hints?{key}")
    sent, _ = await server.noted(key, "waiting")
    assert sent * 1000 < UNDER_WAY[HTTP1]
    assert (await exchange.response()).json() == sent


async def one_send(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends everything in a single message."""
    await start(send)
    note(scope, "sending")
    await body(send, b"x" * (32 * MEGABYTE))
    note(scope, "finished")


async def test_single_large_message_is_sent_at_the_readers_pace(server: Server, connect: Connect, key: str) -> None:
    exchange = await (await connect(server)).start("GET", f"/one_send?{key}")
    assert await exchange.head() == 200
    await server.noted(key, "sending")
    assert await read_all(exchange) == 32 * MEGABYTE
    await server.noted(key, "finished")


async def cancels_sends(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends numbered pieces, and does not wait long for any of them."""
    await start(send)
    cancelled = 0
    for number in range(1500):
        try:
            async with asyncio.timeout(0.01):
                await body(send, b"%08d" % number * 1024, more=True)
        except TimeoutError:
            cancelled += 1
            if cancelled == 1:
                note(scope, "cancelled")
            if cancelled > 50:
                break
    await body(send, b"end")


async def test_cancelled_send_leaves_the_body_in_order(server: Server, connect: Connect, key: str) -> None:
    """Whether such a piece is sent is the server's choice; not in part, not twice, not later."""
    exchange = await (await connect(server)).start("GET", f"/cancels_sends?{key}")
    assert await exchange.head() == 200
    await server.noted(key, "cancelled")
    received = await exchange.rest()
    assert received.endswith(b"end")
    pieces = [received[at : at + 8192] for at in range(0, len(received) - 3, 8192)]
    numbers = [int(piece[:8]) for piece in pieces]
    assert all(piece == b"%08d" % number * 1024 for piece, number in zip(pieces, numbers, strict=True))
    assert numbers == sorted(set(numbers))


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


async def sink(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, and answers with its digest."""
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        digest.update(message["body"])
        more = message["more_body"]
    await answer(send, digest.hexdigest())


async def test_slow_reader_delays_nobody_else(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/flood/{TOTAL[connection.protocol]}?{key}")
    await exchange.head()
    await server.noted(key, "waiting")
    for _ in range(10):
        async with await Http1Connection.open(server.port) as other:
            assert (await other.get("/plain")).body == b"plain"
    await exchange.leave()


@unlike_uvicorn("uvicorn has no HTTP/2")
async def test_slow_stream_does_not_delay_its_siblings(server: Server, key: str) -> None:
    async with await Http2Connection.open(server.port) as connection:
        slow = await connection.start("GET", f"/flood/{TOTAL[HTTP2]}?{key}")
        await slow.head()
        await server.noted(key, "waiting")
        data = b"y" * 300_000
        assert (await connection.get("/plain")).body == b"plain"
        assert (await connection.post("/sink", data)).json() == hashlib.sha256(data).hexdigest()
        await slow.leave()


# --- The application reads slowly ---


async def reads_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads nothing until the gate opens, then everything."""
    note(scope, "not reading")
    await file_exists(gate(scope))
    await sink(scope, receive, send)


@pytest.mark.conforms("http.request.slow")
async def test_application_that_does_not_read_stops_the_client(
    server: Server, connect: Connect, protocol: str, key: str, tmp_path: object
) -> None:
    path = f"{tmp_path}/gate"
    before, total = server.memory(), TOTAL[protocol]
    piece = bytes(range(256)) * (MEGABYTE // 256)
    exchange = await (await connect(server)).start(
        "POST", f"/reads_late?{key}", headers=[(b"x-gate", path.encode())], upload=True
    )

    async def upload() -> None:
        for _ in range(total // MEGABYTE):
            await exchange.send(piece)
        await exchange.send(b"", end=True)

    uploading = asyncio.create_task(upload())
    try:
        await server.noted(key, "not reading")
        assert await settled(lambda: exchange.sent) < UNDER_WAY[protocol]
        assert not uploading.done()
        assert server.memory() - before < RESIDENT[protocol]
        open(path, "w").close()
        expected = hashlib.sha256(piece * (total // MEGABYTE)).hexdigest()
        assert (await exchange.response()).json() == expected
        assert exchange.sent == total
        assert server.memory() - before < RESIDENT[protocol]
    finally:
        uploading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await uploading


@unlike_uvicorn("uvicorn has neither")
@pytest.mark.protocols(HTTP2, HTTP3)
async def test_stalled_uploads_do_not_delay_their_siblings(
    server: Server, connect: Connect, key: str, tmp_path: object
) -> None:
    """However many: each has a window of its own, and the connection's has room for all."""
    path = f"{tmp_path}/gate"
    data = b"y" * 300_000
    connection = await connect(server)
    async with asyncio.TaskGroup() as uploads:
        stalled = []
        for _ in range(10):
            exchange = await connection.start(
                "POST", f"/reads_late?{key}", headers=[(b"x-gate", path.encode())], upload=True
            )
            stalled.append(exchange)
            uploads.create_task(exchange.send(b"x" * (2 * MEGABYTE), end=True))
        await settled(lambda: sum(exchange.sent for exchange in stalled))
        assert all(exchange.sent < 2 * MEGABYTE for exchange in stalled)
        assert (await connection.get("/plain")).body == b"plain"
        assert (await connection.post("/sink", data)).json() == hashlib.sha256(data).hexdigest()
        open(path, "w").close()
    expected = hashlib.sha256(b"x" * (2 * MEGABYTE)).hexdigest()
    for exchange in stalled:
        assert (await exchange.response()).json() == expected


async def receives_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Receives nothing until the gate opens, then answers with the lengths and the digest of what it receives."""
    note(scope, "not reading")
    await file_exists(gate(scope))
    pieces = []
    more = True
    while more:
        message = await receive()
        pieces.append(message["body"])
        more = message["more_body"]
    await answer(send, [[len(piece) for piece in pieces], hashlib.sha256(b"".join(pieces)).hexdigest()])


@unlike_uvicorn("uvicorn has no HTTP/2")
async def test_short_pieces_that_wait_are_joined(server: Server, key: str, tmp_path: object) -> None:
    """Else each of them, of one byte, would cost a hundred."""
    path = f"{tmp_path}/gate"
    async with await Http2Connection.open(server.port) as connection:
        exchange = await connection.start(
            "POST", f"/receives_late?{key}", headers=[(b"x-gate", path.encode())], upload=True
        )
        await server.noted(key, "not reading")
        for _ in range(5000):
            await exchange.send(b"x")
        # What follows them on the connection is answered once they all wait.
        assert (await connection.get("/plain")).body == b"plain"
        open(path, "w").close()
        await exchange.send(b"", end=True)
        lengths, digest = (await exchange.response()).json()
    assert digest == hashlib.sha256(b"x" * 5000).hexdigest()
    assert len(lengths) < 20


@pytest.mark.protocols(HTTP1, HTTP2, HTTP3)
async def test_pieces_that_wait_come_in_order_and_few_messages(
    server: Server, connect: Connect, key: str, tmp_path: object
) -> None:
    path = f"{tmp_path}/gate"
    sizes = [1, 5000, 3, 20_000, 1, 1, 4095, 1, 60_000, 10, 4096, 4097, 30_000, 2] * 2
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    exchange = await (await connect(server)).start(
        "POST", f"/receives_late?{key}", headers=[(b"x-gate", path.encode())], upload=True
    )
    await server.noted(key, "not reading")
    sending = asyncio.create_task(send_all(exchange, pieces))
    await settled(lambda: exchange.sent)
    open(path, "w").close()
    await sending
    lengths, digest = (await exchange.response()).json()
    assert digest == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert len(lengths) < len(pieces)


async def send_all(exchange: Exchange, pieces: list[bytes]) -> None:
    for piece in pieces:
        await exchange.send(piece)
    await exchange.send(b"", end=True)


async def echo_stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends each piece back before it asks for the next one."""
    await start(send)
    received = 0
    more = True
    while more:
        message = await receive()
        received += len(message["body"])
        note(scope, received)
        more = message["more_body"]
        await body(send, message["body"], more)


async def test_slow_reader_of_an_echo_stops_its_own_upload(server: Server, connect: Connect, key: str) -> None:
    """The two directions joined by an application: the client does not read what it gets back."""
    before = server.memory()
    total = 64 * MEGABYTE
    exchange = await (await connect(server)).start("POST", f"/echo_stream?{key}", upload=True)

    async def upload() -> None:
        for _ in range(total // MEGABYTE):
            await exchange.send(b"z" * MEGABYTE)
        await exchange.send(b"", end=True)

    uploading = asyncio.create_task(upload())
    try:
        await exchange.head()
        assert await settled(lambda: exchange.sent) < 2 * UNDER_WAY[HTTP1]
        assert not uploading.done()
        assert server.memory() - before < RESIDENT[HTTP1]
        assert await read_all(exchange) == total
        await uploading
    finally:
        uploading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await uploading


app = routes(flood, hints, one_send, cancels_sends, plain, sink, reads_late, receives_late, echo_stream)
