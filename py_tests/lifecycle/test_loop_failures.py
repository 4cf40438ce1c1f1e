"""What could end an event loop: the worker goes on, or it ends with a word and another takes its place."""

import asyncio
import logging
import sys
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, file_exists, gate, lifespan, note, notes
from py_tests.harness.deadline import eventually
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Serve, Server, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("its loop is its main program")

APP = f"{__name__}:app"
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


class Broken:
    """A standard error that takes nothing."""

    def write(self, text: str) -> int:
        raise ValueError("broken")

    def flush(self) -> None:
        raise ValueError("broken")


class Refuses(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise BaseException("this log takes nothing")


def break_stderr() -> None:
    sys.stderr = Broken()


def close_stderr() -> None:
    sys.stderr.close()


def no_stderr() -> None:
    sys.stderr = None


def fail() -> None:
    """An error that the loop can't hand to anybody."""
    logging.getLogger("asyncio").addHandler(Refuses())
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)


def close_loop() -> None:
    """The loop is stopped, and closed before it runs again."""
    loop: Any = asyncio.get_running_loop()

    def run_forever() -> None:
        del loop.run_forever
        loop.close()

    loop.run_forever = run_forever
    loop.stop()


def break_loop() -> None:
    """The loop is stopped, and does not run any more."""
    loop: Any = asyncio.get_running_loop()

    def run_forever() -> None:
        raise RuntimeError("out of order")

    loop.run_forever = run_forever
    loop.stop()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope.get("path", "").removeprefix("/")
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        print("shut down")
    elif path == "notes":
        await notes(scope, receive, send)
    elif path == "exits":
        sys.exit("a request has exited")
    elif path == "stops":
        asyncio.get_running_loop().stop()
        await answer(send, b"goes on")
    elif path == "waits":
        note(scope, "waits")
        await file_exists(gate(scope))
        await answer(send, b"answered")
    else:
        globals()[path]()
        await answer(send, b"done")


async def is_replaced(server: Server) -> None:
    await eventually(lambda: "exited with status 1: the next one starts" in server.log)
    assert (await server.get("/notes")).status == 200


@LOOPS
@pytest.mark.parametrize(
    "how",
    [
        pytest.param("break_stderr", marks=of_envoy("an ordinary process of Python's ends with 120 then")),
        "close_stderr",
        "no_stderr",
    ],
)
async def test_standard_error_that_fails_is_no_end(serve: Serve, how: str, loop: str) -> None:
    server = serve(APP, loop=loop)
    assert (await server.get(f"/{how}")).body == b"done"
    for _ in range(2):
        assert (await server.get("/exits")).status == 500
        assert (await server.get("/stops")).body == b"goes on"
    # The log of the server is not Python's standard error.
    await eventually(lambda: "a request has exited" in server.log)
    await eventually(lambda: "stopped the event loop" in server.log)


@LOOPS
async def test_loop_that_fails_ends_the_worker_in_order(
    serve: Serve, connect: Connect, key: str, tmp_path: Any, loop: str
) -> None:
    server = serve(APP, workers=1, loop=loop)
    headers = [(b"x-gate", str(tmp_path / "gate").encode())]
    waiting = await (await connect(server)).start("GET", f"/waits?{key}", headers=headers)
    await server.noted(key, "waits")
    assert (await server.get("/fail")).body == b"done"
    await eventually(lambda: "an event loop has failed" in server.log)
    (tmp_path / "gate").touch()
    assert (await waiting.response()).body == b"answered"
    await is_replaced(server)
    assert "this log takes nothing" in server.log
    assert "shut down" in server.output


@LOOPS
@pytest.mark.parametrize(("how", "word"), [("close_loop", "is closed"), ("break_loop", "out of order")])
async def test_loop_that_does_not_run_any_more_ends_the_worker(
    serve: Serve, connect: Connect, key: str, tmp_path: Any, how: str, word: str, loop: str
) -> None:
    server = serve(APP, workers=1, loop=loop)
    headers = [(b"x-gate", str(tmp_path / "never").encode())]
    waiting = await (await connect(server)).start("GET", f"/waits?{key}", headers=headers)
    await server.noted(key, "waits")
    await (await connect(server)).start("GET", f"/{how}")
    assert await waiting.head() == 500
    await is_replaced(server)
    assert "an event loop has failed" in server.log
    assert word in server.log
