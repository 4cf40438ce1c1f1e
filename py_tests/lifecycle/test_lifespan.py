"""Lifespan: start-up before the listener, shutdown after the last request, `state` in between."""

import asyncio
import gc
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import Message, Receive, Scope, Send, answer, file_exists
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import AIOVOY, UNDER_TEST, UVICORN, Serve, Server, launch, serve, unlike_uvicorn


def say(*words: Any) -> None:
    """Writes to the server's log."""
    print(*words, file=sys.stderr, flush=True)


async def startup(receive: Receive, send: Send) -> None:
    assert await receive() == {"type": "lifespan.startup"}
    await send({"type": "lifespan.startup.complete"})


async def shutdown(receive: Receive, send: Send) -> None:
    assert await receive() == {"type": "lifespan.shutdown"}
    await send({"type": "lifespan.shutdown.complete"})


# --- A good lifespan ---


class Log:
    """Something that JSON cannot tell: all requests must see the same object."""

    def __init__(self) -> None:
        self.entries: list[str] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        say("scope:", json.dumps({key: value for key, value in scope.items() if key != "state"}))
        scope["state"]["loop"] = asyncio.get_running_loop()
        scope["state"]["log"] = Log()
        scope["state"]["number"] = 1
        await startup(receive, send)
        say("serving")
        await shutdown(receive, send)
        say("shut down after", len(scope["state"]["log"].entries), "requests")
        return
    state = scope["state"]
    seen = {
        "keys": sorted(state),
        "number": state["number"],
        "same loop": state["loop"] is asyncio.get_running_loop(),
        "requests": len(state["log"].entries),
    }
    state["number"] += 1
    state["another"] = True
    state["log"].entries.append(scope["path"])
    await answer(send, seen)


@pytest.mark.conforms("lifespan.state", "http.scope.state", "lifespan.once")
async def test_state_of_startup_is_copied_into_every_request(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    first, second = [(await connection.get("/")).json() for _ in range(2)]
    for seen in (first, second):
        # What one request adds or sets is not there for the next: each has a copy.
        assert seen["keys"] == ["log", "loop", "number"]
        assert seen["number"] == 1
        assert seen["same loop"]
    # A shallow copy: objects in it are shared.
    assert second["requests"] == first["requests"] + 1


@pytest.mark.conforms("lifespan.scope")
async def test_lifespan_scope_is_as_specified(server: Server) -> None:
    (line,) = [line for line in server.log.splitlines() if line.startswith("scope: ")]
    scope = json.loads(line.removeprefix("scope: "))
    assert scope["type"] == "lifespan"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert set(scope) == {"type", "asgi"}


@pytest.mark.conforms("lifespan.once", "lifespan.shutdown")
async def test_shutdown_comes_once_and_the_exit_code_is_0(serve: Serve) -> None:
    server = serve(app)
    for _ in range(3):
        await server.get("/")
    server.signal(signal.SIGTERM)
    assert await server.exit_code() == (0 if UNDER_TEST == AIOVOY else -signal.SIGTERM)
    assert server.log.count("shut down after 3 requests") == 1
    assert server.log.count("serving") == 1


async def slow_startup(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        say("starting")
        await file_exists(os.environ["GATE"])
        await startup(receive, send)
        await shutdown(receive, send)
    else:
        await answer(send, b"open")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.conforms("lifespan.startup")
@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_listener_opens_after_startup_is_complete(tmp_path: Path, mode: str) -> None:
    port = free_port()
    gate = tmp_path / "gate"
    with launch(slow_startup, port=port, lifespan=mode, env={"GATE": str(gate)}) as server:
        await eventually(lambda: "starting" in server.log)
        assert refused(port)
        assert not server.started()
        gate.touch()
        await eventually(server.started)
        assert server.port == port
        assert (await server.get("/")).body == b"open"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_during_startup_ends_the_server(tmp_path: Path, number: int) -> None:
    with launch(slow_startup, env={"GATE": str(tmp_path / "never")}) as server:
        await eventually(lambda: "starting" in server.log)
        server.signal(number)
        if UNDER_TEST == UVICORN:  # which waits for the start-up
            (tmp_path / "never").touch()
        code = await server.exit_code()
        assert code == 0 or UNDER_TEST == UVICORN
        assert not server.processes()


# --- Failures ---


async def startup_fails(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})


async def startup_raises(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        raise LookupError("the database is away")
    await answer(send, b"serving all the same")


async def does_not_know_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await answer(send, b"serving all the same")


async def returns_from_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await answer(send, b"serving all the same")


async def startup_says_nonsense(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.nonsense"})
    await answer(send, b"serving all the same")


async def exit_code_of(app: Any, **options: Any) -> tuple[int, str]:
    """The exit code and log of a server that is to end by itself."""
    with launch(app, **options) as server:
        return await server.exit_code(), server.log


@pytest.mark.conforms("lifespan.startup.failed")
@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_startup_failed_ends_the_server(mode: str) -> None:
    code, log = await exit_code_of(startup_fails, lifespan=mode)
    assert code > 0
    assert "the database is away" in log
    assert "running on" not in log


async def test_startup_that_raises_ends_the_server_in_mode_on() -> None:
    code, log = await exit_code_of(startup_raises, lifespan="on")
    assert code > 0
    assert "Traceback" in log
    assert "LookupError: the database is away" in log
    assert "running on" not in log


@pytest.mark.conforms("lifespan.unsupported")
@pytest.mark.parametrize("app", [startup_raises, does_not_know_lifespan, returns_from_lifespan, startup_says_nonsense])
async def test_startup_that_raises_or_returns_is_no_lifespan_in_mode_auto(serve: Serve, app: Any) -> None:
    server = serve(app, lifespan="auto")
    assert (await server.get("/")).body == b"serving all the same"


async def test_unknown_lifespan_is_an_error_in_mode_on() -> None:
    code, log = await exit_code_of(does_not_know_lifespan, lifespan="on")
    assert code > 0
    assert "AssertionError" in log


@unlike_uvicorn("it goes on")
async def test_return_without_startup_complete_is_an_error_in_mode_on() -> None:
    code, log = await exit_code_of(returns_from_lifespan, lifespan="on")
    assert code > 0
    assert "lifespan.startup.complete" in log


async def test_lifespan_is_not_run_in_mode_off(serve: Serve) -> None:
    server = serve(does_not_know_lifespan, lifespan="off")
    assert (await server.get("/")).body == b"serving all the same"
    assert "AssertionError" not in server.log


async def shutdown_fails(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await startup(receive, send)
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "could not say goodbye"})
    else:
        await answer(send, b"")


async def shutdown_raises(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await startup(receive, send)
        await receive()
        raise LookupError("could not say goodbye")
    await answer(send, b"")


@pytest.mark.conforms("lifespan.shutdown.failed")
@pytest.mark.parametrize("app", [shutdown_fails, shutdown_raises])
async def test_failure_in_shutdown_is_logged_and_ends_the_server(app: Any) -> None:
    with serve(app, lifespan="on") as server:
        assert (await server.get("/")).status == 200
        server.signal(signal.SIGTERM)
        await server.exit_code()
        assert "could not say goodbye" in server.log


async def leaves_early(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await startup(receive, send)
    else:
        await answer(send, b"served")


async def test_lifespan_may_return_after_startup(serve: Serve) -> None:
    server = serve(leaves_early)
    assert (await server.get("/")).body == b"served"
    # The fixture sees to it that SIGTERM ends it well.


async def hangs_in_shutdown(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await startup(receive, send)
        await receive()
        say("hanging")
        await asyncio.Event().wait()


@unlike_uvicorn("it waits for ever")
async def test_shutdown_that_hangs_is_given_up_and_told_by_the_exit_code() -> None:
    with serve(hangs_in_shutdown, timeout_graceful_shutdown=1) as server:
        server.signal(signal.SIGTERM)
        assert await server.exit_code(within=2 * DEADLINE) == 3
        assert "application shutdown has not ended after 10 s" in server.log


@unlike_uvicorn("its second SIGTERM does not count")
async def test_second_signal_ends_a_shutdown_that_hangs() -> None:
    with serve(hangs_in_shutdown) as server:
        server.signal(signal.SIGTERM)
        await eventually(lambda: "hanging" in server.log and "stopping" in server.log)
        server.signal(signal.SIGTERM)
        assert await server.exit_code() != 0
        assert not server.processes()


def collects_garbage() -> None:
    while True:
        gc.collect()


async def is_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits for what nobody else refers to, while garbage is looked for."""
    threading.Thread(target=collects_garbage, daemon=True).start()
    say("starting")
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        say(f"ended by {type(error).__name__}")
        raise


@unlike_uvicorn("it waits for the start-up")
async def test_startup_is_cancelled_and_not_thrown_away() -> None:
    with launch(is_cancelled, lifespan="on") as server:
        await eventually(lambda: "starting" in server.log)
        server.signal(signal.SIGTERM)
        await server.exit_code()
        assert "ended by CancelledError" in server.log


async def uses_tasks(scope: Scope, receive: Receive, send: Send) -> None:
    """Start-up work in tasks, with time-outs and threads, as real applications have it."""
    if scope["type"] != "lifespan":
        await answer(send, scope["state"]["results"])
        return
    message: Message = await asyncio.wait_for(receive(), 60)
    assert message["type"] == "lifespan.startup"
    async with asyncio.TaskGroup() as group:
        thread = group.create_task(asyncio.to_thread(lambda: "thread"))
        sleep = group.create_task(asyncio.sleep(0.01, "sleep"))
    scope["state"]["results"] = [thread.result(), sleep.result()]
    background = asyncio.create_task(asyncio.Event().wait())
    await send({"type": "lifespan.startup.complete"})
    try:
        async with asyncio.timeout(60):
            await shutdown(receive, send)
    finally:
        background.cancel()
        say("background task cancelled")


async def test_startup_may_use_tasks_and_threads(serve: Serve) -> None:
    server = serve(uses_tasks, lifespan="on")
    assert (await server.get("/")).json() == ["thread", "sleep"]
    server.signal(signal.SIGTERM)
    await server.exit_code()
    assert "background task cancelled" in server.log
