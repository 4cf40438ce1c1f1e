"""`--timeout-idle`: a client that the application waits for in vain is let go; one that it does not wait for is not."""

import asyncio
import os
from pathlib import Path

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, read, routes, start
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Serve, Server, unlike_uvicorn

IDLE = 0.4
"""Seconds. Tests of what must not happen wait for several times as long."""

PATIENT = 2.0
"""Where the client has to do something in time, which may be held up."""


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(f"{__name__}:app", timeout_idle=IDLE)


@pytest.fixture
def patient(serve: Serve) -> Server:
    return serve(f"{__name__}:app", timeout_idle=PATIENT)


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "http.request":
        note(scope, message["body"].decode())
        if not message["more_body"]:
            await answer(send, b"whole")
            return
    note(scope, message["type"])


async def test_body_that_does_not_come_is_408(patient: Server, connect: Connect, key: str) -> None:
    connection = await connect(patient)
    exchange = await connection.start("POST", f"/reads?{key}", upload=True)
    await exchange.send(b"part")
    assert (await exchange.response()).status == 408
    await connection.ended()
    await patient.noted(key, "part", "http.disconnect")
    assert "Traceback" not in patient.fresh_log


async def test_body_that_comes_slowly_is_read(patient: Server, connect: Connect, key: str) -> None:
    exchange = await (await connect(patient)).start("POST", f"/reads?{key}", upload=True)
    for number in range(12):
        await exchange.send(b"%d" % number)
        await patient.noted(key, str(number))
        await asyncio.sleep(PATIENT / 10)  # longer in all than the limit
    await exchange.send(b"", end=True)
    assert (await exchange.response()).body == b"whole"


async def answers_while_reading(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"begun,", more=True)
    await body(send, await read(receive))


async def test_conversation_may_pause(server: Server, connect: Connect) -> None:
    """Once there is a response, a client that sends nothing may be waiting for more of it."""
    exchange = await (await connect(server)).start("POST", "/answers_while_reading", upload=True)
    await exchange.send(b"part")
    assert await exchange.head() == 200
    await asyncio.sleep(3 * IDLE)
    await exchange.send(b"", end=True)
    assert await exchange.rest() == b"begun,part"


async def floods(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    try:
        while True:
            await body(send, b"x" * 65536, more=True)
    except OSError:
        note(scope, "cut")
        raise


async def test_reader_that_stops_is_cut_off(server: Server, connect: Connect, key: str) -> None:
    exchange = await (await connect(server)).start("GET", f"/floods?{key}")
    assert await exchange.head() == 200
    await server.noted(key, "cut")
    with pytest.raises(ResponseCut):
        await exchange.rest()
    assert "Traceback" not in server.fresh_log


async def sends_a_file(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    try:
        await send({"type": "http.response.pathsend", "path": os.fsdecode(dict(scope["headers"])[b"x-path"])})
    except OSError:
        note(scope, "cut")
        raise


@unlike_uvicorn("it has no pathsend")
async def test_reader_of_a_file_that_stops_is_cut_off(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    exchange = await (await connect(server)).start("GET", f"/sends_a_file?{key}", headers=[(b"x-path", bytes(path))])
    assert await exchange.head() == 200
    await server.noted(key, "cut")
    with pytest.raises(ResponseCut):
        await exchange.rest()
    assert "Traceback" not in server.fresh_log


async def computes(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(4 * IDLE)
    await start(send)
    await body(send, b"first,", more=True)
    await asyncio.sleep(4 * IDLE)
    await body(send, b"second")


async def test_application_may_take_its_time(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.get("/computes")).body == b"first,second"


async def waits_for_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    disconnected = asyncio.ensure_future(receive())
    done, _ = await asyncio.wait({disconnected}, timeout=4 * IDLE)
    await answer(send, b"gone" if done else b"here")
    await disconnected


async def test_waiting_for_the_disconnect_is_no_waiting_for_the_client(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.get("/waits_for_the_end")).body == b"here"


async def test_zero_is_no_limit(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(f"{__name__}:app", timeout_idle=0)
    exchange = await (await connect(server)).start("POST", f"/reads?{key}", upload=True)
    await exchange.send(b"part")
    await server.noted(key, "part")
    await asyncio.sleep(2 * IDLE)
    await exchange.send(b"", end=True)
    assert (await exchange.response()).body == b"whole"


app = routes(reads, answers_while_reading, floods, sends_a_file, computes, waits_for_the_end)
