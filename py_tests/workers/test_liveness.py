"""Workers whose event loop does not turn: others get their connections, and one that never turns is replaced."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.serving import Serve, Server, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy's supervisor")

SUSPECTED = "it gets no connections until it does"
WELL = "is well again"

# In seconds, for workers that are to be left alone: longer than any test takes.
FOR_EVER = 600


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/block":
        block_the_loop(Path(dict(scope["headers"])[b"x-gate"].decode()))
    await answer(send, b"%d" % os.getpid())


def block_the_loop(gate: Path) -> None:
    while not gate.exists():
        time.sleep(0.01)


async def ask(server: Server) -> int:
    """The process that has answered a new connection."""
    return int((await asyncio.wait_for(server.get("/"), DEADLINE)).body)


@contextlib.asynccontextmanager
async def blocked(server: Server, gate: Path) -> AsyncIterator[tuple[int, Any]]:
    """A worker amid a request that blocks it, and the exchange. It is not blocked any more afterwards."""
    async with await Http1Connection.open(server.port) as connection:
        pid = int((await connection.get("/")).body)
        exchange = await connection.start("GET", "/block", headers=[(b"x-gate", str(gate).encode())])
        try:
            yield pid, exchange
        finally:
            gate.touch()


def workers(server: Server) -> set[int]:
    return {child.pid for child in psutil.Process(server.pid).children()}


async def test_blocked_worker_gets_no_connections_until_it_turns(serve: Serve, tmp_path: Path) -> None:
    server = serve(app, workers=2, lifespan="off", timeout_worker_healthcheck=FOR_EVER)
    pids = workers(server)
    async with blocked(server, tmp_path / "gate") as (pid, exchange):
        await eventually(lambda: SUSPECTED in server.log)
        assert f"(pid {pid}) has an event loop that does not turn" in server.log
        (other,) = pids - {pid}
        assert {await ask(server) for _ in range(50)} == {other}
        await eventually(lambda: "requests: GET /block" in server.log)
        assert "in block_the_loop" in server.log
        (tmp_path / "gate").touch()
        assert int((await exchange.response()).body) == pid

        async def is_asked_again() -> bool:
            return await ask(server) == pid

        await eventually(is_asked_again)
    assert WELL in server.log
    assert workers(server) == pids


async def test_blocked_worker_leaves_connections_of_a_shared_socket_to_others(serve: Serve, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        options: dict[str, Any] = {"fd": fd, "pass_fds": [fd], "port": None}
        server = serve(app, workers=2, lifespan="off", timeout_worker_healthcheck=FOR_EVER, **options)
    pids = workers(server)
    async with blocked(server, tmp_path / "gate") as (pid, exchange):
        (other,) = pids - {pid}
        waiting: list[asyncio.Task[int]] = []

        async def is_left_alone() -> bool:
            """A hundred in a row are the other's. What the blocked one has accepted before waits."""
            for _ in range(100):
                asked = asyncio.create_task(ask(server))
                _, pending = await asyncio.wait([asked], timeout=1)
                waiting.extend(pending)
                if pending or asked.result() != other:
                    return False
            return True

        await eventually(lambda: SUSPECTED in server.log)
        await eventually(is_left_alone)
        # Who was only slow has been answered by now.
        assert {asked.result() for asked in waiting if asked.done()} <= {other}
        accepted = [asked for asked in waiting if not asked.done()]
        (tmp_path / "gate").touch()
        assert int((await exchange.response()).body) == pid
        assert set(await asyncio.gather(*accepted)) <= {pid}

        async def is_asked_again() -> bool:
            return pid in await asyncio.gather(*(ask(server) for _ in range(30)))

        await eventually(is_asked_again)
    assert workers(server) == pids


async def test_the_only_worker_is_waited_for(serve: Serve, tmp_path: Path) -> None:
    server = serve(app, workers=1, lifespan="off", timeout_worker_healthcheck=FOR_EVER)
    async with blocked(server, tmp_path / "gate") as (pid, exchange):
        await eventually(lambda: SUSPECTED in server.log)
        waiting = asyncio.create_task(ask(server))
        (tmp_path / "gate").touch()
        assert int((await exchange.response()).body) == pid
        assert await waiting == pid
    assert workers(server) == {pid}


async def test_worker_that_never_turns_is_replaced(serve: Serve, tmp_path: Path) -> None:
    server = serve(app, workers=2, lifespan="off", timeout_worker_healthcheck=7)
    pids = workers(server)
    async with blocked(server, tmp_path / "never") as (pid, _):
        await eventually(lambda: f"(pid {pid}) was killed by signal 9" in server.log, within=2 * DEADLINE)
        # CPython's own dump, for which nothing has to turn.
        assert "(most recent call first):" in server.log
        assert 'test_liveness.py", line' in server.log.partition("(most recent call first)")[2]
        await eventually(lambda: pid not in workers(server) and len(workers(server)) == 2)
        (successor,) = workers(server) - pids

        async def is_asked() -> bool:
            return await ask(server) == successor

        await eventually(is_asked)


async def test_blocked_worker_is_left_alone_if_told_to(serve: Serve, tmp_path: Path) -> None:
    server = serve(app, workers=1, lifespan="off", timeout_worker_healthcheck=0)
    async with blocked(server, tmp_path / "gate") as (pid, exchange):
        await eventually(lambda: SUSPECTED in server.log)
        (tmp_path / "gate").touch()
        assert int((await exchange.response()).body) == pid
    assert workers(server) == {pid}


async def test_worker_that_is_stopped_does_not_respond(serve: Serve) -> None:
    server = serve(app, workers=2, lifespan="off", timeout_worker_healthcheck=FOR_EVER)
    stopped, other = workers(server)
    os.kill(stopped, signal.SIGSTOP)
    try:
        await eventually(lambda: f"(pid {stopped}) does not respond" in server.log)
        assert {await ask(server) for _ in range(20)} == {other}
    finally:
        os.kill(stopped, signal.SIGCONT)
    await eventually(lambda: WELL in server.log)
    assert workers(server) == {stopped, other}
