"""The options of the path through Envoy's router: how much at once, how much waits, how long, and how often."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, file_exists, gate, note, routes, start
from py_tests.harness.deadline import eventually, settled
from py_tests.harness.exchange import Response, ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.plain_envoy import PlainEnvoy, printed
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import ROUTER, Serve, Server, unlike_uvicorn
from py_tests.harness.ws_client import dial

pytestmark = unlike_uvicorn("this is about Envoy's router")

now = peak = 0


class Inside:
    """Counts the calls that are in the application, and the most there have been."""

    def __enter__(self) -> None:
        global now, peak
        now += 1
        peak = max(peak, now)

    def __exit__(self, *_: object) -> None:
        global now
        now -= 1


async def counts(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, [now, peak])


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    """For the gate."""
    with Inside():
        note(scope, "in")
        await file_exists(gate(scope))
    await answer(send, b"done")


async def sleeps(scope: Scope, receive: Receive, send: Send) -> None:
    """Far too long, and takes its time to leave."""
    with Inside():
        note(scope, "in")
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            note(scope, "cancelled")
            await asyncio.sleep(0.05)
            raise
        finally:
            note(scope, "out")


async def blocks(scope: Scope, receive: Receive, send: Send) -> None:
    """In a thread, which cannot be cancelled."""
    with Inside():
        thread = asyncio.ensure_future(asyncio.to_thread(time.sleep, 3))
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            await thread
            raise


async def listens(scope: Scope, receive: Receive, send: Send) -> None:
    """And cleans up when it is told."""
    assert (await receive())["type"] == "http.request"
    note(scope, (await receive())["type"])
    await asyncio.sleep(0.05)
    note(scope, "cleaned up")


async def is_deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """Is told, and goes on all the same."""
    listening = asyncio.ensure_future(receive())
    try:
        note(scope, "in")
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        note(scope, "cancelled")
        raise
    finally:
        listening.cancel()


async def streams(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    try:
        while True:
            await body(send, b"x", more=True)
            await asyncio.sleep(0.05)
    finally:
        note(scope, "out")


tries: Counter[bytes] = Counter()


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    """So often as the path says, with the status that it says."""
    times, status = (int(part) for part in scope["path"].split("/")[2:])
    note(scope, [scope["method"], len((await receive())["body"])])
    tries[scope["query_string"]] += 1
    failed = tries[scope["query_string"]] <= times
    await answer(send, b"failed" if failed else b"well", status if failed else 200)


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "called")
    raise RuntimeError("as the test wants it")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


app = routes(blocks, counts, echo, fails, is_deaf, listens, raises, sleeps, streams, waits)
APP = f"{__name__}:app"

# In seconds. The application is to have begun by then, and all else that the server is asked to be answered.
AMPLE = 2.0


async def peak_of(server: Server) -> int:
    """Once all have left, the most that there have been."""
    inside: list[int] = []

    async def empty() -> bool:
        response = await server.get("/counts")
        if response.status == 504:  # it has waited for a place in vain
            return False
        inside[:] = response.json()
        return inside[0] == 0

    await eventually(empty)
    return inside[1]


def outcomes(responses: list[Response]) -> Counter[tuple[int, bytes, bytes]]:
    return Counter((response.status, response.header(b"retry-after") or b"", response.body) for response in responses)


DONE = (200, b"", b"done")
REFUSED = (503, b"1", b"Service Unavailable")
TOO_LATE = (504, b"", b"Gateway Timeout")


class Waiting:
    """Requests that wait for a gate."""

    def __init__(self, server: Server, key: str, folder: Path) -> None:
        self.server, self.key, self.gate = server, key, folder / "gate"
        self.requests: list[asyncio.Task[Response]] = []

    async def _one(self) -> Response:
        async with await Http1Connection.open(self.server.port) as connection:
            return await connection.get(f"/waits?{self.key}", [(b"x-gate", str(self.gate).encode())])

    def start(self, number: int) -> None:
        self.requests += [asyncio.ensure_future(self._one()) for _ in range(number)]

    def answered(self) -> int:
        return sum(request.done() for request in self.requests)

    async def open(self) -> Counter[tuple[int, bytes, bytes]]:
        self.gate.touch()
        return outcomes(await asyncio.gather(*self.requests))


async def test_so_many_at_once_and_the_rest_is_refused(serve: Serve, key: str, tmp_path: Path) -> None:
    server = serve(APP, response_path=ROUTER, router_max_requests=10)
    waiting = Waiting(server, key, tmp_path)
    waiting.start(100)
    await eventually(lambda: waiting.answered() == 90)
    assert await waiting.open() == {DONE: 10, REFUSED: 90}
    assert await peak_of(server) == 10
    assert "refused with 503" in server.fresh_log


async def test_place_is_free_again_after_each(serve: Serve, key: str, tmp_path: Path) -> None:
    server = serve(APP, response_path=ROUTER, router_max_requests=1)
    for _ in range(20):
        assert (await server.get("/counts")).status == 200


@pytest.mark.parametrize("warm", [False, True])
async def test_so_many_wait_and_the_rest_is_refused(serve: Serve, key: str, tmp_path: Path, warm: bool) -> None:
    server = serve(APP, response_path=ROUTER, router_max_requests=10, router_max_pending_requests=20)
    if warm:
        await server.get("/counts")
    waiting = Waiting(server, key, tmp_path)
    waiting.start(100)
    await eventually(lambda: waiting.answered() == 70)
    assert await settled(waiting.answered) == 70
    assert await waiting.open() == {DONE: 30, REFUSED: 70}
    assert await peak_of(server) == 10


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[PlainEnvoy]:
    """One request at a time, and one that waits."""
    options: dict[str, Any] = {"router_max_requests": 1, "router_max_pending_requests": 1, "router_timeout": 60}
    with printed(tmp_path, APP, response_path=ROUTER, **options) as server:
        await server.accepts()
        yield server


async def test_who_waits_gets_the_next_place(narrow: PlainEnvoy, key: str, tmp_path: Path) -> None:
    waiting = Waiting(narrow, key, tmp_path)
    waiting.start(1)
    await eventually(lambda: narrow.statistics("cluster.aiovoy.")["upstream_rq_active"] == 1)
    waiting.start(1)
    await eventually(lambda: narrow.statistics("cluster.aiovoy.")["upstream_rq_pending_active"] == 1)
    assert (await narrow.get("/counts")).status == 503
    assert await waiting.open() == {DONE: 2}
    assert await peak_of(narrow) == 1


async def test_client_that_leaves_waits_no_more(narrow: PlainEnvoy, connect: Connect, key: str, tmp_path: Path) -> None:
    """Its place in the queue is another's, and the application never hears of it."""

    def pending(number: int) -> Callable[[], bool]:
        return lambda: narrow.statistics("cluster.aiovoy.")["upstream_rq_pending_active"] == number

    waiting = Waiting(narrow, key, tmp_path)
    waiting.start(1)
    await eventually(lambda: narrow.statistics("cluster.aiovoy.")["upstream_rq_active"] == 1)
    for _ in range(3):
        exchange = await (await connect(narrow)).start("GET", f"/raises?{key}left")
        await eventually(pending(1))
        await exchange.leave()
        await eventually(pending(0))
    waiting.start(1)
    await eventually(pending(1))
    assert await waiting.open() == {DONE: 2}
    assert await narrow.notes(f"{key}left") == []


@pytest.mark.parametrize("path", ["/sleeps", "/blocks"])
async def test_place_of_what_was_too_late_is_free_when_it_has_left(serve: Serve, path: str) -> None:
    """A call that was given up still counts, until it has returned."""
    server = serve(
        APP, response_path=ROUTER, router_max_requests=5, router_max_pending_requests=100, router_timeout=0.3
    )
    responses = await asyncio.gather(*(server.get(path) for _ in range(40)))
    assert outcomes(responses) == {TOO_LATE: 40}
    assert await peak_of(server) == 5


@pytest.mark.protocols(HTTP1, HTTP2, HTTP3)
async def test_what_takes_too_long_is_answered_and_cancelled(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(APP, response_path=ROUTER, router_timeout=AMPLE)
    began = time.monotonic()
    response = await (await connect(server)).get(f"/sleeps?{key}")
    assert (response.status, response.body) == (504, b"Gateway Timeout")
    assert time.monotonic() - began > 0.9 * AMPLE
    assert await server.noted(key, "out") == ["in", "cancelled", "out"]
    await eventually(lambda: "refused with 504" in server.fresh_log)
    assert "Traceback" not in server.fresh_log


async def test_statistics_tell_of_it(tmp_path: Path, key: str) -> None:
    with printed(tmp_path, APP, response_path=ROUTER, router_timeout=AMPLE, router_retries=2) as server:
        await server.accepts()
        assert (await server.get(f"/sleeps?{key}")).status == 504
        assert (await server.get(f"/fails/2/503?{key}")).status == 200
        told = server.statistics("cluster.aiovoy.upstream_rq_")
        assert (told["timeout"], told["retry"], told["200"]) == (1, 2, 1)


async def test_who_listens_is_told_and_may_clean_up(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(APP, response_path=ROUTER, router_timeout=AMPLE)
    assert (await (await connect(server)).get(f"/listens?{key}")).status == 504
    assert await server.noted(key, "cleaned up") == ["http.disconnect", "cleaned up"]


async def test_who_was_told_and_goes_on_is_cancelled(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(APP, response_path=ROUTER, router_timeout=AMPLE)
    assert (await (await connect(server)).get(f"/is_deaf?{key}")).status == 504
    assert await server.noted(key, "cancelled") == ["in", "cancelled"]


@pytest.mark.protocols(HTTP1, HTTP2, HTTP3)
async def test_response_that_takes_too_long_is_cut(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(APP, response_path=ROUTER, router_timeout=AMPLE)
    with pytest.raises(ResponseCut) as cut:
        await (await connect(server)).get(f"/streams?{key}")
    assert cut.value.status == 200
    await server.noted(key, "out")


@pytest.mark.protocols(HTTP1, HTTP2, HTTP3)
async def test_websocket_may_take_longer(serve: Serve, connect: Connect) -> None:
    server = serve(APP, response_path=ROUTER, router_timeout=0.3, router_retries=1)
    socket = await dial(await connect(server), "/echo")
    await asyncio.sleep(1)
    await socket.send("still there")
    assert await socket.receive() == "still there"
    assert (await socket.close())[0] == 1000


async def test_what_was_answered_with_503_is_tried_again(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(APP, response_path=ROUTER, router_retries=2)
    connection = await connect(server)
    response = await connection.get(f"/fails/2/503?{key}")
    assert (response.status, response.body) == (200, b"well")
    assert await server.notes(key) == [["GET", 0]] * 3


@pytest.mark.parametrize(
    ("method", "times", "status", "calls"),
    [
        ("GET", 3, 503, 3),
        ("PUT", 1, 503, 2),
        ("DELETE", 1, 503, 2),
        ("POST", 1, 503, 1),
        ("PATCH", 1, 503, 1),
        ("GET", 1, 500, 1),
        ("GET", 1, 502, 1),
        ("GET", 1, 504, 1),
    ],
)
async def test_what_is_tried_again_and_what_is_not(
    serve: Serve, connect: Connect, key: str, method: str, times: int, status: int, calls: int
) -> None:
    server = serve(APP, response_path=ROUTER, router_retries=2)
    body = b"x" * 1000 if method in ("PUT", "POST", "PATCH") else b""
    response = await (await connect(server)).request(method, f"/fails/{times}/{status}?{key}", body=body)
    assert response.status == (200 if calls > times else status)
    assert await server.notes(key) == [[method, len(body)]] * calls


async def test_application_that_raises_is_not_called_again(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(APP, response_path=ROUTER, router_retries=2)
    assert (await (await connect(server)).get(f"/raises?{key}")).status == 500
    assert await server.notes(key) == ["called"]
