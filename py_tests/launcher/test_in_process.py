"""The pytest fixtures with an application object: a server in a thread of the test's own process."""

import asyncio
import contextvars
import dataclasses
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import aiovoy
from aiovoy.launcher.listening import Listening
from aiovoy.pytest_plugin import StartServer
from aiovoy.upstream.settings import Settings
from aiovoy.upstream.thread import ELSEWHERE, ThreadServer
from py_tests.harness.apps import App, Receive, Scope, Send, answer
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")


class Told:
    """An application that tells what it is set to, and notes its lifespan."""

    def __init__(self) -> None:
        self.answer: Callable[[], Any] = lambda: "unset"
        self.lifespan: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await answer(send, self.answer())
            return
        for _ in range(2):
            message = await receive()
            self.lifespan.append(message["type"])
            await send({"type": f"{message['type']}.complete"})


def get(url: str) -> Any:
    return httpx.get(url, timeout=DEADLINE).json()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_application_is_the_test_s_own(aiovoy_server: StartServer, loop: str) -> None:
    app = Told()
    server = aiovoy_server(app, loop=loop)
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert server.pid == os.getpid()
    assert get(server.url) == "unset"
    app.answer = lambda: [
        type(asyncio.get_running_loop()).__module__.partition(".")[0],
        threading.current_thread() is threading.main_thread(),
        variable.get("none"),
    ]
    variable = contextvars.ContextVar[str]("variable")
    variable.set("of the test")
    assert get(server.url) == [loop, False, "none"]
    assert app.lifespan == ["lifespan.startup"]
    assert server.stop() == 0
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


async def test_asynchronous_test_has_its_own_loop(aiovoy_server: StartServer) -> None:
    app = Told()
    server = aiovoy_server(app)
    loop = asyncio.get_running_loop()
    app.answer = lambda: asyncio.get_running_loop() is loop
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client:
        assert (await client.get("/")).json() is False


def state() -> list[Any]:
    """What of the process a server in it is to leave alone."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    paths, environ = [sys.path[:], sys.argv[:]], dict(os.environ)
    loop = asyncio.new_event_loop()
    loop.close()
    return [handlers, blocked, signal.signal, paths, environ, type(loop), aiovoy.inside_server]


def test_process_stays_as_it_is(aiovoy_server: StartServer) -> None:
    before = state()
    server = aiovoy_server(Told())
    assert get(server.url) == "unset"
    assert state() == before
    server.stop()
    assert state() == before


def test_two_at_a_time(aiovoy_server: StartServer) -> None:
    apps = [Told(), Told()]
    servers = [aiovoy_server(app, loop=loop) for app, loop in zip(apps, ["uvloop", "asyncio"], strict=True)]
    for number, app in enumerate(apps):
        app.answer = partial(int, number)
    assert [get(server.url) for server in servers] == [0, 1]
    servers[0].stop()
    with pytest.raises(httpx.ConnectError):
        get(servers[0].url)
    assert get(servers[1].url) == 1


async def test_many_leave_nothing_behind() -> None:
    """Though they themselves are kept, as fixtures keep them."""
    kept = []

    def serve_one() -> "weakref.ref[Told]":
        app = Told()
        server = ThreadServer(app, port=0)
        kept.append(server)
        server.ready.result()
        assert get(server.url) == "unset"
        server.stop()
        return weakref.ref(app)

    def left() -> list[int]:
        gc.collect()
        return [len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), threading.active_count()]

    for _ in range(3):  # tokio's threads stay
        serve_one()
    before = left()
    apps = [serve_one() for _ in range(30)]
    # A thread that has been joined may be the kernel's for a moment still.
    await eventually(lambda: all(now <= then for now, then in zip(left(), before, strict=True)))
    assert sum(app() is not None for app in apps) == 0
    assert {server.stop() for server in kept} == {0}


def test_stop_from_several_threads(aiovoy_server: StartServer, other_thread: ThreadPoolExecutor) -> None:
    server = aiovoy_server(Told())
    assert set(other_thread.map(lambda _: server.stop(), range(8))) == {0}


class Gated:
    """A request is answered once the gate is open."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.ended: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.ended.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.begun.set()
        try:
            while not self.gate.is_set():
                await asyncio.sleep(0.01)
            await answer(send, "finished")
        finally:
            self.ended.append("request")


@pytest.fixture
def other_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def test_request_in_flight_finishes_when_it_is_stopped(
    aiovoy_server: StartServer, other_thread: ThreadPoolExecutor
) -> None:
    app = Gated()
    server = aiovoy_server(app)
    response = other_thread.submit(get, server.url)
    assert app.begun.wait(DEADLINE)
    stopped = other_thread.submit(server.stop)
    with pytest.raises(TimeoutError):
        stopped.result(0.2)
    app.gate.set()
    assert response.result(DEADLINE) == "finished"
    assert stopped.result(DEADLINE) == 0
    assert app.ended == ["request", "shutdown"]


def test_request_in_flight_is_cancelled_when_its_time_is_over(
    aiovoy_server: StartServer, other_thread: ThreadPoolExecutor
) -> None:
    app = Gated()
    server = aiovoy_server(app, timeout_graceful_shutdown=0)
    response = other_thread.submit(httpx.get, server.url, timeout=DEADLINE)
    assert app.begun.wait(DEADLINE)
    assert server.stop() == 0
    assert app.ended == ["request", "shutdown"]
    assert response.exception(DEADLINE) or response.result().status_code == 500


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("no database")


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


def make() -> App:
    raise LookupError("no database")


@pytest.mark.parametrize(("app", "settings"), [(raises, {"lifespan": "on"}), (fails, {}), (make, {"factory": True})])
def test_start_that_fails_says_why(aiovoy_server: StartServer, app: App, settings: dict[str, Any]) -> None:
    before = state()
    with pytest.raises(aiovoy.StartupError, match="no database") as failed:
        aiovoy_server(app, **settings)
    assert ("LookupError" in str(failed.value)) == (app is not fails)
    assert state() == before
    assert get(aiovoy_server(Told()).url) == "unset"


def test_factory(aiovoy_server: StartServer) -> None:
    assert get(aiovoy_server(Told, factory=True).url) == "unset"


def test_number_of_workers_is_for_others(aiovoy_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")
    assert get(aiovoy_server(Told()).url) == "unset"


def test_port_that_is_taken(aiovoy_server: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(aiovoy.StartupError, match=f"127.0.0.1:{port}"):
            aiovoy_server(Told(), port=port)


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    raise AssertionError


def none() -> None:
    pass


@pytest.mark.parametrize(
    ("app", "settings", "words"),
    [
        (wsgi, {}, r"`py_tests\.launcher\.test_in_process:wsgi` is a WSGI application"),
        (3, {}, r"an application, got an object of type `int`, which can't be called$"),
        (None, {}, r"an application, got an object of type `NoneType`, .*\nhint: what makes it may lack its `return`$"),
        (None, {"factory": True}, "`NoneType`"),
        (none, {"factory": True}, "what the factory .* makes is an object of type `NoneType`"),
        (raises, {"factory": True}, "hint: without `factory=True` `.*:raises` is the application$"),
    ],
)
def test_what_is_no_asgi_application_is_refused_in_words(
    aiovoy_server: StartServer, app: object, settings: dict[str, Any], words: str
) -> None:
    before = state()
    with pytest.raises(aiovoy.AiovoyError, match=words):
        aiovoy_server(app, **settings)
    assert state() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"http3": True, "ssl_certfile": "server.pem"},
        {"workers": 2},
        {"reload": True},
        {"response_path": "router"},
        {"router_retries": 1},
        {"mount": {"/api": "api:app"}},
        {"app_dir": "examples"},
        {"env_file": ".env"},
        {"stderr": subprocess.DEVNULL},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_needs_envoy_or_a_process_is_refused_with_the_way_out(
    aiovoy_server: StartServer, settings: dict[str, Any]
) -> None:
    with pytest.raises(aiovoy.ConfigError, match="is not for an application object") as refused:
        aiovoy_server(Told(), **settings)
    assert any(f"`{name}`" in str(refused.value) for name in settings)
    assert "hint: give its name, `module:attribute`" in str(refused.value)


@pytest.mark.parametrize("log_config", [{}, {"version": 1, "handlers": {"file": {"class": "missing"}}}])
def test_log_config_that_cannot_be_applied(aiovoy_server: StartServer, log_config: dict[str, Any]) -> None:
    with pytest.raises(aiovoy.ConfigError, match="`log_config` of a dictionary cannot be applied: "):
        aiovoy_server(Told(), log_config=log_config)


def test_factory_that_is_not_said_to_be_one(aiovoy_server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    assert get(aiovoy_server(lambda: Told()).url) == "unset"
    assert "is called to make the application: say so by `factory=True`" in caplog.text


def test_every_setting_is_heeded_or_refused(tmp_path: Path) -> None:
    heeded = set()

    class Heeded(aiovoy.Config):
        def __getattribute__(self, name: str) -> Any:
            heeded.add(name)
            return super().__getattribute__(name)

    configs = [Heeded("main:app", port=0), Heeded("main:app", uds=tmp_path / "socket")]
    heeded.clear()
    for config in configs:
        Settings.of(config)
        Listening(config, 1).close()
    assert {field.name for field in dataclasses.fields(aiovoy.Config)} - heeded - ELSEWHERE == set()


def test_access_log_in_a_form_of_envoy_s_is_refused(aiovoy_server: StartServer) -> None:
    with pytest.raises(aiovoy.ConfigError, match="`access_log_format` is common, combined, json here"):
        aiovoy_server(Told(), access_log=True, access_log_format="%PROTOCOL%")


async def test_exception_in_a_request_is_logged(aiovoy_server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    server = aiovoy_server(raises)
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client:
        assert (await client.get("/")).status_code == 500
    await eventually(lambda: "exception in ASGI application: GET /" in caplog.text)
    assert "LookupError: no database" in caplog.text


async def test_log_goes_on_when_another_server_has_ended(
    aiovoy_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = aiovoy_server(Told()), aiovoy_server(Told())
    first.stop()
    with socket.create_connection((second.host, second.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b" 400 " in client.recv(1000)
    await eventually(lambda: "refused" in caplog.text)


def test_levels_that_are_set_already_stay(aiovoy_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn"), "level", logging.ERROR)
    aiovoy_server(Told(), log_level="debug")
    assert logging.getLogger("uvicorn").level == logging.ERROR


async def test_log_level_is_that_of_the_last_server(
    aiovoy_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    for level in ["error", "info"]:
        server = aiovoy_server(Told(), log_level=level)
        with socket.create_connection((server.host, server.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b" 400 " in client.recv(1000)
    await eventually(lambda: "refused" in caplog.text)
    assert caplog.text.count("refused") == 1


APP = """
import asyncio, os, signal, socket, sys, threading, time, urllib.request

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shut down", file=sys.__stdout__, flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"served", "more_body": True})
    if scope["path"] == "/endless":
        await asyncio.Event().wait()
    await send({"type": "http.response.body"})
"""

INTERRUPTED = """
def test_that_is_interrupted(aiovoy_session_server, aiovoy_server):
    for start in [aiovoy_session_server, aiovoy_server]:
        assert urllib.request.urlopen(start(app).url).read() == b"served"
    signal.raise_signal(signal.SIGINT)
"""

INTERRUPTED_AGAIN = """
def test_that_is_interrupted(aiovoy_server):
    server = aiovoy_server(app)
    response = urllib.request.urlopen(server.url + "/endless")

    def interrupt_again():
        while True:  # until it waits for the request
            with socket.socket() as client:
                if client.connect_ex((server.host, server.port)) != 0:
                    break
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_again).start()
    signal.raise_signal(signal.SIGINT)
"""

# A child that was forked has none of its threads.
LEFT = """
import aiovoy
from aiovoy.upstream.settings import Settings
from aiovoy.upstream.thread import ELSEWHERE, ThreadServer

server = ThreadServer(app, port=0)
server.ready.result()
if (child := os.fork()) == 0:
    try:
        ThreadServer(app, port=0)
    except aiovoy.StartupError as error:
        print(error, flush=True)
    try:
        server.stop()
    except aiovoy.AiovoyError as error:
        print(error, flush=True)
        sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print(urllib.request.urlopen(server.url).read().decode(), flush=True)
response = urllib.request.urlopen(server.url + "/endless")
"""


def run(words: list[str], code: str, tmp_path: Path) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "test_it.py").write_text(APP + code)
    command = [sys.executable, *words, "test_it.py"]
    # Whoever runs these tests in the background may have it ignored, which would be inherited.
    heeds_interrupts = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=3 * DEADLINE, preexec_fn=heeds_interrupts
    )


@pytest.mark.parametrize(("code", "shutdowns", "status"), [(INTERRUPTED, 2, 2), (INTERRUPTED_AGAIN, 0, -signal.SIGINT)])
def test_interrupted_session_ends_its_servers(tmp_path: Path, code: str, shutdowns: int, status: int) -> None:
    """The second time nothing is waited for."""
    ended = run(["-m", "pytest", "-s", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error"], code, tmp_path)
    assert ended.stdout.count("shut down") == shutdowns
    assert "KeyboardInterrupt" in ended.stdout
    assert ended.returncode == status


def test_server_that_nobody_stops_ends_with_its_interpreter(tmp_path: Path) -> None:
    ended = run([], LEFT, tmp_path)
    *refusals, code, served = ended.stdout.splitlines()
    assert [refusal.count("was forked from") for refusal in refusals] == [1, 1]
    assert [code, served] == ["7", "served"]
    assert ended.returncode == 0
    assert "CancelledError" in ended.stderr  # of the request in flight


DEAF = """
import time
from aiovoy.upstream.thread import ThreadServer

begun = threading.Event()

async def deaf(scope, receive, send):
    begun.set()
    while True:
        try:
            while True:
                {act}
        except asyncio.CancelledError:
            pass

server = ThreadServer(deaf, port=0, loop="{loop}", lifespan="off")
server.ready.result()
threading.Thread(target=urllib.request.urlopen, args=[server.url], daemon=True).start()
begun.wait()
sys.exit(7)
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize(
    "act",
    ["pass", "time.sleep(0.01)", "await asyncio.sleep(0.01)", "await asyncio.Event().wait()"],
    ids=["computes", "blocks", "waits", "listens"],
)
def test_application_that_does_not_end_does_not_touch_the_exit_code(tmp_path: Path, act: str, loop: str) -> None:
    ended = run([], DEAF.format(act=act, loop=loop), tmp_path)
    assert ended.returncode == 7, ended.stderr
    assert "FATAL" not in ended.stderr
