"""Memory that a server has used goes back to the system, and connections that are idle have little."""

import contextlib

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, read, routes, start
from py_tests.harness.deadline import eventually
from py_tests.harness.http1 import stalled
from py_tests.harness.protocols import CLIENTS, HTTP1, HTTP2
from py_tests.harness.serving import FRONT, OWN, Serve, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

KB, MB = 2**10, 2**20


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"x" * (3 * MB))
    note(scope, "ended")


async def upload(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, len(await read(receive)))


app = routes(hello, large, upload)


async def test_memory_of_a_burst_is_given_back(serve: Serve, key: str) -> None:
    """Clients that do not read what they asked for, and leave."""
    server = serve(f"{__name__}:app")
    assert (await server.get("/hello")).status == 200
    before = server.memory()
    clients = [stalled(server.port, f"GET /large?{key} HTTP/1.1\r\nhost: a\r\n\r\n".encode()) for _ in range(100)]

    async def all_ended() -> bool:
        return len(await server.notes(key)) == len(clients)

    await eventually(all_ended)
    peak = server.memory()
    assert peak > before + 150 * MB
    for client in clients:
        client.close()
    rest = (peak - before) / (10 if FRONT == OWN else 3)  # Envoy's allocator takes its time
    await eventually(lambda: server.memory() < before + rest, within=60)


KEPT = {HTTP1: 100 * KB, HTTP2: 250 * KB}
"""What an idle connection may have, give or take what allocators do; less than the window of a body."""


@pytest.mark.protocols(HTTP1, HTTP2)
async def test_idle_connection_keeps_little_of_what_has_come(serve: Serve, protocol: str) -> None:
    server = serve(f"{__name__}:app", timeout_keep_alive=600)
    async with contextlib.AsyncExitStack() as connections:

        async def upload_on(count: int) -> int:
            """Memory once each of so many more has brought a megabyte."""
            for _ in range(count):
                connection = await connections.enter_async_context(await CLIENTS[protocol].open(server.port))
                assert (await connection.post("/upload", bytes(MB))).json() == MB
            return server.memory()

        before = await upload_on(10)  # what the first ones take, later ones have as well
        assert await upload_on(100) < before + 100 * KEPT[protocol]
