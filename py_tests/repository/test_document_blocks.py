"""Each block of code in the documents is run here, or marked in its document with the reason why not."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from socket import create_server
from typing import Any

import psutil
import pytest
from _pytest.mark import ParameterSet

from py_tests.harness.certificates import Pair
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.debug_adapter import Session
from py_tests.harness.documents import BLOCKS, DOCUMENTS, Block, blocks_of, program, words
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.folders import EXAMPLES, ROOT
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.in_front import AROUND, NGINX, nginx
from py_tests.harness.ipv6 import needs_ipv6
from py_tests.harness.place import Place
from py_tests.harness.plain_envoy import listens
from py_tests.harness.serving import AIOVOY, Serve, Server, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

RUN: set[Block] = set()
"""Those that a test of their own runs."""


def runs(document: str, **having: str) -> pytest.MarkDecorator:
    """For a test that runs blocks of `document`: its arguments, each with what stands in one block and in no other.

    `\\n` stands for the beginning of a line.
    """
    found = []
    for text in having.values():
        blocks = [block for block in blocks_of(document) if text in f"\n{block.text}"]
        assert len(blocks) == 1, f"expected one block with `{text}` in {document}, got {[*map(str, blocks)]}"
        found += blocks
    RUN.update(found)
    return pytest.mark.parametrize(list(having), [[block.text for block in found]], ids=[document])


@pytest.fixture
def place(pair: Pair) -> Iterator[Place]:
    """`tmp_path` may be longer than the path of a socket can be."""
    with tempfile.TemporaryDirectory() as folder:
        yield Place(Path(folder), pair)


def run(*words: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(words, cwd=cwd, stdout=subprocess.PIPE, text=True, timeout=3 * DEADLINE, check=True)
    return done.stdout


def shape(text: str) -> list[str]:
    """The lines of a log, whatever numbers they have."""
    return re.sub(r"\d+", "N", text).splitlines()


# --- Python ---


@runs("README.md", main="FastAPI()")
async def test_application_of_the_readme(main: str, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(main)
    server = serve("main:app", cwd=tmp_path, app_dir=None)
    assert (await server.get("/")).json() == {"hello": "world"}


@runs("docs/settings.md", script="aiovoy.run(")
async def test_run_in_a_script(script: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(script.replace("port=8000", "port=0"))
    server = Server([sys.executable, str(path)], AIOVOY, ROOT, {})
    try:
        server.wait_until_started()
        assert (await server.get("/")).body == b"Hello, world!"
    finally:
        server.stop()


@runs("docs/settings.md", script="async with Server(")
def test_server_in_python(script: str) -> None:
    assert re.fullmatch(r"http://127.0.0.1:\d+ \d+\n", run(sys.executable, "-c", script))


COVERAGE = [sys.executable, "-m", "coverage"]


@runs("docs/settings.md", tests="def test_greeting(", table="[tool.coverage.run]")
def test_tests_of_a_user_and_their_coverage(tests: str, table: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(EXAMPLES)
    (tmp_path / "pyproject.toml").write_text(table)
    (tmp_path / "test_of_a_user.py").write_text(tests)
    assert "2 passed" in run(
        *COVERAGE, "run", "-m", "pytest", "-p", "no:cacheprovider", "test_of_a_user.py", cwd=tmp_path
    )
    run(*COVERAGE, "combine", cwd=tmp_path)
    assert re.search(r"hello.py +\d+ +0 +100%", run(*COVERAGE, "report", cwd=tmp_path))


APP_WITH_METRICS = """
from prometheus_client import Counter

requests = Counter("requests", "Those of this worker")

async def app(scope, receive, send):
    requests.inc()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": os.environ["AIOVOY_WORKER"].encode()})
"""


@runs("docs/workers.md", values="prometheus_client")
async def test_metrics_are_named_by_workers(values: str, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(values + APP_WITH_METRICS)
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    server = serve("main:app", app_dir=tmp_path, workers=2, lifespan="off", env=env)

    async def both_have_answered() -> bool:
        return {(await server.get("/")).body for _ in range(10)} == {b"1", b"2"}

    await eventually(both_have_answered)
    assert {file.name for file in metrics.iterdir()} == {"counter_1.db", "counter_2.db"}


# --- Configuration of others ---

APP_WITH_CLIENT = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    said = f"{scope['scheme']} from {scope['client'][0]}"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": said.encode()})
"""


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@runs("docs/deployment.md", command="--uds /run/app/http.sock", configuration="upstream app {")
async def test_nginx_in_front_of_a_socket(command: str, configuration: str, place: Place) -> None:
    (place.folder / "main.py").write_text(APP_WITH_CLIENT)
    text = AROUND.format(place.local(configuration.replace("listen ", "listen 127.0.0.1:")))
    port = int(place.ports["443"])
    with place.serving(command) as behind:
        behind.wait_until_started()
        with nginx(place.folder, port, text) as server:
            await place.listens(server, "443")
            said = place.curl("--header", "X-Forwarded-For: 203.0.113.7", f"https://127.0.0.1:{port}/")
            assert said == "https from 127.0.0.1"


@runs("docs/deployment.md", dockerfile="FROM python")
async def test_command_of_the_image(dockerfile: str, place: Place) -> None:
    """The image is not built: that needs Docker and a network."""
    (last,) = re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)
    command = shlex.join(json.loads(last))
    with place.serving(command) as server:
        assert await place.answers(server, command) == ["Hello, world!"]


def command_of(unit: str) -> str:
    command: str
    (command,) = re.findall(r"^ExecStart=(.*)$", unit.replace("\\\n", " "), re.MULTILINE)
    return command


def verify(place: Place, **units: str) -> None:
    """By systemd, where there is one."""
    for name, text in units.items():
        (place.folder / f"app.{name}").write_text(place.local(text))
    if analyze := shutil.which("systemd-analyze"):
        command = [analyze, "verify", *(str(place.folder / f"app.{name}") for name in units)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=DEADLINE, check=True)
        assert not done.stderr


@runs("docs/deployment.md", unit="ExecStart=")
async def test_unit_of_systemd(unit: str, place: Place) -> None:
    verify(place, service=unit)
    with place.serving(command_of(unit)) as server:
        assert await place.answers(server, command_of(unit)) == ["Hello, world!"]


@runs("docs/workers.md", socket="[Socket]", service="[Service]")
async def test_socket_of_systemd(socket: str, service: str, place: Place) -> None:
    verify(place, socket=socket, service=service)
    (port,) = re.findall(r"^ListenStream=(\d+)$", place.local(socket), re.MULTILINE)
    (name,) = re.findall(r"^FileDescriptorName=(.*)$", socket, re.MULTILINE)
    with create_server(("127.0.0.1", int(port))) as listener:
        fd = listener.fileno()
        given = f"LISTEN_FDS=1 LISTEN_FDNAMES={name} LISTEN_PID=$$"
        command = command_of(service).replace("--workers auto", "--workers 2")
        with place.serving(f"{given} {command} 3<&{fd}", pass_fds=[fd]) as server:
            server.wait_until_started()
            assert place.curl(f"https://127.0.0.1:{port}/") == "Hello, world!"


CONFIGURATION = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 9901}}}}}}
{extension}
{clusters}
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 8000}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
{routes}
{filter_}
"""


@runs(
    "docs/envoy.md",
    library="\npython -c",
    extension="bootstrap_extensions:",
    filter_="http_filters:",
    routes="routes:",
    clusters="static_resources:",
)
async def test_envoy_with_what_is_to_be_added(
    library: str, extension: str, filter_: str, routes: str, clusters: str, place: Place
) -> None:
    text = CONFIGURATION.format(
        extension=extension,
        clusters=clusters,
        routes=textwrap.indent(routes, 14 * " "),
        filter_=textwrap.indent(filter_, 10 * " "),
    )
    (place.folder / "envoy.yaml").write_text(place.local(text))
    command = "envoy -c envoy.yaml --concurrency 1 --log-level warning"
    with place.serving(command, f"export LD_LIBRARY_PATH=$({library.strip()})") as server:
        assert await place.answers(server, command) == ["Hello, world!"]


LAUNCHED = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"gone on"})
"""


@runs("docs/applications.md", launch="debugpy")
async def test_debugger_is_launched(launch: str, place: Place) -> None:
    """By the adapter of VS Code, which the configuration is for, as VS Code starts it."""
    (place.folder / "main.py").write_text(LAUNCHED)
    breakpoints = {str(place.folder / "main.py"): [3]}
    (configuration,) = json.loads(launch)["configurations"]
    variables = {"AIOVOY_PORT": place.ports["8000"], "AIOVOY_LIFESPAN": "off"}
    here: dict[str, Any] = {"cwd": str(place.folder), "env": variables, "console": "internalConsole"}
    command = [sys.executable, "-m", "debugpy.adapter"]
    adapter = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert adapter.stdin is not None
    assert adapter.stdout is not None
    try:
        launcher = Session(adapter.stdout, adapter.stdin)
        await launcher.attach(breakpoints, **configuration, **here)
        worker = await launcher.event("debugpyAttach")
        async with Session.open(worker["connect"]["port"]) as session:
            await session.attach(breakpoints, **worker)
            await eventually(lambda: listens(int(place.ports["8000"])), 3 * DEADLINE)
            response = asyncio.create_task(asyncio.to_thread(place.curl, f"http://127.0.0.1:{place.ports['8000']}"))
            thread = (await session.event("stopped"))["threadId"]
            await session.ask("continue", threadId=thread)
            assert await response == "gone on"
            process = await launcher.event("process")
            os.kill(process["systemProcessId"], signal.SIGTERM)
            await session.event("terminated")
        await launcher.event("terminated")
    finally:
        for child in psutil.Process(adapter.pid).children(recursive=True):
            child.kill()
        adapter.kill()
        await adapter.wait()


@runs("envoy/README.md", module="impl Module for Hello")
def test_module_of_the_readme_is_tested_by_cargo(module: str) -> None:
    assert '#[doc = include_str!("../README.md")]' in (ROOT / "envoy/src/lib.rs").read_text()


# --- What a server writes ---


@runs("docs/protocols.md", log="refused with 431")
async def test_log_of_refusals(log: str, serve: Serve) -> None:
    server = serve("hello:app", app_dir=EXAMPLES)
    async with (
        await Http1Connection.open(server.port) as one,
        await Http2Connection.open(server.port) as two,
    ):
        told = [(b"x-forwarded-for", b"203.0.113.7")]
        assert (await one.get("/cart?secret", [*told, *[(b"x", b"1")] * 100])).status == 431
        with pytest.raises(ResponseCut):
            await two.get("/cart", [(b"no name", b"")])
    await eventually(lambda: server.log.count("refused") == 2)
    assert [line for line in shape(server.log) if "refused" in line] == shape(log)


APP_THAT_HANGS = """from pathlib import Path
from time import sleep



async def report():
    rows = slow_query()

def slow_query():
    while not Path("gate").exists():
        sleep(0.1)

async def app(scope, receive, send):
    if scope["path"] == "/report":
        await report()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"""


@runs("docs/workers.md", log="has an event loop that does not turn")
async def test_log_of_a_worker_that_hangs(log: str, place: Place) -> None:
    (place.folder / "main.py").write_text(APP_THAT_HANGS)
    with place.serving("aiovoy main:app --workers 2 --lifespan off") as server:
        server.wait_until_started()
        response = asyncio.create_task(server.get("/report"))
        await eventually(lambda: "does not turn" in server.log and "rows = slow_query()" in server.log)
        (place.folder / "gate").touch()
        assert (await response).status == 200
        await eventually(lambda: "well again" in server.log)
        for of_launcher in (True, False):  # each in its own order
            written = iter(shape(server.log))
            for line in shape(place.local(log)):
                if line != "  ..." and line.startswith("worker") == of_launcher:
                    assert line in written, f"no `{line}` where it should be in\n{server.log}"


# --- Commands ---

LEFT_OUT = {
    "make",  # it builds, or is what runs this test
    "pip",  # it needs a network
}

SETUP = {"source", "export"}
"""What later commands of the block need."""


SERVE = "make serve"


def is_server(command: str) -> bool:
    if program(command) in {"aiovoy", "envoy"}:
        return not re.search(r"--(help|version|print-\w)", command)
    return command == SERVE


def shown(block: Block) -> list[str]:
    """Its commands, but for those that are left out."""
    return [command for command in block.commands if is_server(command) or program(command) not in LEFT_OUT]


def starts_servers(block: Block) -> bool:
    others = {program(command) for command in shown(block) if not is_server(command)}
    return others <= SETUP and any(map(is_server, shown(block)))


def asks(block: Block) -> bool:
    return {program(command) for command in shown(block)} == {"curl"}


COMMANDS = [block for block in BLOCKS if block.language == "sh" and not block.reason and block not in RUN]
SERVERS = [block for block in COMMANDS if starts_servers(block)]
CLIENTS = [block for block in COMMANDS if asks(block)]
NOTHING_LEFT = [block for block in COMMANDS if not shown(block)]


@contextlib.contextmanager
def started(block: Block, place: Place) -> Iterator[list[tuple[Server, str]]]:
    """The servers of a block, each with its command."""
    commands = [command for command in shown(block) if is_server(command)]
    if SERVE in commands:
        # What it does once all is built.
        commands[commands.index(SERVE)] = run("make", "--no-print-directory", "-n", "serve", "ARGS=").splitlines()[-1]
    setup = [command for command in shown(block) if not is_server(command)]
    with contextlib.ExitStack() as servers:
        yield [(servers.enter_context(place.serving(command, *setup)), command) for command in commands]


def param(block: Block) -> ParameterSet:
    return pytest.param(block, marks=needs_ipv6 if "[::1]" in block.text else (), id=str(block))


@pytest.mark.parametrize("block", [*map(param, SERVERS)])
async def test_servers_answer(block: Block, place: Place) -> None:
    with started(block, place) as servers:
        for server, command in servers:
            for answer in await place.answers(server, command):
                assert answer


@pytest.mark.parametrize("block", CLIENTS, ids=str)
async def test_servers_answer_to_commands(block: Block, place: Place) -> None:
    """The servers of the block before it."""
    *_, before = [one for one in SERVERS if one.document == block.document and one.line < block.line]
    with started(before, place) as servers:
        for server, command in servers:
            await place.answers(server, command)
        for command in shown(block):
            assert place.curl(*words(place.local(command))[1:])


def test_each_block_is_run_or_marked() -> None:
    ran = {*RUN, *SERVERS, *CLIENTS, *NOTHING_LEFT}
    for document, text in DOCUMENTS.items():
        fences = re.findall(r"^ *(?:```|~~~)", text, re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(document)), f"{document} has a fence that is not one of two"
    wrongly = [f"{block} is run, and yet marked: take the comment above it away" for block in ran if block.reason]
    wrongly += [
        f"no test runs {block} (`{block.text.splitlines()[0]}`)"
        for block in BLOCKS
        if not block.reason and block not in ran
    ]
    hint = (
        f"hint: either a test of {Path(__file__).name} runs the block, by"
        ' `@runs("DOCUMENT.md", name="WHAT STANDS IN IT")` and an argument `name`,'
        " or a line above the block says why none does: <!-- not run: REASON -->"
    )
    assert not wrongly, "\n".join([*wrongly, hint])
