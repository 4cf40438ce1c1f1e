"""Memory that Envoy has used goes back to the system."""

from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, routes, start
from py_tests.harness.deadline import eventually
from py_tests.harness.http1 import stalled
from py_tests.harness.serving import Serve, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about Envoy's allocator")

MB = 2**20


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, bytes(3 * MB))
    note(scope, "ended")


app = routes(hello, large)


@of_envoy("it does not take it")
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
    await eventually(lambda: server.memory() < before + (peak - before) / 3, within=60)
