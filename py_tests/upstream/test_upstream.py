"""`aiovoy upstream`: what is its own. What applications see is tested by the whole suite with `AIOVOY_TEST_FRONT`."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import psutil
import pytest
from click.testing import CliRunner

from aiovoy.embedded import stacks
from aiovoy.upstream.cli import main
from py_tests.harness.apps import Receive, Scope, Send, answer, body, file_exists, gate, note, read, routes, start
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.folders import ROOT
from py_tests.harness.protocols import HTTP1, HTTP2, Connect
from py_tests.harness.serving import AIOVOY, Server, unlike_uvicorn

pytestmark = [unlike_uvicorn("this is about aiovoy"), pytest.mark.protocols(HTTP1, HTTP2)]


async def where(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, {"client": scope["client"], "server": scope["server"], "pid": os.getpid()})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, await read(receive))


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"first,", more=True)
    note(scope, "begun")
    await file_exists(gate(scope))
    await body(send, b"last")


async def process(scope: Scope, receive: Receive, send: Send) -> None:
    told = {
        "pid": os.getpid(),
        "dev": sys.flags.dev_mode,
        "warnings": [option for option in sys.warnoptions if option != "default"],
        "environ": [name for name in os.environ if name.startswith("AIOVOY_")],
        "is_main": threading.current_thread() is threading.main_thread(),
    }
    await answer(send, told)


async def child(scope: Scope, receive: Receive, send: Send) -> None:
    """What a program has that the application starts, though it asks for all that there is."""
    program = await asyncio.create_subprocess_exec(
        "ls", "-l", "/proc/self/fd", close_fds=False, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await program.communicate()
    sockets = [line.split()[-3::2] for line in output.decode().splitlines() if "socket:" in line]
    own = [socket for number, socket in sockets if number == "1"]
    await answer(send, [socket for _, socket in sockets if socket not in own])


app = routes(where, echo, slow, process, child)

Serve = Callable[..., Server]


@pytest.fixture(name="serve")
def serve_upstream() -> Iterator[Serve]:
    with contextlib.ExitStack() as servers:

        def serve(
            *words: str,
            application: str = f"{__name__}:app",
            starts: bool = True,
            options: Sequence[str] = (),
            path: Path = ROOT,
        ) -> Server:
            command = [sys.executable, *options, "-m", "aiovoy", "upstream", application, "--app-dir", str(path)]
            server = Server([*command, *words], AIOVOY, ROOT, {})
            servers.callback(server.stop)
            if starts:
                server.wait_until_started()
            return server

        yield serve


async def test_application_is_served_on_one_port(serve: Serve, connect: Connect) -> None:
    server = serve("--port", "0")
    connection = await connect(server)
    told = (await connection.get("/where")).json()
    assert told["client"][0] == "127.0.0.1"
    assert told["server"] == ["127.0.0.1", server.port]
    assert (await connection.post("/echo", b"x" * 300_000)).body == b"x" * 300_000


async def test_it_is_one_process_without_envoy(serve: Serve, connect: Connect) -> None:
    server = serve("--port", "0")
    assert (await (await connect(server)).get("/where")).json()["pid"] == server.pid
    process = psutil.Process(server.pid)
    assert not process.children()
    maps = {Path(file.path).name for file in process.memory_maps()}
    assert any(name.startswith("network.") for name in maps)
    assert not any(name.startswith(("envoy", "bridge.")) for name in maps)


@pytest.mark.protocols(HTTP1)
async def test_unix_domain_socket(serve: Serve, protocol: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    serve("--uds", str(path))
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=DEADLINE) as client:
        told = (await client.get("http://localhost/where")).json()
    assert told["server"] == [str(path), None]


async def test_what_is_in_flight_is_finished(serve: Serve, connect: Connect, key: str, tmp_path: Path) -> None:
    server = serve("--port", "0")
    gate_file = tmp_path / "gate"
    exchange = await (await connect(server)).start("GET", f"/slow?{key}", headers=[(b"x-gate", bytes(gate_file))])
    assert await exchange.head() == 200
    await server.noted(key, "begun")
    server.signal(signal.SIGTERM)
    await eventually(lambda: "stopping" in server.log)
    gate_file.touch()
    assert await exchange.rest() == b"first,last"
    assert await server.exit_code() == 0


@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--http3"], "HTTP/3 is for the proxy in front"),
        (["--ssl-port", "8443"], "TLS is for the proxy in front"),
        (["--response-path", "router"], "there is no router here"),
        (["--router-retries", "2"], "the proxy in front repeats requests"),
        (["--envoy", "envoy"], "there is no Envoy in this server"),
    ],
)
async def test_options_that_have_no_meaning_are_refused_with_the_reason(
    serve: Serve, protocol: str, words: list[str], reason: str
) -> None:
    server = serve(*words, starts=False)
    assert await server.exit_code() == 2
    assert f"`{words[0]}` is not for `aiovoy upstream`: {reason}" in server.log


@pytest.mark.protocols(HTTP1)
async def test_formats_of_envoy_are_none_of_ours(serve: Serve, protocol: str) -> None:
    server = serve("--access-log", "--access-log-format", "%PROTOCOL%", starts=False)
    assert await server.exit_code() == 2
    assert "`--access-log-format` is common, combined, json here, got `%PROTOCOL%`" in server.log


# --- Workers ---


@pytest.mark.parametrize(
    ("name", "value", "is_supervised"),
    [
        ("timeout-worker-healthcheck", "30", True),
        ("timeout-worker-healthcheck", "29", True),
        ("timeout-worker-healthcheck", "0", True),
        ("limit-max-requests", "1", True),
        ("workers", "1", True),
        ("reload", "true", True),
        ("reload", "false", False),
        ("replace-first", "'old'", False),
    ],
)
def test_workers_are_had_by_what_is_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, is_supervised: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    monkeypatch.setattr("aiovoy.launcher.run.serve", lambda config, kind: 10)
    monkeypatch.setattr("aiovoy.upstream.serve.serve", lambda config: 11)
    code = 10 if is_supervised else 11
    words = {"true": [f"--{name}"], "false": [f"--no-{name}"]}.get(value, [f"--{name}", value.strip("'")])
    variable = {f"AIOVOY_{name.upper().replace('-', '_')}": value.strip("'")}
    assert CliRunner().invoke(main, ["main:app"]).exit_code == 11
    assert CliRunner().invoke(main, ["main:app", *words]).exit_code == code
    assert CliRunner(env=variable).invoke(main, ["main:app"]).exit_code == code
    (tmp_path / "aiovoy.toml").write_text(f"{name} = {value}")
    assert CliRunner().invoke(main, ["main:app"]).exit_code == code


async def test_worker_is_an_ordinary_process(serve: Serve, connect: Connect) -> None:
    """With the launcher's options of Python, and nothing of what leads to the launcher."""
    server = serve("--port", "0", "--workers", "1", options=["-X", "dev", "-W", "ignore"])
    told = (await (await connect(server)).get("/process")).json()
    assert told.pop("pid") in [child.pid for child in psutil.Process(server.pid).children()]
    assert told == {"dev": True, "warnings": ["ignore"], "environ": ["AIOVOY_WORKER"], "is_main": True}


async def test_worker_has_no_socket_twice(serve: Serve, connect: Connect) -> None:
    """A port that a worker no longer listens on is not open in it by another descriptor."""
    server = serve("--port", "0", "--workers", "2")
    for child in psutil.Process(server.pid).children():
        listeners = [one for one in child.net_connections() if one.status == psutil.CONN_LISTEN]
        assert len(listeners) == 1, listeners


@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "worker"])
async def test_programs_of_the_application_inherit_nothing(serve: Serve, connect: Connect, options: list[str]) -> None:
    server = serve("--port", "0", *options)
    assert (await (await connect(server)).get("/child")).json() == []


# Without a word of the tests', which have imports of their own.
TELLS_MODULES = """
import json, sys

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": json.dumps(list(sys.modules)).encode()})
"""


@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize(
    ("options", "others"),
    [
        ([], {"aiovoy.launcher.run", "aiovoy.launcher.workers", "aiovoy.launcher.binary"}),
        (["--workers", "1"], {"aiovoy.launcher", "click"}),
    ],
    ids=["alone", "worker"],
)
async def test_process_that_serves_has_imported_nothing_of_others(
    serve: Serve, tmp_path: Path, protocol: str, options: list[str], others: set[str]
) -> None:
    """Of those that watch over workers, or start Envoy; a worker nothing of a command line either."""
    (tmp_path / "tells.py").write_text(TELLS_MODULES)
    words = ["--port", "0", "--lifespan", "off", *options]
    server = serve(*words, application="tells:app", options=["-X", f"pycache_prefix={tmp_path}"], path=tmp_path)
    modules = set((await server.get("/")).json())
    assert "aiovoy.network" in modules
    assert modules & others == set()


@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "worker"])
async def test_application_that_takes_the_signals_at_import(
    serve: Serve, tmp_path: Path, protocol: str, options: list[str]
) -> None:
    """It can't mean the server, which is there later."""
    module = tmp_path / "takes.py"
    module.write_text(f"import signal\nsignal.signal(signal.SIGTERM, print)\n{TELLS_MODULES}")
    words = ["--port", "0", "--lifespan", "off", *options]
    server = serve(*words, application="takes:app", options=["-X", f"pycache_prefix={tmp_path}"], path=tmp_path)
    server.signal(signal.SIGTERM)
    assert await server.exit_code() == 0
    assert server.log.count("no handler installed for ") == 1
    assert "no handler installed for SIGTERM: it stops the server\nhint: `lifespan.shutdown` tells of it" in server.log


@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "worker"])
async def test_tracebacks_of_all_threads_at_a_signal(serve: Serve, protocol: str, options: list[str]) -> None:
    server = serve("--port", "0", *options)
    pid = (await server.get("/process")).json()["pid"]
    os.kill(pid, stacks.SIGNAL)
    await eventually(lambda: "(most recent call first):\n" in server.log)
    assert (await server.get("/process")).json()["pid"] == pid


@pytest.mark.protocols(HTTP1)
async def test_hangup_of_the_terminal_alone(serve: Serve, protocol: str) -> None:
    """Where there is no terminal, SIGHUP asks for new workers."""
    server = serve("--port", "0")
    os.kill(server.pid, signal.SIGHUP)
    await eventually(lambda: "SIGHUP replaces workers, and there are none" in server.log)
    assert (await server.get("/process")).json()["pid"] == server.pid


@pytest.mark.protocols(HTTP1)
async def test_port_is_closed_while_requests_are_finished(
    serve: Serve, connect: Connect, key: str, tmp_path: Path
) -> None:
    """Who comes meanwhile is refused, and does not wait for somebody who does not come."""
    server = serve("--port", "0")
    gate_file = tmp_path / "gate"
    exchange = await (await connect(server)).start("GET", f"/slow?{key}", headers=[(b"x-gate", bytes(gate_file))])
    await server.noted(key, "begun")
    server.signal(signal.SIGTERM)

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    await eventually(refused)
    gate_file.touch()
    assert (await exchange.response()).body == b"first,last"


@pytest.mark.protocols(HTTP1)
async def test_hangup_of_the_terminal_ends_no_worker_by_itself(serve: Serve, protocol: str) -> None:
    """The launcher hears of it, too, and knows what to do."""
    server = serve("--port", "0", "--workers", "1")
    (worker,) = psutil.Process(server.pid).children()
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        worker.send_signal(number)
    assert (await server.get("/process")).json()["pid"] == worker.pid


@pytest.mark.protocols(HTTP1)
async def test_application_that_is_not_there(serve: Serve, protocol: str) -> None:
    server = serve("--port", "0", application=f"{__name__}:missing", starts=False)
    assert await server.exit_code() == 1
    assert "missing" in server.log
    assert "running on" not in server.log
