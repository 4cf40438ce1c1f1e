"""Signals: which stop the server, which the application may have, and which do nothing."""

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, note, routes
from py_tests.harness.deadline import eventually
from py_tests.harness.serving import Serve, Server, of_envoy, serve, unlike_uvicorn

LOOPS = ["uvloop", "asyncio"]
APP = f"{__name__}:app"

got: list[Any] = []


def handler(number: int, frame: Any) -> None:
    got.append([number, threading.current_thread() is threading.main_thread()])


async def handle(scope: Scope, receive: Receive, send: Send) -> None:
    """Installs a handler, by either way."""
    number = int(scope["path"].split("/")[3])
    if scope["path"].split("/")[2] == "loop":
        asyncio.get_running_loop().add_signal_handler(number, handler, number, None)
    else:
        signal.signal(number, handler)
    await answer(send, os.getpid())


async def unhandle(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, asyncio.get_running_loop().remove_signal_handler(int(scope["path"].split("/")[2])))


async def seen(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, got)


async def alarm(scope: Scope, receive: Receive, send: Send) -> None:
    """A handler and the alarm that it is for."""
    rung = asyncio.Event()
    signal.signal(signal.SIGALRM, lambda *_: rung.set())
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not rung.is_set():
        # An event that is set by a signal's handler wakes nobody who sleeps in the loop.
        await asyncio.sleep(0.01)
    await answer(send, b"rung")


async def sleeps(scope: Scope, receive: Receive, send: Send) -> None:
    """Nothing else happens in the loop than the signal."""
    number = int(scope["path"].split("/")[2])
    rung = asyncio.get_running_loop().create_future()
    signal.signal(number, lambda *_: rung.set_result("rung") if not rung.done() else None)
    note(scope, "sleeps")
    await answer(send, await rung)


app = routes(handle, unhandle, seen, alarm, sleeps)


@pytest.fixture(params=LOOPS)
def server(request: pytest.FixtureRequest, serve: Serve) -> Server:
    return serve(APP, loop=request.param)


async def pid_of_envoy(server: Server) -> int:
    *_, envoy = server.processes()
    return envoy.pid


@pytest.mark.parametrize("way", ["signal", "loop"])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGALRM, signal.SIGRTMIN + 1])
async def test_application_handles_signals(server: Server, way: str, number: int) -> None:
    pid = (await server.get(f"/handle/{way}/{int(number)}")).json()
    os.kill(pid, number)

    async def is_handled() -> bool:
        return [number, True] in (await server.get("/seen")).json()

    await eventually(is_handled)
    if way == "loop":
        assert (await server.get(f"/unhandle/{int(number)}")).json() is True


async def test_alarm_rings(server: Server) -> None:
    assert (await server.get("/alarm")).body == b"rung"


async def test_handler_runs_at_once_though_the_loop_sleeps(server: Server, key: str) -> None:
    sleeping = asyncio.create_task(server.get(f"/sleeps/{int(signal.SIGUSR2)}?{key}"))
    await server.noted(key, "sleeps")
    os.kill(await pid_of_envoy(server), signal.SIGUSR2)
    assert (await sleeping).json() == "rung"


@unlike_uvicorn("these end it")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
async def test_signals_without_a_handler_do_nothing(server: Server, number: int) -> None:
    pid = await pid_of_envoy(server)
    os.kill(pid, number)
    # Nothing tells that it was ignored, but signals are taken in their order.
    await test_application_handles_signals(server, "signal", signal.SIGRTMIN + 1)
    # Nor does it end the server when the application has had a handler and taken it back.
    assert (await server.get(f"/handle/loop/{int(number)}")).status == 200
    assert (await server.get(f"/unhandle/{int(number)}")).json() is True
    os.kill(pid, number)
    await test_application_handles_signals(server, "signal", signal.SIGRTMIN + 2)


IMPORTED = """
import signal
got = []
for number in [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGALRM]:
    signal.signal(number, lambda number, frame: got.append(number))

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": repr([int(number) for number in got]).encode()})
"""


@unlike_uvicorn("its process has no child")
@pytest.mark.parametrize("loop", LOOPS)
async def test_handlers_set_at_import_are_called(tmp_path: Path, loop: str) -> None:
    """Envoy, which begins to run after the import, takes some of these signals itself."""
    (tmp_path / "main.py").write_text(IMPORTED)
    with serve("main:app", app_dir=tmp_path, lifespan="off", loop=loop) as server:
        pid = await pid_of_envoy(server)
        for number in [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGALRM]:

            async def is_handled(number: int = number) -> bool:
                os.kill(pid, number)
                return int(number) in (await server.get("/")).json()

            await eventually(is_handled)


LOOP_AT_IMPORT = """
import asyncio, signal
loop = asyncio.new_event_loop()
loop.add_signal_handler(signal.SIGUSR2, print)
loop.run_until_complete(asyncio.sleep(0))
loop.close()

async def app(scope, receive, send):
    heard = asyncio.get_running_loop().create_future()
    signal.signal(signal.SIGUSR1, lambda *_: heard.done() or heard.set_result(None))
    print("waits", flush=True)
    await heard
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"""


@unlike_uvicorn("its process has no child")
@pytest.mark.parametrize("loop", LOOPS)
async def test_loop_at_import_leaves_signals_as_they_were(tmp_path: Path, loop: str) -> None:
    (tmp_path / "main.py").write_text(LOOP_AT_IMPORT)
    with serve("main:app", app_dir=tmp_path, lifespan="off", loop=loop) as server:
        pid = await pid_of_envoy(server)
        os.kill(pid, signal.SIGUSR2)
        waiting = asyncio.create_task(server.get("/"))
        await eventually(lambda: "waits" in server.output)
        os.kill(pid, signal.SIGUSR1)
        assert (await waiting).status == 200


@unlike_uvicorn("it has handlers of its own that go")
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("signal", marks=of_envoy("in an ordinary process the application's handler goes before")),
        "loop",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_that_stop_the_server_go_on_doing_so(serve: Serve, way: str, number: signal.Signals) -> None:
    server = serve(APP)
    assert (await server.get(f"/handle/{way}/{int(number)}")).status == 200
    assert f"no handler installed for {number.name}" in server.log
    os.kill(await pid_of_envoy(server), number)
    assert await server.exit_code() == 0
