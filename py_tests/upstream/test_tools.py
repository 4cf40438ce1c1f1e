"""Tools that know ordinary processes of Python's know `aiovoy upstream`: debuggers, profilers, tracers, `fork`."""

import inspect
import os
import pstats
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, routes
from py_tests.harness.deadline import eventually
from py_tests.harness.folders import ROOT
from py_tests.harness.protocols import HTTP1, Connect
from py_tests.harness.serving import AIOVOY, Server, unlike_uvicorn

pytestmark = [unlike_uvicorn("this is about aiovoy"), pytest.mark.protocols(HTTP1)]


async def traced(scope: Scope, receive: Receive, send: Send) -> None:
    greeting = f"hello, {scope['path']}"
    await answer(send, greeting)


async def forks(scope: Scope, receive: Receive, send: Send) -> None:
    child = os.fork()
    if child == 0:
        os._exit(7)
    _, status = os.waitpid(child, 0)
    await answer(send, os.waitstatus_to_exitcode(status))


app = routes(traced, forks)

Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[Server] = []

    def start(*tool: str) -> Server:
        command = [sys.executable, *tool, "-m", "aiovoy", "upstream", f"{__name__}:app"]
        server = Server([*command, "--app-dir", str(ROOT), "--port", "0"], AIOVOY, ROOT, {})
        servers.append(server)
        server.wait_until_started()
        return server

    yield start
    for server in servers:
        server.stop()


def line_of(function: Callable[..., object], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


DEBUGGER = """
import bdb, runpy, sys

class Debugger(bdb.Bdb):
    def user_line(self, frame):
        if self.break_here(frame):
            print("stopped with", frame.f_locals["greeting"], flush=True)
        self.set_continue()

file, line, _, module, *sys.argv[1:] = sys.argv[1:]
debugger = Debugger()
debugger.set_break(file, int(line))
debugger.runcall(runpy.run_module, module, run_name="__main__", alter_sys=True)
"""
"""What pdb is made of, without somebody at its keys."""


async def test_breakpoint_is_hit(start: Start, connect: Connect, tmp_path: Path) -> None:
    debugger = tmp_path / "debugger.py"
    debugger.write_text(DEBUGGER)
    server = start(str(debugger), __file__, str(line_of(traced, "await answer")))
    assert (await (await connect(server)).get("/traced")).json() == "hello, /traced"
    await eventually(lambda: "stopped with hello, /traced" in server.output)


async def test_profiler_sees_the_application(start: Start, connect: Connect, tmp_path: Path) -> None:
    file = tmp_path / "profile"
    server = start("-m", "cProfile", "-o", str(file))
    for _ in range(3):
        assert (await (await connect(server)).get("/traced")).status == 200
    server.signal(signal.SIGTERM)
    await server.exit_code()
    calls = {name: count for (_, _, name), (count, *_) in pstats.Stats(str(file)).stats.items()}  # type: ignore[attr-defined]
    assert calls["traced"] == 3


async def test_lines_are_counted(start: Start, connect: Connect, tmp_path: Path) -> None:
    """As coverage does it: by `sys.settrace`."""
    server = start("-m", "trace", "--count", "--missing", "-C", str(tmp_path), "--module")
    assert (await (await connect(server)).get("/traced")).status == 200
    server.signal(signal.SIGTERM)
    await server.exit_code()
    counted = (tmp_path / f"{__name__}.cover").read_text().splitlines()
    assert any(line.strip().startswith("1:") and "greeting = " in line for line in counted)
    assert any(line.startswith(">>>>>>") and "os.fork()" in line for line in counted)


async def test_application_may_fork(start: Start, connect: Connect) -> None:
    server = start()
    connection = await connect(server)
    assert (await connection.get("/forks")).body == b"7"
    assert (await connection.get("/traced")).status == 200
