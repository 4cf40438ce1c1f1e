"""The bridge in an Envoy that is started by hand: examples/envoy.yaml under plain `envoy -c`."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from aiovoy.launcher.binary import envoy_binary
from aiovoy.launcher.environ import bridge_path
from py_tests.harness.apps import Receive, Scope, Send, answer, file_exists, gate, note, read, routes
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.folders import ROOT
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.plain_envoy import EXAMPLE, PlainEnvoy, configuration, environment, envoy, listens, printed
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")


async def test_example_answers_on_both_protocols(tmp_path: Path) -> None:
    with envoy(tmp_path) as server:
        await server.accepts()
        async with (
            await Http1Connection.open(server.port) as one,
            await Http2Connection.open(server.port) as two,
        ):
            assert (await one.get("/")).body == b"Hello, world!"
            assert (await two.get("/")).body == b"Hello, world!"


def validated(tmp_path: Path, changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Envoy's `--mode validate` of the example with `changes`."""
    path = tmp_path / "envoy.yaml"
    path.write_text(configuration(8000, 9901, changes))
    return subprocess.run(
        [str(envoy_binary(None)), "-c", str(path), "--mode", "validate"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
    )


async def test_example_is_valid(tmp_path: Path) -> None:
    done = validated(tmp_path, {})
    assert done.returncode == 0, done.stdout
    assert "OK" in done.stdout


async def test_filter_of_another_name_is_not_valid(tmp_path: Path) -> None:
    """Its name is its place, of which a mistyped one would be another."""
    done = validated(tmp_path, {"filter_name: aiovoy": "filter_name: aiovoy_font"})
    assert done.returncode > 0
    assert "http filter `aiovoy_font` refused its configuration: `filter_name` is one of" in done.stdout


MAIN = """
import json, os, sys

async def app(scope, receive, send):
    assert scope["type"] == "http"
    seen = [sys.prefix, sys.path[0], os.getcwd()]
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
"""


async def test_environment_is_the_active_one(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    changes = {"app: hello:app": "app: main:app", "app_dir: examples": f"app_dir: {tmp_path}"}
    with envoy(tmp_path, changes) as server:
        await server.accepts()
        seen = (await server.get("/")).json()
        assert seen == [sys.prefix, str(tmp_path), str(ROOT)]


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "in flight")
    await file_exists(gate(scope))
    await answer(send, b"answered")


app = routes(gated)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_lets_requests_in_flight_finish(
    connect: Connect, key: str, tmp_path: Path, number: signal.Signals
) -> None:
    changes = {"app: hello:app": f"app: {__name__}:app", "app_dir: examples": f"app_dir: {ROOT}"}
    path = tmp_path / "gate"
    with envoy(tmp_path, changes) as server:
        await server.accepts()
        exchange = await (await connect(server)).start(
            "GET", f"/gated?{key}", headers=[(b"x-gate", str(path).encode())]
        )
        await server.noted(key, "in flight")
        server.signal(number)
        await eventually(lambda: not listens(server.port))
        assert server.process.poll() is None
        path.touch()
        assert (await exchange.response()).body == b"answered"
        assert await server.exit_code() == 0


async def test_log_that_nobody_reads_is_what_holds_the_end_up(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDWR)
    logger = f"""access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {log}
              log_format: {{text_format_source: {{inline_string: "%REQ(:PATH)%"}}}}
          http_filters:"""
    with envoy(tmp_path, {"http_filters:": logger}) as server:
        await server.accepts()
        async with await Http1Connection.open(server.port) as connection:
            for _ in range(2 * fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ) // 10_000):
                await connection.get("/" + "x" * 10_000)
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 1
        assert "Envoy does not end, perhaps because nobody reads what it logs: ended after 10 s" in server.log
    os.close(reader)


async def each_loop(scope: Scope, receive: Receive, send: Send) -> None:
    """Has a state for each loop, and answers with it after a turn of the loop it runs on."""
    loop = id(asyncio.get_running_loop())
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["loop"] = loop
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("loop shut down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    data = await read(receive)
    await asyncio.sleep(0)
    same = loop == scope["state"]["loop"] == id(asyncio.get_running_loop())
    await answer(send, [loop, same, data.decode()])


async def test_many_loops_at_once_keep_to_themselves(tmp_path: Path) -> None:
    changes = {"app: hello:app": f"app: {__name__}:each_loop", "app_dir: examples": f"app_dir: {ROOT}"}
    loops: set[int] = set()

    async def client(server: PlainEnvoy, number: int) -> None:
        async with await Http1Connection.open(server.port) as connection:
            for turn in range(10):
                text = f"{number}.{turn}"
                loop, same, echoed = (await connection.post("/", text.encode())).json()
                assert (same, echoed) == (True, text)
                loops.add(loop)
            if number % 2:
                # In the midst of a request, while other streams of its worker go on.
                await connection.start("POST", "/", upload=True)
                await connection.abort()

    with envoy(tmp_path, changes, workers=3) as server:
        await server.accepts()
        await asyncio.gather(*(client(server, number) for number in range(60)))
        assert len(loops) == 3
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
        assert server.output.count("loop shut down") == 3


def without_ld_library_path() -> dict[str, str]:
    env = environment()
    del env["LD_LIBRARY_PATH"]
    return env


BAD: dict[str, tuple[dict[str, str], list[str]]] = {
    "missing module": ({"app: hello:app": "app: nowhere:app"}, ["nowhere", "examples"]),
    "missing attribute": ({"app: hello:app": "app: hello:nothing"}, ["nothing", "hello.py"]),
    "no attribute": ({"app: hello:app": "app: hello"}, ["hello", "module:attribute"]),
    "missing folder": ({"app_dir: examples": "app_dir: /no/such/folder"}, ["/no/such/folder"]),
    "unknown setting": ({"app_dir: examples": "ap_dir: examples"}, ["ap_dir"]),
    "unknown filter": ({"filter_name: aiovoy": "filter_name: aiovoy_font"}, ["aiovoy_font", "aiovoy_front"]),
    "bad loop": ({"# loop: asyncio": "loop: trio"}, ["trio"]),
    "missing python": (
        {"# python: /srv/shop/.venv/bin/python": "python: /no/such/python"},
        ["/no/such/python"],
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_setting_is_named_and_ends_envoy(tmp_path: Path, name: str) -> None:
    changes, words = BAD[name]
    with envoy(tmp_path, changes) as server:
        assert await server.exit_code() > 0
        for word in words:
            assert word in server.log
        assert not listens(server.port)


async def test_filter_without_the_bootstrap_extension_is_refused(tmp_path: Path) -> None:
    start, end = EXAMPLE.index("bootstrap_extensions:"), EXAMPLE.index("static_resources:")
    module = EXAMPLE[EXAMPLE.index("dynamic_module_config: &bridge") : EXAMPLE.index("    extension_name: aiovoy")]
    moved = textwrap.indent(module.replace(" &bridge", ""), " " * 10).strip()
    changes = {EXAMPLE[start:end]: "", "dynamic_module_config: *bridge": moved}
    with envoy(tmp_path, changes) as server:
        assert await server.exit_code() > 0
        assert "bootstrap_extensions" in server.log


async def test_libpython_is_the_right_one_or_envoy_ends_with_a_hint(tmp_path: Path) -> None:
    """Without LD_LIBRARY_PATH the loader may find none, or one of another installation."""
    with envoy(tmp_path, env=without_ld_library_path()) as server:
        await eventually(lambda: server.process.poll() is not None or listens(server.port))
        if server.process.poll() is not None:
            assert await server.exit_code() > 0
            assert "libpython" in server.log
        else:
            assert (await server.get("/")).body == b"Hello, world!"


async def test_module_path_is_printed_for_configurations() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aiovoy", "--print-module-path"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert Path(done.stdout.strip()) == bridge_path()


async def test_printed_configuration_runs_under_plain_envoy(tmp_path: Path) -> None:
    """What the command line would run can be written to a file, and be run by hand."""
    with printed(tmp_path, "hello:app", app_dir=ROOT / "examples", workers=2) as server:
        await server.accepts()
        assert (await server.get("/")).body == b"Hello, world!"


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("x" * 5000)


async def test_log_that_nobody_reads_holds_nobody_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDWR)
    with printed(tmp_path, f"{__name__}:raises", stderr=log) as server:
        await server.accepts()
        async with await Http1Connection.open(server.port) as connection:
            for _ in range(100):
                assert (await connection.get("/")).status == 500
        # Envoy itself waits at its end.
        reading = asyncio.get_running_loop().run_in_executor(None, read_all, reader)
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
        os.write(reader, END)
        assert (await reading).count(b"LookupError: xxx") == 100
    os.close(reader)


END = b"the end of the test"


def read_all(reader: int) -> bytes:
    data = b""
    while not data.endswith(END):
        data += os.read(reader, 65536)
    return data


ACCESS_LOG = """
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: %s
"""


async def test_log_files_are_opened_anew_at_sigusr1(tmp_path: Path) -> None:
    """As who rotates them wants it; the application has no handler for it."""
    log, prefix = tmp_path / "access.log", "          stat_prefix: http\n"
    with envoy(tmp_path, {prefix: prefix + ACCESS_LOG.lstrip("\n") % log}) as server:
        await server.accepts()
        await server.get("/")
        log.rename(tmp_path / "access.log.1")
        os.kill(server.pid, signal.SIGUSR1)

        async def is_new() -> bool:
            await server.get("/")
            return log.exists()

        await eventually(is_new)
