"""What the log says of a request whose application has failed: which one it was."""

import contextlib

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, routes, start
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Server, unlike_uvicorn

pytestmark = unlike_uvicorn("its log does not say")


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("a mistake")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def half(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"half", more=True)


async def fine(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send)


app = routes(raising, silent, half, fine)

LINES = {
    "raising": "exception in ASGI application: POST /raising/%20a (request one-two)\nTraceback",
    "silent": "ASGI application returned without starting a response: POST /silent/%20a (request one-two)\n",
    "half": "ASGI application returned without completing its response: POST /half/%20a (request one-two)\n",
}


@pytest.mark.parametrize("name", LINES)
async def test_log_names_the_request(server: Server, connect: Connect, name: str) -> None:
    connection = await connect(server)
    exchange = await connection.start(
        "POST", f"/{name}/%20a?password=secret", headers=[(b"x-request-id", b"one-two")], body=b"body"
    )
    assert await exchange.head() == (200 if name == "half" else 500)
    with contextlib.suppress(ResponseCut):
        await exchange.rest()
    await eventually(lambda: LINES[name] in server.fresh_log)
    assert "secret" not in server.fresh_log


async def test_request_without_an_id_is_named_too(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/raising")).status == 500
    await eventually(lambda: "exception in ASGI application: GET /raising\nTraceback" in server.fresh_log)


async def test_nothing_is_said_of_a_request_that_ends_well(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/fine")).status == 200
    assert server.fresh_log.count("\n") <= 1
