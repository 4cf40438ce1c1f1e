"""Limits that the bridge keeps: bytes of a request's body, and requests in the application at once."""

import asyncio
import signal
from pathlib import Path

from py_tests.harness.apps import (
    Message,
    Receive,
    Scope,
    Send,
    answer,
    body,
    file_exists,
    gate,
    note,
    read,
    routes,
    start,
)
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Exchange, Response, ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import AIOVOY, UNDER_TEST, Serve, Server, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("it has no limit of bodies, and counts connections")

LIMIT = 100_000


async def length(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "called")
    await answer(send, len(await read(receive)))


async def messages(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes what it receives, to the end."""
    kind = ""
    while kind != "http.disconnect":
        message: Message = await receive()
        kind = message["type"]
        note(scope, kind)


async def begun(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins its response before it reads."""
    await start(send)
    await body(send, b"begun", more=True)
    await messages(scope, receive, send)


async def early(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without a look at the body."""
    note(scope, "called")
    await answer(send, b"early")


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "called")
    await file_exists(gate(scope))
    await answer(send, b"answered")


app = routes(length, messages, begun, early, gated)


async def refused(exchange: Exchange) -> Response:
    """The response to a body that is over the limit."""
    response = await exchange.response()
    assert response.status == 413
    assert response.body == b"Content Too Large"
    return response


async def is_fine(server: Server) -> None:
    assert (await server.get("/length")).json() == 0


# --- The body ---


async def test_body_up_to_the_limit_is_let_in(serve: Serve, connect: Connect) -> None:
    connection = await connect(serve(f"{__name__}:app", limit_request_body=LIMIT))
    assert (await connection.post("/length", bytes(LIMIT))).json() == LIMIT
    exchange = await connection.start("POST", "/length", upload=True)
    await exchange.send(bytes(LIMIT), end=True)
    assert (await exchange.response()).json() == LIMIT


async def test_length_over_the_limit_is_refused_before_the_body(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(f"{__name__}:app", limit_request_body=LIMIT)
    headers = [(b"content-length", b"%d" % (LIMIT + 1))]
    connection = await connect(server)
    exchange = await connection.start("POST", f"/length?{key}", headers=headers, upload=True)
    response = await refused(exchange)
    if isinstance(connection, Http1Connection):
        assert response.header(b"connection") == b"close"
        await connection.ended()
    else:
        assert (await connection.get("/length")).json() == 0
    assert await server.notes(key) == []


async def test_no_continue_for_a_body_over_the_limit(serve: Serve) -> None:
    server = serve(f"{__name__}:app", limit_request_body=LIMIT)
    async with await Http1Connection.open(server.port) as connection:
        headers = [(b"content-length", b"%d" % (LIMIT + 1)), (b"expect", b"100-continue")]
        exchange = await connection.start("POST", "/length", headers=headers, upload=True)
        await refused(exchange)
        assert exchange.interim == []


async def test_body_without_a_length_is_counted(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(f"{__name__}:app", limit_request_body=LIMIT)
    exchange = await (await connect(server)).start("POST", f"/messages?{key}", upload=True)
    await exchange.send(bytes(LIMIT))
    await server.noted(key, "http.request")
    await exchange.send(b"x")
    await refused(exchange)
    notes = await server.noted(key, "http.disconnect")
    assert notes.count("http.disconnect") == 1
    await is_fine(server)


@of_envoy("beyond the window of the application nothing comes")
async def test_body_that_nobody_reads_is_counted(serve: Serve, connect: Connect, key: str, tmp_path: Path) -> None:
    """Also where it waits in Envoy, beyond the window of the application."""
    limit = 400_000
    server = serve(f"{__name__}:app", limit_request_body=limit)
    headers = [(b"x-gate", str(tmp_path / "gate").encode())]
    exchange = await (await connect(server)).start("POST", f"/gated?{key}", headers=headers, upload=True)
    await server.noted(key, "called")
    sending = asyncio.create_task(exchange.send(bytes(limit + 1)))
    await refused(exchange)
    sending.cancel()
    (tmp_path / "gate").touch()
    await is_fine(server)


async def test_response_that_has_begun_is_cut(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(f"{__name__}:app", limit_request_body=LIMIT)
    exchange = await (await connect(server)).start("POST", f"/begun?{key}", upload=True)
    assert await exchange.head() == 200
    assert await exchange.chunk() == b"begun"
    await exchange.send(bytes(LIMIT + 1))
    try:
        await exchange.rest()
    except ResponseCut:
        pass
    else:
        raise AssertionError("the response came to its end")
    await server.noted(key, "http.disconnect")
    await is_fine(server)


async def test_body_after_its_response_is_not_refused(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(f"{__name__}:app", limit_request_body=LIMIT)
    exchange = await (await connect(server)).start("POST", f"/early?{key}", upload=True)
    assert (await exchange.response()).body == b"early"
    await is_fine(server)


# --- Concurrency ---


async def test_requests_over_the_limit_are_refused(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    server = serve(f"{__name__}:app", limit_concurrency=3)
    path = tmp_path / "gate"
    headers = [(b"x-gate", str(path).encode())]
    running = [await (await connect(server)).start("GET", "/gated", headers=headers) for _ in range(3)]
    connection = await connect(server)

    async def status() -> int:
        response = await connection.get("/length")
        assert response.body == (b"0" if response.status == 200 else b"Service Unavailable")
        if UNDER_TEST == AIOVOY:
            assert response.header(b"retry-after") == (None if response.status == 200 else b"1")
        return response.status

    async def full() -> bool:
        return await status() == 503

    async def free() -> bool:
        return await status() == 200

    # The three may come later than the first to ask.
    await eventually(full)
    for _ in range(20):
        assert await full()
    path.touch()
    for exchange in running:
        assert (await exchange.response()).body == b"answered"
    # A call may return later than its response comes.
    await eventually(free)


async def test_client_that_leaves_does_not_make_room(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    """What is counted is the application's call."""
    server = serve(f"{__name__}:app", limit_concurrency=1)
    path = tmp_path / "gate"
    connection = await connect(server)
    exchange = await connection.start("GET", "/gated", headers=[(b"x-gate", str(path).encode())])

    async def status(wanted: int) -> bool:
        return (await server.get("/length")).status == wanted

    await eventually(lambda: status(503))
    await exchange.leave()
    for _ in range(20):
        assert await status(503)
    path.touch()
    await eventually(lambda: status(200))


async def test_refused_requests_do_not_hold_up_the_end(serve: Serve, connect: Connect) -> None:
    server = serve(f"{__name__}:app", limit_request_body=1)
    connection = await connect(server)
    assert (await connection.post("/length", b"xx")).status == 413
    server.signal(signal.SIGTERM)
    assert await server.exit_code() == 0
