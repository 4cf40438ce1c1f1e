"""`aiovoy.Server` in asyncio code, and the pytest fixture that ships with the package."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import aiovoy
from py_tests.harness.apps import Receive, Scope, Send, answer, file_exists, gate, note, routes
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.processes import runs
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

MAIN = """
import os, sys

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        message = await receive()
        if os.environ.get("FAIL"):
            await send({"type": "lifespan.startup.failed", "message": "told to fail"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        open(os.environ["GOODBYE"], "w").close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = scope["root_path"] + " " + str(os.getpid())
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body.encode()})
"""


@pytest.fixture
def app_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "main.py").write_text(MAIN)
    monkeypatch.setenv("GOODBYE", str(tmp_path / "goodbye"))
    return tmp_path


async def test_context_manager_serves_and_stops(app_dir: Path) -> None:
    async with aiovoy.Server("main:app", port=0, app_dir=app_dir) as server:
        assert server.port > 0
        assert server.url == f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client:
            response = await client.get("/")
        assert response.text == f" {server.pid}"
        async with await Http2Connection.open(server.port) as connection:
            assert (await connection.get("/")).status == 200
        pid = server.pid
    assert not runs(pid)
    assert (app_dir / "goodbye").exists()


async def test_settings_are_those_of_the_command_line(app_dir: Path) -> None:
    settings: dict[str, Any] = {"root_path": "/shop", "loop": "asyncio"}
    async with (
        aiovoy.Server("main:app", port=0, app_dir=app_dir, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client,
    ):
        assert (await client.get("/")).text.startswith("/shop ")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await (lifespan_less if scope["type"] == "lifespan" else http)(scope, receive, send)


async def lifespan_less(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "in flight")
    await file_exists(gate(scope))
    await answer(send, b"answered")


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


http = routes(gated, plain)


async def test_application_object_is_found_by_its_module() -> None:
    async with aiovoy.Server(app, port=0) as server, httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client:
        assert (await client.get("/plain")).text == "plain"


async def test_several_servers_run_beside_each_other(app_dir: Path) -> None:
    async with (
        aiovoy.Server("main:app", port=0, app_dir=app_dir) as first,
        aiovoy.Server(app, port=0) as second,
        httpx.AsyncClient(timeout=DEADLINE) as client,
    ):
        assert first.port != second.port
        assert (await client.get(first.url)).text == f" {first.pid}"
        assert (await client.get(second.url + "/plain")).text == "plain"


async def test_requests_in_flight_finish_when_the_block_ends(key: str, tmp_path: Path) -> None:
    path = tmp_path / "gate"
    server = aiovoy.Server(app, port=0)
    await server.start()
    async with await Http1Connection.open(server.port) as connection:
        exchange = await connection.start("GET", f"/gated?{key}", headers=[(b"x-gate", str(path).encode())])

        async def in_flight() -> bool:
            async with await Http1Connection.open(server.port) as other:
                return bool((await other.get(f"/notes?{key}")).json())

        await eventually(in_flight)
        stopping = asyncio.create_task(server.stop())
        path.touch()
        assert (await exchange.response()).body == b"answered"
        assert await stopping == 0


async def test_exception_in_the_block_stops_the_server(app_dir: Path) -> None:
    server = aiovoy.Server("main:app", port=0, app_dir=app_dir)

    async def fails() -> None:
        async with server:
            raise LookupError("of the caller")

    with pytest.raises(LookupError):
        await fails()
    assert not runs(server.pid)


async def test_server_may_be_started_again(app_dir: Path) -> None:
    server = aiovoy.Server("main:app", port=0, app_dir=app_dir)
    for _ in range(2):
        async with server, httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client:
            assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize(
    ("name", "word"), [("main:nothing", "nothing"), ("nowhere:app", "nowhere"), ("main:app", "told to fail")]
)
async def test_start_that_fails_says_why(app_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, word: str) -> None:
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(aiovoy.StartupError, match=word):
        async with aiovoy.Server(name, port=0, app_dir=app_dir):
            pass


async def test_bad_setting_says_so() -> None:
    with pytest.raises(aiovoy.ConfigError, match="trio"):
        aiovoy.Server("main:app", loop="trio")


async def test_worker_that_dies_is_replaced(app_dir: Path) -> None:
    async with aiovoy.Server("main:app", port=0, app_dir=app_dir) as server:
        dead = server.pid
        os.kill(dead, signal.SIGKILL)
        await eventually(lambda: server.pids and server.pid != dead)
        async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client:
            assert (await client.get("/")).text == f" {server.pid}"


async def test_cancelled_block_leaves_no_process(app_dir: Path) -> None:
    pids: list[int] = []

    async def serve() -> None:
        async with aiovoy.Server("main:app", port=0, app_dir=app_dir) as server:
            pids.append(server.pid)
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await eventually(lambda: pids)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not runs(pids[0])


async def test_envoy_ends_with_the_process_that_embeds_it(app_dir: Path) -> None:
    code = """if True:
        import aiovoy, asyncio, sys
        async def main():
            async with aiovoy.Server("main:app", port=0, app_dir=sys.argv[1]) as server:
                print(server.pid, flush=True)
                await asyncio.Event().wait()
        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(app_dir), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    pid = int(await asyncio.wait_for(process.stdout.readline(), DEADLINE))
    process.kill()
    await process.communicate()
    await eventually(lambda: not runs(pid))


SCRIPT = """
import asyncio, sys, threading, aiovoy

async def app(scope, receive, send): ...

async def main():
    async with aiovoy.Server(app, port=0, lifespan="off"):
        print("started")

def in_a_thread():
    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    thread.join()

print("run")
"""


NO_GUARD = """application `script:app` could not be imported: a server was started where the application runs
hint: a script that is its own application starts it below `if __name__ == "__main__":`
"""


@pytest.mark.parametrize("call", ["aiovoy.run(app, port=0)", "asyncio.run(main())", "in_a_thread()"])
def test_script_without_a_guard_does_not_start_itself_again_and_again(tmp_path: Path, call: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT + call)
    words = [sys.executable, "-u", str(tmp_path / "script.py")]
    ended = subprocess.run(words, check=False, timeout=3 * DEADLINE, capture_output=True, text=True)
    assert ended.stdout.count("run") == 2  # once as the script, once as the application
    if call == "in_a_thread()":  # the import goes on, and so does the server
        assert NO_GUARD.partition(": ")[2] in ended.stderr
        return
    assert ended.returncode == 1
    logged, traceback, raised = ended.stderr.partition("Traceback")
    assert logged.partition("[error] ")[2] == NO_GUARD
    assert bool(traceback) == ("run(main())" in call)
    assert "supervisor.py" not in raised


def test_script_with_a_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT + "if __name__ == '__main__': asyncio.run(main())")
    words = [sys.executable, "-u", str(tmp_path / "script.py")]
    ended = subprocess.run(words, check=False, timeout=3 * DEADLINE, capture_output=True, text=True)
    assert ended.stdout.split() == ["run", "run", "started"]
    assert ended.returncode == 0


# --- The fixture ---


def test_fixture_serves_in_synchronous_tests(aiovoy_server: Callable[..., Any], app_dir: Path) -> None:
    server = aiovoy_server("main:app", app_dir=app_dir)
    assert httpx.get(server.url, timeout=DEADLINE).text == f" {server.pid}"


async def test_fixture_serves_in_asynchronous_tests(aiovoy_server: Callable[..., Any]) -> None:
    server = aiovoy_server(app)
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client:
        assert (await client.get("/plain")).text == "plain"


SHARED = """
import urllib.request

import pytest

@pytest.fixture(scope="session")
def url(aiovoy_session_server):
    return aiovoy_session_server("main:app", root_path="/shared").url

def pid_of(url):
    root_path, pid = urllib.request.urlopen(url).read().split()
    assert root_path == b"/shared"
    return pid

seen = set()

@pytest.mark.parametrize("number", range(3))
def test_that_shares_it(url, number):
    seen.add(pid_of(url))
    assert len(seen) == 1
"""

COVERED = """
[tool.coverage.run]
patch = ["subprocess"]
source = ["."]
"""


def test_server_of_a_session_and_its_coverage(app_dir: Path) -> None:
    """A user's own tests: all use one server, and the lines that run in it are counted."""
    (app_dir / "test_shared.py").write_text(SHARED)
    (app_dir / "pyproject.toml").write_text(COVERED)

    def run(*words: str) -> str:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=app_dir, stdout=subprocess.PIPE, text=True, timeout=3 * DEADLINE, check=True)
        return done.stdout

    assert "3 passed" in run("coverage", "run", "-m", "pytest", "-p", "no:cacheprovider", "-q")
    assert (app_dir / "goodbye").exists()
    run("coverage", "combine")
    covered = re.search(r"main.py +\d+ +(\d+) +\d+% +(\S+)\n", run("coverage", "report", "--show-missing"))
    missing = [number for number, line in enumerate(MAIN.splitlines(), 1) if "told to fail" in line or "return" in line]
    assert covered is not None
    assert covered.groups() == ("2", "-".join(map(str, missing[:2])))


@pytest.fixture
def stopped_later() -> Iterator[list[int]]:
    """Checks after the test, when the fixture above it has been torn down."""
    pids: list[int] = []
    yield pids
    assert not any(runs(pid) for pid in pids)


def test_fixture_stops_its_servers(stopped_later: list[int], aiovoy_server: Callable[..., Any], app_dir: Path) -> None:
    for _ in range(2):
        stopped_later.append(aiovoy_server("main:app", app_dir=app_dir).pid)
    assert all(runs(pid) for pid in stopped_later)
