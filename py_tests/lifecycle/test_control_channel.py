"""What the launcher says to the bridge, and hears from it. Here the test plays the launcher of a plain Envoy."""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiovoy.embedded import stacks
from py_tests.harness.apps import Receive, Scope, Send, answer, file_exists, gate, note, routes
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.folders import ROOT
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.plain_envoy import PlainEnvoy, environment, envoy, listens
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is between aiovoy's two parts")

APP = f"{__name__}:app"

FOR_EVER = 60
"""Seconds: longer than any test waits."""

NO_LOOPS = {"event": "pong", "loops": [], "requests": 0, "in_flight": 0}


class Launcher:
    """The launcher's side of the channel."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._channel: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()

    async def __aenter__(self) -> "Launcher":
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._channel.set_result((reader, writer))

        self._server = await asyncio.start_unix_server(connected, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self._channel.done():
            await self.leave()

    async def say(self, words: str) -> None:
        async with asyncio.timeout(DEADLINE):
            _, writer = await self._channel
            writer.write(f"{words}\n".encode())
            await writer.drain()

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            reader, _ = await self._channel
            event: dict[str, Any] = json.loads(await reader.readline())
            return event

    async def ping(self) -> dict[str, Any]:
        await self.say("ping")
        return await self.hear()

    async def ready(self) -> None:
        """Lets Envoy listen, and waits until it does."""
        assert await self.hear() == {"event": "started"}
        await self.say("listen")
        assert (await self.hear())["event"] == "ready"

    async def leave(self) -> None:
        _, writer = self._channel.result()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def launched(
    folder: Path,
    app: str = APP,
    app_dir: Path = ROOT,
    workers: int = 1,
    timeout_graceful_shutdown: int = 30,
    leftovers: "Leftovers | None" = None,
) -> AsyncIterator[tuple[Launcher, PlainEnvoy]]:
    """A launcher, and the Envoy that it has started."""
    env = environment()
    if leftovers is not None:
        env |= leftovers.environment
    changes = {
        "app: hello:app": f"app: {app}",
        "app_dir: examples": f"app_dir: {app_dir}",
        "# timeout_graceful_shutdown: 30": f"timeout_graceful_shutdown: {timeout_graceful_shutdown}",
    }
    async with Launcher(folder / "control.sock") as launcher:
        env["AIOVOY_CONTROL"] = str(launcher.path)
        with envoy(folder, changes, env, workers, pass_fds=leftovers.locks if leftovers else ()) as server:
            yield launcher, server


class Leftovers:
    """What the launcher of a server is to remove at its end: a folder on which it has a lock, and a socket file."""

    def __init__(self, top: Path) -> None:
        self.folder, self.socket = top / "aiovoy-private", top / "server.sock"
        (self.folder / "inner").mkdir(parents=True)
        (self.folder / "inner" / "file").touch()
        listen_once(self.socket)
        self.lock = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_SH)
        self.locks = [self.lock]
        paths = os.pathsep.join([str(self.folder), str(self.socket)])
        self.environment = {"AIOVOY_REMOVE": paths, "AIOVOY_LOCK": str(self.lock)}

    def left(self) -> list[Path]:
        return [path for path in (self.folder / "inner" / "file", self.folder, self.socket) if path.exists()]

    def lose_launcher(self) -> None:
        """The launcher does not hold the lock any more."""
        for lock in self.locks:
            os.close(lock)
        self.locks = []


def listen_once(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.fixture
def leftovers(tmp_path: Path) -> Iterator[Leftovers]:
    leftovers = Leftovers(tmp_path)
    yield leftovers
    leftovers.lose_launcher()


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "in flight")
    await file_exists(gate(scope))
    await answer(send, b"answered")


async def blocks(scope: Scope, receive: Receive, send: Send) -> None:
    """Blocks the loop until the gate opens."""
    print("blocked", flush=True)
    while not Path(gate(scope)).exists():
        time.sleep(0.01)
    await answer(send, b"answered")


async def computes(scope: Scope, receive: Receive, send: Send) -> None:
    """Blocks it by Python code that does not call anything for long."""
    print("blocked", flush=True)
    turns = 0
    while turns % 1_000_000 or not Path(gate(scope)).exists():
        turns += 1
    await answer(send, b"answered")


async def holds_the_gil(scope: Scope, receive: Receive, send: Send) -> None:
    """Blocks it, and all of Python, until somebody writes to the FIFO."""
    path = os.fsencode(gate(scope))
    print("blocked", flush=True)
    os.close(ctypes.PyDLL(None).open(path, os.O_RDONLY))
    await answer(send, b"answered")


async def loses_stderr(scope: Scope, receive: Receive, send: Send) -> None:
    sys.stderr = None
    await answer(send)


async def variables(scope: Scope, receive: Receive, send: Send) -> None:
    """Those of the server that the application finds, or a program that it starts."""
    program = subprocess.run(["env"], stdout=subprocess.PIPE, text=True, check=True)
    names = [*os.environ, *(line.split("=")[0] for line in program.stdout.splitlines())]
    await answer(send, [name for name in names if name.startswith("AIOVOY_")])


http = routes(plain, gated, blocks, computes, holds_the_gil, loses_stderr, variables)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await http(scope, receive, send)
        return
    await receive()
    print("lifespan.startup", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan.shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def start_gated(server: PlainEnvoy, path: str, file: Path) -> tuple[Http1Connection, Any]:
    connection = await Http1Connection.open(server.port)
    return connection, await connection.start("GET", path, headers=[(b"x-gate", str(file).encode())])


async def test_listeners_open_when_the_launcher_says_so(tmp_path: Path) -> None:
    async with launched(tmp_path) as (launcher, server):
        assert await launcher.hear() == {"event": "started"}
        assert server.output == "lifespan.startup\n"
        # Had it not waited, these would find it listening.
        for _ in range(20):
            assert (await launcher.ping())["loops"] is not None
            assert not listens(server.port)
        await launcher.say("listen")
        ready = await launcher.hear()
        assert (ready["event"], ready["workers"], ready["loop"]) == ("ready", 1, "uvloop")
        assert (await server.get("/plain")).body == b"plain"


async def test_the_word_to_listen_may_come_before_it_is_waited_for(tmp_path: Path) -> None:
    async with launched(tmp_path) as (launcher, server):
        await launcher.say("listen")
        assert [(await launcher.hear())["event"] for _ in range(2)] == ["started", "ready"]
        assert (await server.get("/plain")).body == b"plain"


@pytest.mark.parametrize("way", ["shutdown", "retire 60", "launcher's end", "signal"])
async def test_stop_while_the_launcher_is_waited_for(tmp_path: Path, way: str) -> None:
    async with launched(tmp_path) as (launcher, server):
        assert await launcher.hear() == {"event": "started"}
        if way == "launcher's end":
            await launcher.leave()
        elif way == "signal":
            # Until its main loop runs, Envoy has no handler.
            await eventually(lambda: is_caught(server.pid, signal.SIGTERM))
            server.signal(signal.SIGTERM)
        else:
            await launcher.say(way)
        assert await server.exit_code() == 0
        assert server.output == "lifespan.startup\nlifespan.shutdown\n"


async def test_end_of_the_launcher_ends_a_server(tmp_path: Path, key: str) -> None:
    async with launched(tmp_path) as (launcher, server):
        await launcher.ready()
        connection, exchange = await start_gated(server, f"/gated?{key}", tmp_path / "gate")
        async with connection:
            await server.noted(key, "in flight")
            await launcher.leave()
            await eventually(lambda: not listens(server.port))
            (tmp_path / "gate").touch()
            assert (await exchange.response()).body == b"answered"
        assert await server.exit_code() == 0
        assert server.output.endswith("lifespan.shutdown\n")


SLOW_IMPORT = """
import pathlib, time

while not pathlib.Path(__file__).with_name("gate").exists():
    time.sleep(0.01)

async def app(scope, receive, send):
    assert scope["type"] == "http"
"""


async def test_ping_is_answered_while_the_application_is_imported(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_IMPORT)
    async with launched(tmp_path, "slow:app", tmp_path) as (launcher, _):
        for _ in range(3):
            assert await launcher.ping() == NO_LOOPS
        (tmp_path / "gate").touch()
        await launcher.ready()
        assert (await launcher.ping())["loops"] == [0]


async def test_ping_counts_requests_and_what_is_in_flight(tmp_path: Path, key: str) -> None:
    async with launched(tmp_path, workers=2) as (launcher, server):
        await launcher.ready()
        assert await launcher.ping() == {"event": "pong", "loops": [0, 0], "requests": 0, "in_flight": 0}
        connection, exchange = await start_gated(server, f"/gated?{key}", tmp_path / "gate")
        async with connection:
            await eventually(lambda: launcher_in_flight(launcher, 2))
            assert (await launcher.ping())["requests"] == 1
            (tmp_path / "gate").touch()
            await exchange.response()
            await eventually(lambda: launcher_in_flight(launcher, 0))
        await server.get("/plain")
        assert (await launcher.ping())["requests"] == 2


async def launcher_in_flight(launcher: Launcher, count: int) -> bool:
    return bool((await launcher.ping())["in_flight"] == count)


async def test_ping_tells_a_loop_that_does_not_turn(tmp_path: Path) -> None:
    async with launched(tmp_path) as (launcher, server):
        await launcher.ready()
        connection, exchange = await start_gated(server, "/blocks", tmp_path / "gate")
        async with connection:
            await eventually(lambda: "blocked" in server.output)
            ages: list[int] = []

            async def blocks_for_long() -> bool:
                ages.extend((await launcher.ping())["loops"])
                return ages[-1] > 500

            await eventually(blocks_for_long)
            # The first question is the one that counts: they only grow.
            assert ages == sorted(ages)
            (tmp_path / "gate").touch()
            assert (await exchange.response()).body == b"answered"

            async def turns() -> bool:
                return bool((await launcher.ping())["loops"] == [0])

            await eventually(turns)


async def test_ping_is_answered_in_a_drain(tmp_path: Path, key: str) -> None:
    async with launched(tmp_path) as (launcher, server):
        await launcher.ready()
        connection, exchange = await start_gated(server, f"/gated?{key}", tmp_path / "gate")
        async with connection:
            await server.noted(key, "in flight")
            await launcher.say("shutdown")
            await eventually(lambda: not listens(server.port))
            pong = await launcher.ping()
            assert (pong["loops"], pong["in_flight"]) == ([0], 2)
            (tmp_path / "gate").touch()
            assert (await exchange.response()).body == b"answered"
        assert await server.exit_code() == 0


async def test_idle_connection_is_closed_by_its_next_answer_in_a_retirement(tmp_path: Path) -> None:
    async with launched(tmp_path) as (launcher, server):
        await launcher.ready()
        async with await Http1Connection.open(server.port) as connection:
            assert (await connection.get("/plain")).header(b"connection") is None
            await launcher.say(f"retire {FOR_EVER}")
            await eventually(lambda: not listens(server.port))
            # Several times as long as a shutdown would leave it open.
            await asyncio.sleep(0.5)
            response = await connection.get("/plain")
            assert (response.body, response.header(b"connection")) == (b"plain", b"close")
            assert await server.exit_code() == 0
        assert server.output.endswith("lifespan.shutdown\n")
        assert "[error]" not in server.log


@pytest.mark.parametrize("end", ["its seconds", "the time limit", "a shutdown", "a signal"])
async def test_end_of_a_retirement_with_an_idle_connection(tmp_path: Path, end: str) -> None:
    seconds = 0.3 if end == "its seconds" else FOR_EVER
    limit = 1 if end == "the time limit" else FOR_EVER
    async with launched(tmp_path, timeout_graceful_shutdown=limit) as (launcher, server):
        await launcher.ready()
        async with await Http1Connection.open(server.port) as connection:
            await connection.get("/plain")
            await launcher.say(f"retire {seconds}")
            await eventually(lambda: not listens(server.port))
            if end == "a shutdown":
                await launcher.say("shutdown")
            elif end == "a signal":
                server.signal(signal.SIGTERM)
            assert await server.exit_code() == 0
            assert not await connection.more()
        assert server.output.endswith("lifespan.shutdown\n")
        assert "[error]" not in server.log


async def is_blocked(launcher: Launcher, server: PlainEnvoy) -> None:
    """Waits until the loop owes an answer, and not only because it is slow."""
    await eventually(lambda: "blocked" in server.output)

    async def owes() -> bool:
        return bool((await launcher.ping())["loops"] != [0])

    await eventually(owes)


@pytest.mark.parametrize("path", ["/blocks", "/computes"])
async def test_explanation_of_a_loop_that_does_not_turn(tmp_path: Path, path: str) -> None:
    async with launched(tmp_path) as (launcher, server):
        await launcher.ready()
        connection, exchange = await start_gated(server, f"{path}?secret", tmp_path / "gate")
        async with connection:
            await is_blocked(launcher, server)
            other, waiting = await start_gated(server, "/plain", tmp_path / "gate")
            async with other:
                await eventually(lambda: launcher_in_flight(launcher, 4))
                await launcher.say("explain")
                await launcher.ping()
                await eventually(lambda: "Traceback" in server.log)
                (tmp_path / "gate").touch()
                assert (await exchange.response()).body == b"answered"
                assert (await waiting.response()).body == b"plain"
        assert server.log.count("an event loop has been blocked") == 1
        assert re.search(r"\[warning\].* an event loop has been blocked for \d+\.\d s\n", server.log)
        assert re.search(
            rf"\nrequests: GET {path} \(\d+ s\), GET /plain \(\d+ s\)\nTraceback of its thread", server.log
        )
        frame = (
            rf'\n  File "{re.escape(__file__)}", line \d+, in {path.removeprefix("/")}\n    (while |turns|time.sleep)'
        )
        assert re.search(frame, server.log)
        assert "secret" not in server.log
        assert (await server.get("/plain")).body == b"plain"


async def test_explanation_of_a_loop_that_turns_says_nothing(tmp_path: Path) -> None:
    async with launched(tmp_path) as (launcher, server):
        await launcher.say("explain")
        await launcher.ready()
        await launcher.say("explain")
        assert (await launcher.ping())["loops"] == [0]
        await launcher.say("shutdown")
        assert await server.exit_code() == 0
        assert "event loop" not in server.log


async def test_explanation_of_code_that_holds_the_gil(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    async with launched(tmp_path) as (launcher, server):
        await launcher.ready()
        connection, exchange = await start_gated(server, "/holds_the_gil", tmp_path / "gate")
        async with connection:
            await is_blocked(launcher, server)
            # A second one waits for the GIL no more than the first.
            for count in (1, 2):
                await launcher.say("explain")
                await launcher.ping()
                await logged(server, "the GIL is not to be had", count)
                assert server.log.count(" in holds_the_gil\n") == count
            os.close(os.open(tmp_path / "gate", os.O_WRONLY))
            assert (await exchange.response()).body == b"answered"
        assert re.search(r"\nrequests: GET /holds_the_gil \(\d+ s\)\nthe GIL is not to be had: standard", server.log)
        assert (await server.get("/plain")).body == b"plain"
        await launcher.say("shutdown")
        assert await server.exit_code() == 0


async def test_tracebacks_of_all_threads_at_the_launchers_signal(tmp_path: Path) -> None:
    async with launched(tmp_path, workers=2) as (launcher, server):
        await launcher.ready()
        await server.get("/loses_stderr")
        os.kill(server.pid, stacks.SIGNAL)
        # As CPython writes them: one of each loop.
        await logged(server, "(most recent call first):\n", 2)
        await eventually(lambda: len(re.findall(r'event_loop\.py", line \d+ in run\n', server.log)) == 2)
        assert (await server.get("/plain")).body == b"plain"


async def logged(server: PlainEnvoy, text: str, count: int) -> None:
    """Waits until the log has `text` so often."""
    await eventually(lambda: server.log.count(text) == count)


async def test_signal_for_tracebacks_is_between_bridge_and_launcher(tmp_path: Path) -> None:
    with envoy(tmp_path) as server:
        await server.accepts()
        assert not is_caught(server.pid, stacks.SIGNAL)
    async with launched(tmp_path) as (launcher, server):
        await launcher.ready()
        assert is_caught(server.pid, stacks.SIGNAL)


def is_caught(pid: int, number: int) -> bool:
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> (number - 1) & 1)


async def test_last_process_removes_what_a_dead_launcher_has_left(
    tmp_path: Path, key: str, leftovers: Leftovers
) -> None:
    one, two = (tmp_path / name for name in ("one", "two"))
    one.mkdir()
    two.mkdir()
    async with (
        launched(one, leftovers=leftovers) as (first_launcher, first),
        launched(two, leftovers=leftovers) as (second_launcher, second),
    ):
        await first_launcher.ready()
        await second_launcher.ready()
        assert (await first.get("/variables")).json() == []
        connection, exchange = await start_gated(second, f"/gated?{key}", tmp_path / "gate")
        async with connection:
            await second.noted(key, "in flight")
            leftovers.lose_launcher()
            await first_launcher.leave()
            await second_launcher.leave()
            assert await first.exit_code() == 0
            assert len(leftovers.left()) == 3
            (tmp_path / "gate").touch()
            assert (await exchange.response()).body == b"answered"
        assert await second.exit_code() == 0
        assert not leftovers.left()


async def test_living_launcher_removes_its_things_itself(tmp_path: Path, leftovers: Leftovers) -> None:
    async with launched(tmp_path, leftovers=leftovers) as (launcher, server):
        await launcher.ready()
        await launcher.say("shutdown")
        assert await server.exit_code() == 0
        assert len(leftovers.left()) == 3


@pytest.mark.parametrize("end", ["launcher's end", "abort"])
async def test_server_that_ends_early_leaves_nothing(tmp_path: Path, leftovers: Leftovers, end: str) -> None:
    (tmp_path / "slow.py").write_text(SLOW_IMPORT)
    async with launched(tmp_path, "slow:app", tmp_path, leftovers=leftovers) as (launcher, server):
        assert await launcher.ping() == NO_LOOPS
        leftovers.lose_launcher()
        if end == "abort":
            await launcher.say("abort")
        else:
            await launcher.leave()
        assert await server.exit_code() == (1 if end == "abort" else 0)
        assert not leftovers.left()


async def test_server_that_fails_leaves_nothing(tmp_path: Path, leftovers: Leftovers) -> None:
    async with launched(tmp_path, f"{__name__}:fails_to_start", leftovers=leftovers) as (launcher, server):
        leftovers.lose_launcher()
        assert (await launcher.hear())["event"] == "failed"
        assert await server.exit_code() == 3
        assert not leftovers.left()


async def fails_to_start(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed"})


async def test_socket_of_another_server_stays(tmp_path: Path, leftovers: Leftovers) -> None:
    async with launched(tmp_path, leftovers=leftovers) as (launcher, server):
        await launcher.ready()
        leftovers.socket.unlink()
        listen_once(leftovers.socket)
        leftovers.lose_launcher()
        await launcher.leave()
        assert await server.exit_code() == 0
        assert leftovers.left() == [leftovers.socket]
