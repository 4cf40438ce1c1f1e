"""Debuggers that know Python's children only, as debugpy, which VS Code starts, follow into Envoy."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from aiovoy.embedded.debugger import join
from aiovoy.launcher import debugger
from aiovoy.launcher.binary import envoy_binary
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.debug_adapter import Session
from py_tests.harness.folders import ROOT
from py_tests.harness.in_front import free_ports
from py_tests.harness.serving import AIOVOY, RECENT, Serve, Server, command, of_envoy, unlike_uvicorn

pytestmark = [unlike_uvicorn("this is about aiovoy"), of_envoy("it is Python, which they follow by themselves")]


def surroundings() -> list[Any]:
    """What the debugger could have left behind, after the process id."""
    return [os.getpid(), sys.path[0], [name for name in os.environ if name.startswith(("AIOVOY_DEB", "PYDEVD_DIS"))]]


async def on_the_loop(request: Request) -> JSONResponse:
    return JSONResponse(surroundings())


def in_a_thread(request: Request) -> JSONResponse:
    return JSONResponse(surroundings())


HANDLERS = [on_the_loop, in_a_thread]
BREAKPOINTS = {__file__: [handler.__code__.co_firstlineno + 1 for handler in HANDLERS]}

app = Starlette(routes=[Route(f"/{handler.__name__}", handler) for handler in HANDLERS])

MODULE = ["-m", "aiovoy"]
SCRIPT = [str(Path(sys.executable).with_name("aiovoy"))]


@contextlib.asynccontextmanager
async def debugged(
    folder: Path, *words: str, target: list[str] = MODULE, **options: Any
) -> AsyncIterator[tuple[Server, Session]]:
    """A server that starts under debugpy with `words`, and the session of its launcher."""
    [port] = free_ports(1)
    debugpy = [sys.executable, "-Xfrozen_modules=off", "-m", "debugpy", "--listen", str(port), "--wait-for-client"]
    _python, _module, _name, *arguments = command(f"{__name__}:app", **options)
    # The adapter accepts nobody else if somebody connects before it is ready, which this file tells.
    ready = folder / "endpoints"
    env = {"DEBUGPY_ADAPTER_ENDPOINTS": str(ready)}
    server = Server([*debugpy, *words, *target, *arguments], AIOVOY, ROOT, env)
    RECENT.append(server)
    try:
        await eventually(ready.exists, 3 * DEADLINE)
        async with Session.open(port) as launcher:
            await launcher.attach(BREAKPOINTS, connect={"host": "127.0.0.1", "port": port})
            yield server, launcher
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def followed(launcher: Session) -> AsyncIterator[tuple[int, Session]]:
    """The child that the debugger follows into: its process id, and the session of it."""
    child = await launcher.event("debugpyAttach")
    async with Session.open(child["connect"]["port"]) as session:
        await session.attach(BREAKPOINTS, **child)
        yield child["subProcessId"], session


async def stopped(session: Session) -> tuple[int, str]:
    """Waits until a breakpoint is hit: the thread, and the name of the function."""
    thread = (await session.event("stopped"))["threadId"]
    frames = (await session.ask("stackTrace", threadId=thread))["stackFrames"]
    return thread, frames[0]["name"]


@pytest.mark.parametrize("target", [MODULE, SCRIPT], ids=["module", "script"])
async def test_breakpoints_are_hit(target: list[str], tmp_path: Path) -> None:
    async with debugged(tmp_path, target=target) as (server, launcher):
        async with followed(launcher) as (pid, session):
            assert psutil.Process(pid).ppid() == server.pid
            assert psutil.Process(pid).exe() == os.path.realpath(envoy_binary())
            await eventually(server.started, 3 * DEADLINE)
            threads = set()
            for handler in HANDLERS:
                response = asyncio.create_task(server.get(f"/{handler.__name__}"))
                thread, function = await stopped(session)
                assert function == handler.__name__
                threads.add(thread)
                await session.ask("continue", threadId=thread)
                assert (await response).json() == [pid, str(ROOT), []]
            assert len(threads) == 2
            server.signal(signal.SIGTERM)
            await session.event("terminated")
        await launcher.event("terminated")
        assert not [message for message in launcher.unread if message.get("event") == "debugpyAttach"]
        assert await server.exit_code() == 0
    assert "debugger" not in server.log


async def test_who_stands_at_a_breakpoint_is_not_killed(tmp_path: Path) -> None:
    async with (
        debugged(tmp_path, timeout_worker_healthcheck=1) as (server, launcher),
        followed(launcher) as (pid, session),
    ):
        await eventually(server.started, 3 * DEADLINE)
        response = asyncio.create_task(server.get("/on_the_loop"))
        thread, _ = await stopped(session)
        await asyncio.sleep(6)  # so long others are left without connections, and this one killed
        await session.ask("continue", threadId=thread)
        assert (await response).json() == [pid, str(ROOT), []]
        assert "event loop" not in server.log


async def test_debugger_that_follows_nobody(tmp_path: Path) -> None:
    async with debugged(tmp_path, "--configure-subProcess", "false") as (server, launcher):
        await eventually(server.started, 3 * DEADLINE)
        for handler in HANDLERS:
            assert (await server.get(f"/{handler.__name__}")).status == 200
        server.signal(signal.SIGTERM)
        await launcher.event("terminated")
        assert not [message for message in launcher.unread if message.get("event") == "debugpyAttach"]


async def test_variable_of_another_server_is_not_inherited(serve: Serve) -> None:
    server = serve(f"{__name__}:app", env={"AIOVOY_DEBUGGER": "import os; os._exit(3)"})
    assert (await server.get("/on_the_loop")).status == 200


def test_debugger_that_cannot_be_joined_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOVOY_DEBUGGER", "import sys; sys.path.insert(0, '/gone'); 1 / 0")
    monkeypatch.setattr(sys, "path", ["/app"])
    log: list[tuple[str, str]] = []
    monkeypatch.setattr("aiovoy.embedded.debugger.log", lambda *line: log.append(line))
    join()
    assert log == [("warning", "the debugger does not follow into Envoy: ZeroDivisionError('division by zero')")]
    assert sys.path == ["/app", "/gone"]


def test_unknown_debugger_is_done_without(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "pydevd", SimpleNamespace(SetupHolder=SimpleNamespace(setup={"multiproc": True})))
    assert debugger.follows()
    assert debugger.code_to_join() is None
    assert "does not follow into Envoy: ModuleNotFoundError" in caplog.text
