"""After the end of a response: what `receive` gives, and what becomes of `send`."""

import asyncio
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, read, routes, start
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Server, unlike_uvicorn

conforms = pytest.mark.conforms


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


async def after(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    await answer(send, b"done")
    note(scope, await receive())
    note(scope, await receive())


@conforms("http.disconnect.end")
async def test_receive_gives_disconnect_once_the_response_ended(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/after?{key}")).body == b"done"
    disconnect = {"type": "http.disconnect"}
    assert await server.noted(key, disconnect) == [disconnect] * 2
    assert (await connection.get("/plain")).body == b"plain"


async def afterthoughts(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"done", headers=[(b"content-length", b"4")])
    try:
        await body(send, b"an afterthought")
        await body(send)
        await start(send, 500)
    except Exception as error:
        note(scope, repr(error))
    else:
        note(scope, "ignored")


@conforms("http.send.end")
@unlike_uvicorn("uvicorn raises")
async def test_messages_after_the_response_ended_are_ignored(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/afterthoughts?{key}")).body == b"done"
    assert (await connection.get("/plain")).body == b"plain"
    assert await server.noted(key, "ignored") == ["ignored"]


MESSAGES: dict[str, dict[str, Any]] = {
    "http.response.trailers": {"headers": [(b"x-late", b"1")]},
    "http.response.early_hint": {"links": [b"</late>"]},
    "http.response.pathsend": {"path": __file__},
    "http.response.zerocopysend": {"file": 0},
}


async def late_extensions(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"done", headers=[(b"content-length", b"4")])
    for type, keys in MESSAGES.items():
        try:
            await send({"type": type, **keys})
        except Exception as error:
            note(scope, repr(error))
    note(scope, "ignored")


@conforms("http.send.end")
@unlike_uvicorn("uvicorn raises")
async def test_messages_of_extensions_after_the_response_ended_are_ignored(
    server: Server, connect: Connect, key: str
) -> None:
    connection = await connect(server)
    response = await connection.get(f"/late_extensions?{key}", [(b"te", b"trailers")])
    assert (response.body, response.trailers) == (b"done", [])
    assert (await connection.get("/plain")).body == b"plain"
    assert await server.noted(key, "ignored") == ["ignored"]


async def waits_for_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    waiting = asyncio.create_task(receive())
    await start(send)
    await body(send, b"first", more=True)
    for _ in range(10):
        await asyncio.sleep(0)
    note(scope, waiting.done())
    await body(send, b" last")
    note(scope, await waiting)


@conforms("http.disconnect.end")
async def test_receive_after_the_body_waits(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.post(f"/waits_for_the_end?{key}", b"body")).body == b"first last"
    disconnect = {"type": "http.disconnect"}
    assert await server.noted(key, disconnect) == [False, disconnect]


async def works_on(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"done")
    await asyncio.sleep(0)
    note(scope, "worked on")


async def test_application_may_go_on_after_its_response(server: Server, connect: Connect, key: str) -> None:
    assert (await (await connect(server)).get(f"/works_on?{key}")).body == b"done"
    await server.noted(key, "worked on")


app = routes(plain, after, afterthoughts, late_extensions, waits_for_the_end, works_on)
