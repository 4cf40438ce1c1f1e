"""The server's lines, and requests, by the handlers of Python's `logging`; and as JSON, all of them."""

import asyncio
import contextlib
import ctypes
import json
import logging
import logging.config
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from aiovoy import logs
from aiovoy.launcher.relay import paint, to_objects
from py_tests.harness.apps import Receive, Scope, Send, answer, routes
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.folders import ROOT
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.serving import Serve, Server, clean_environment, launch, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

request_id: ContextVar[str] = ContextVar("request_id", default="none")


class JsonFormatter(logging.Formatter):
    """What packages such as python-json-logger make of a record, in short."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"lvl": record.levelname, "name": record.name, "msg": record.getMessage(), "id": request_id.get()}
        if record.exc_info:
            line["exc"] = self.formatException(record.exc_info)
        return json.dumps(line)


class NoHealth(logging.Filter):
    """As people write them for uvicorn's access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not isinstance(record.args, tuple) or record.args[2:3] != ("/health",)


def dictionary(*loggers: str, **more: Any) -> dict[str, Any]:
    """A configuration that has the loggers of these names write JSON."""
    own = {"handlers": ["json"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "formatters": {"json": {"()": f"{__name__}.JsonFormatter"}},
        "filters": {"no_health": {"()": f"{__name__}.NoHealth"}},
        "handlers": {"json": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["no_health"]}},
        "loggers": {name: own for name in loggers if name},
        **({"root": {"handlers": ["json"], "level": "INFO"}} if "" in loggers else {}),
        **more,
    }


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        logging.getLogger("uvicorn.error").info("told by uvicorn's logger")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await ROUTES(scope, receive, send)


async def fails_with_a_word(_: Scope, __: Receive, send: Send) -> None:
    logging.getLogger("uvicorn.error").info("news")
    logging.getLogger("uvicorn.error").warning("a warning")
    await send({"type": "lifespan.startup.failed"})


async def health(_: Scope, __: Receive, send: Send) -> None:
    request_id.set("of the request")
    await answer(send)


async def pid(_: Scope, __: Receive, send: Send) -> None:
    await answer(send, os.getpid())


async def raises(_: Scope, __: Receive, ___: Send) -> None:
    request_id.set("of the request")
    raise RuntimeError("told \udce9 to raise")


async def unanswered(_: Scope, __: Receive, ___: Send) -> None:
    pass


async def mixed(_: Scope, __: Receive, send: Send) -> None:
    """Writes to standard error what is no JSON."""
    os.write(2, b'neither a record\n[2026-11-30 20:34:11.123] [warning] nor\t"JSON"\n{"own": 1}\n')
    await answer(send)


async def long(_: Scope, __: Receive, send: Send) -> None:
    logging.getLogger("shop").info("long " + 200_000 * "x")
    print({"no": "json"}, file=sys.stderr)
    await answer(send)


async def mistaken(_: Scope, __: Receive, send: Send) -> None:
    logging.getLogger("uvicorn.error").error("a %d", "word")
    await answer(send)


async def forks(_: Scope, __: Receive, send: Send) -> None:
    if (child := os.fork()) == 0:
        logging.getLogger("uvicorn.error").error("told by a child")
        os._exit(0)
    os.waitpid(child, 0)
    await answer(send)


async def holds_the_gil(_: Scope, __: Receive, send: Send) -> None:
    """Until there is a byte in the FIFO."""
    with open(os.environ["FIFO"], "rb", buffering=0) as fifo:
        ctypes.PyDLL(None).read(fifo.fileno(), ctypes.create_string_buffer(1), 1)
    await answer(send)


async def blocks_handlers(_: Scope, __: Receive, send: Send) -> None:
    logging.getLogger().addHandler(Blocking())
    await answer(send)


RAISED = {kind.__name__: kind for kind in (RuntimeError, SystemExit, asyncio.CancelledError)}


async def breaks_handlers(scope: Scope, _: Receive, send: Send) -> None:
    logging.getLogger().addHandler(Broken(RAISED[scope["query_string"].decode()]))
    await answer(send)


async def logs_as_the_server(_: Scope, __: Receive, send: Send) -> None:
    for name in ("aiovoy", *logs.UVICORNS):
        logging.getLogger(name).warning("told as the server")
    await answer(send)


UNBLOCKED = threading.Event()


async def unblocks_handlers(_: Scope, __: Receive, send: Send) -> None:
    UNBLOCKED.set()
    await answer(send)


class Blocking(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:  # for the application itself it is its own lock that blocks
        if record.name == "aiovoy.error":
            UNBLOCKED.wait(DEADLINE)
        return True


class Broken(logging.Handler):
    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__()
        self.kind = kind

    def handle(self, record: logging.LogRecord) -> bool:
        raise self.kind("a handler of no use")


ROUTES = routes(
    health,
    pid,
    raises,
    unanswered,
    mixed,
    long,
    mistaken,
    forks,
    holds_the_gil,
    blocks_handlers,
    unblocks_handlers,
    breaks_handlers,
    logs_as_the_server,
)


def configured(*loggers: str) -> Callable[[], Any]:
    """A factory of the application that configures `logging` itself."""

    def make() -> Any:
        logging.config.dictConfig(dictionary(*loggers, disable_existing_loggers=True))
        if "FAIL" in os.environ:
            raise RuntimeError("told to fail")
        return app

    return make


root_is_json = configured("")
uvicorns_are_json = configured("uvicorn.error", "uvicorn.access")


def added_to_uvicorns() -> Any:
    """As people add handlers and filters to uvicorn's loggers."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("added %(name)s %(message)s"))
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("uvicorn.access").addFilter(NoHealth())
    return app


def console_and_file() -> Any:
    """Text on the console, JSON in a file."""
    logging.basicConfig(level=logging.INFO, format="basic %(name)s %(message)s")
    file = logging.FileHandler(os.devnull)
    file.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(file)
    return app


def named_without_handlers() -> Any:
    logging.config.dictConfig({"version": 1, "loggers": {name: {"level": "INFO"} for name in ("aiovoy", "uvicorn")}})
    return app


def fails_to_start() -> Any:
    """Its lifespan configures `logging`, and fails."""

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        logging.config.dictConfig(dictionary(""))
        raise RuntimeError("told to fail")

    return app


def basic_config() -> Any:
    logging.basicConfig(level=logging.INFO, format="basic %(name)s %(message)s")
    return app


def sent_away() -> Any:
    """What an instrumentation does: a handler that stands for nobody's log."""
    handler = type("LoggingHandler", (logging.NullHandler,), {"__module__": "opentelemetry.sdk._logs"})()
    logging.getLogger().addHandler(handler)
    return app


def objects(text: str) -> list[dict[str, Any]]:
    """All lines, which must be objects."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(isinstance(one, dict) for one in found), text
    return found


def messages(lines: list[dict[str, Any]]) -> list[str]:
    return [line.get("msg", line.get("message", "")) for line in lines]


BAD = b"GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"


async def be_asked(server: Server) -> None:
    """Requests of all kinds; the last is refused."""
    for path in ("/health", "/raises?q=1", "/unanswered"):
        await server.get(path)
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(BAD)
        await connection.until(b"\r\n\r\n")


def json_server(serve: Serve, application: str, **options: Any) -> Server:
    options = options if application == "app" else {"factory": True, **options}
    return serve(f"{__name__}:{application}", access_log=True, **options)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Configurations for `--log-config`, in each form."""
    (tmp_path / "log.json").write_text(json.dumps(dictionary("")))
    (tmp_path / "uvicorn.yaml").write_text(json.dumps(dictionary("uvicorn", "uvicorn.access")))  # JSON is YAML
    (tmp_path / "log.ini").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=h\n[formatters]\nkeys=f\n[logger_root]\nlevel=INFO\nhandlers=h\n"
        f"[handler_h]\nclass=StreamHandler\nformatter=f\nargs=(sys.stderr,)\n[formatter_f]\nclass={__name__}.JsonFormatter\n"
    )
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.mark.parametrize("how", ["root_is_json", "uvicorns_are_json", "log.json", "uvicorn.yaml", "log.ini"])
async def test_every_line_is_json(how: str, serve: Serve, files: dict[str, Path]) -> None:
    options = {"log_config": files[how]} if how in files else {}
    server = json_server(serve, "app" if how in files else how, **options)
    await be_asked(server)
    server.signal(signal.SIGTERM)
    await server.exit_code()
    lines = objects(server.log)
    told = messages(lines)
    assert "told by uvicorn's logger" in told
    assert any(text.startswith("refused with 400") for text in told)
    assert "aiovoy running on" in server.log
    assert any(text.startswith("aiovoy stopping") for text in told)
    (raised,) = (line for line in lines if line.get("msg") == "exception in ASGI application: GET /raises")
    assert raised["name"] == "aiovoy.asgi"
    assert raised["exc"].startswith("Traceback (most recent call last):\n")
    assert raised["exc"].endswith("RuntimeError: told \udce9 to raise")
    requests = [line["msg"].partition(" - ")[2] for line in lines if line.get("name") == "aiovoy.access"]
    seen = [] if how != "log.ini" else ['"GET /health HTTP/1.1" 200']
    assert requests == [*seen, '"GET /raises?q=1 HTTP/1.1" 500', '"GET /unanswered HTTP/1.1" 500']
    assert server.output == ""


@pytest.mark.parametrize("how", ["root_is_json", "fails_to_start", "log.json"])
async def test_start_that_fails_is_json(how: str, files: dict[str, Path]) -> None:
    application, options = ("nothing", {"log_config": files[how]}) if how in files else (how, {"factory": True})
    with launch(f"{__name__}:{application}", env={"FAIL": "1"}, lifespan="on", **options) as server:
        assert await server.exit_code() == (3 if how == "fails_to_start" else 1)
    (line,) = objects(server.log)
    assert line["lvl"] == "ERROR"
    assert "told to fail" in line["msg"] if how not in files else "no attribute `nothing`" in line["msg"]


async def test_lines_of_the_launcher_are_json(serve: Serve) -> None:
    server = json_server(serve, "root_is_json", workers=2)
    os.kill(int((await server.get("/pid")).body), signal.SIGKILL)
    await eventually(lambda: "was killed by signal 9" in server.log)
    server.signal(signal.SIGTERM)
    await server.exit_code()
    (line,) = (line for line in objects(server.log) if "was killed by signal 9" in line.get("message", ""))
    assert (line["level"], line["logger"]) == ("error", "aiovoy.error")


async def test_request_is_logged_in_its_context(serve: Serve, files: dict[str, Path]) -> None:
    server = json_server(serve, "app", log_config=files["log.ini"])
    await server.get("/health")
    await eventually(lambda: '"aiovoy.access"' in server.log)
    (line,) = (line for line in objects(server.log) if line.get("name") == "aiovoy.access")
    assert line["id"] == "of the request"


async def test_format_keeps_requests_on_standard_output(serve: Serve) -> None:
    server = json_server(serve, "root_is_json", access_log_format="common")
    await server.get("/raises")
    await eventually(lambda: '"GET /raises HTTP/1.1" 500' in server.output)
    assert "aiovoy.access" not in server.log


async def test_basic_config_has_all_once(serve: Serve) -> None:
    server = json_server(serve, "basic_config")
    await be_asked(server)
    await eventually(lambda: "basic aiovoy.error refused with 400" in server.log)
    assert "basic uvicorn.error told by uvicorn's logger\n" in server.log
    assert server.log.count("told by uvicorn's logger") == 1
    assert "basic aiovoy.asgi exception in ASGI application: GET /raises\nTraceback" in server.log


async def test_handlers_that_were_added_to_uvicorns_loggers(serve: Serve) -> None:
    server = json_server(serve, "added_to_uvicorns")
    await be_asked(server)
    await eventually(lambda: "added aiovoy.error refused with 400" in server.log)
    for text in ("added uvicorn.error told by", "added aiovoy.asgi exception in", "GET /raises?q=1 HTTP"):
        assert server.log.count(text) == 1
    assert server.log.count("Traceback") == 1
    assert "GET /health" not in server.log


async def test_console_stays_text_beside_a_file_in_json(serve: Serve) -> None:
    server = json_server(serve, "console_and_file")
    await be_asked(server)
    await eventually(lambda: "basic aiovoy.error refused with 400" in server.log)
    assert "aiovoy running on" in server.log
    assert "{" not in server.log


@pytest.mark.parametrize("path", ["/mistaken", "/forks"])
async def test_records_of_the_application(path: str, serve: Serve) -> None:
    """None raises into it, and none is lost."""
    server = json_server(serve, "app")
    assert (await server.get(path)).status == 200
    text = "Message: 'a %d'" if path == "/mistaken" else "told by a child\n"
    await eventually(lambda: text in server.log)


@pytest.mark.parametrize("application", ["app", "added_to_uvicorns", "root_is_json"])
async def test_records_of_the_application_for_the_server_s_loggers(application: str, serve: Serve) -> None:
    server = json_server(serve, application)
    await server.get("/logs_as_the_server")
    await eventually(lambda: server.log.count("told as the server") == 1 + len(logs.UVICORNS))


async def test_client_cannot_end_the_quotes_of_its_path(serve: Serve) -> None:
    server = json_server(serve, "basic_config")
    await server.get('/health"?"')
    await eventually(lambda: "GET /health%22?%22 HTTP/1.1" in server.log)


@pytest.mark.parametrize("application", ["app", "sent_away", "named_without_handlers"])
async def test_without_handlers_the_server_writes(application: str, serve: Serve) -> None:
    server = json_server(serve, application)
    await be_asked(server)
    await eventually(lambda: "[info] refused with 400" in server.log)
    assert "] [info] told by uvicorn's logger\n" in server.log
    assert "] [error] exception in ASGI application: GET /raises\nTraceback" in server.log
    assert "RuntimeError: told \\udce9 to raise\n" in server.log
    await eventually(lambda: server.output.count("\n") == 4)


async def test_level_is_that_of_the_server() -> None:
    with launch(fails_with_a_word, log_level="warning") as server:
        assert await server.exit_code() == 3
    assert "[warning] a warning" in server.log
    assert "news" not in server.log


async def test_handler_that_blocks_delays_no_line_for_long(serve: Serve) -> None:
    server = json_server(serve, "root_is_json")
    await server.get("/blocks_handlers")
    await be_asked(server)
    # What does not come from the application; the first line has a second, and the others are not held up by it.
    await be_asked(server)
    await eventually(lambda: sum("refused with 400" in text for text in messages(objects(server.log))) == 2)
    assert (await server.get("/unblocks_handlers")).status == 200


@contextlib.asynccontextmanager
async def held_gil(server: Server, fifo: Path) -> AsyncIterator[Http1Connection]:
    """A request that holds it, until the end or a byte in the FIFO."""
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(b"GET /holds_the_gil HTTP/1.1\r\nhost: a\r\n\r\n")
        end = os.open(fifo, os.O_RDWR)  # who has it does not wait for the other end
        try:
            yield connection
        finally:
            os.write(end, b".")
            os.close(end)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


async def test_line_does_not_wait_for_the_gil(serve: Serve, fifo: Path) -> None:
    server = json_server(serve, "root_is_json", env={"FIFO": str(fifo)})
    async with held_gil(server, fifo):
        for number in (1, 2):
            async with await Http1Connection.open(server.port) as bad:
                await bad.write(BAD)
                await bad.until(b"\r\n\r\n")
            await eventually(lambda: server.log.count("refused with 400") == number)  # noqa: B023
    assert (await server.get("/health")).status == 200
    assert server.log.count("refused with 400") == 2
    objects(server.log)


@of_envoy("a process without workers ends by its own handler, which says nothing")
async def test_last_line_does_not_wait_for_the_gil(serve: Serve, fifo: Path) -> None:
    server = json_server(serve, "root_is_json", env={"FIFO": str(fifo)})
    async with held_gil(server, fifo):
        server.signal(signal.SIGTERM)
        await eventually(lambda: "aiovoy stopping" in server.log)
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 128 + signal.SIGTERM
    assert "second signal: ended at once" in messages(objects(server.log))


@pytest.mark.parametrize("kind", RAISED)
async def test_handler_that_raises_loses_no_line(kind: str, serve: Serve) -> None:
    """Each is written by the server then, which says once what was raised."""
    server = json_server(serve, "uvicorns_are_json")
    await server.get(f"/breaks_handlers?{kind}")
    await be_asked(server)
    await eventually(lambda: server.log.count("refused with 400") == 1)
    lines = [(line["logger"], line["message"]) for line in objects(server.log) if "message" in line]
    for logger, text in [
        ("aiovoy.access", '"GET /raises?q=1 HTTP/1.1" 500'),
        ("aiovoy.asgi", "told \\udce9 to raise"),
        ("aiovoy.error", "refused with 400"),
    ]:
        assert [name for name, message in lines if text in message and "logging has failed" not in message] == [logger]
        assert any(name == logger and "a handler of no use" in message for name, message in lines)
    assert (await server.get("/health")).status == 200


@of_envoy("a process without workers has no launcher")
def test_pipe_that_nobody_reads_keeps_nobody(files: dict[str, Path]) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(theirs, 4096 * b"."):
            pass
    os.set_blocking(theirs, True)
    name = ["--log-config", str(files["log.json"]), f"{__name__}:nothing", "--app-dir", str(ROOT), "--port", "0"]
    process = subprocess.Popen([sys.executable, "-m", "aiovoy", *name], stderr=theirs, env=clean_environment())
    try:
        assert process.wait(2 * DEADLINE) == 1
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


@of_envoy("a process without workers has its standard error for itself")
def test_all_that_is_written_to_a_pipe_is_json(tmp_path: Path) -> None:
    """Also what Envoy, libraries and `print` write; with a configuration of the application's from that on."""
    name = f"{__name__}:root_is_json"
    command = [sys.executable, "-m", "aiovoy", name, "--factory", "--app-dir", str(ROOT), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=clean_environment(), text=True, cwd=tmp_path)
    assert process.stderr is not None
    try:
        lines: list[dict[str, Any]] = []
        for line in process.stderr:
            lines.append(json.loads(line))
            if "running on" in line:
                break
        port = lines[-1]["message"].partition("127.0.0.1:")[2].partition(" ")[0]
        for path in ("mixed", "long"):
            url = f"http://127.0.0.1:{port}/{path}"
            subprocess.run(["curl", "-s", url], check=True, stdout=subprocess.DEVNULL)
        process.send_signal(signal.SIGTERM)
        lines += objects(process.stderr.read())
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.communicate()
    told = [(line.get("logger"), line.get("level"), line.get("message")) for line in lines]
    assert ("stderr", "info", "neither a record") in told
    assert ("envoy", "warning", 'nor\t"JSON"') in told
    assert ("stderr", "info", "{'no': 'json'}") in told
    assert {"own": 1} in lines
    assert "long " + 200_000 * "x" in messages(lines)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("broken.json", "{", "Expecting property name"),
        ("empty.yaml", "", "cannot be applied: it is no dictionary, but a NoneType\n"),
        ("list.json", '["h"]', "cannot be applied: it is no dictionary, but a list\n"),
        ("formless.ini", "[loggers]\nkeys=root\n", "cannot be applied: there is no 'formatters'\n"),
        ("classless.json", '{"version": 1, "handlers": {"h": {"class": "gone.Handler"}}}', "No module named 'gone'"),
        ("broken.ini", "[x", "cannot be applied: "),
    ],
)
async def test_configuration_that_is_none(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with launch(f"{__name__}:app", log_config=path) as server:
        assert await server.exit_code() == 2
    assert f"Error: `--log-config` of `{path}` cannot be applied: " in server.log
    assert message in server.log
    assert "Traceback" not in server.log


def test_lines_become_objects() -> None:
    text = b'[2026-11-30 20:34:11.123] [error] a "b"\\\n\xff\n\n{"a": 1}\n{"a": NaN}\nlast'
    lines = [json.loads(line) for line in to_objects(text).splitlines()]
    assert [line.get("logger") for line in lines] == ["envoy", "stderr", None, "stderr", "stderr"]
    assert lines[0]["level"], lines[0]["message"] == ("error", 'a "b"\\')
    assert lines[1]["message"] == "\\xff"
    assert lines[2] == {"a": 1}


def test_status_is_painted() -> None:
    line = b'127.0.0.1 - - [30/Nov/2026:20:57:24 +0000] "GET / HTTP/1.1" 404 2 "-" "curl 200"\n'
    assert paint(line).replace(b"\x1b[33m404\x1b[0m", b"404") == line
    assert b"\x1b[33m404" in paint(line)


def test_handlers_are_found() -> None:
    logger = logging.getLogger("aiovoy.error")
    handler = logging.NullHandler(logging.ERROR)
    logger.addHandler(handler)
    try:
        assert handler in logs.takers(logger, logging.ERROR)
        assert handler not in logs.takers(logger, logging.INFO)
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("options", "env", "line"),
    [
        ([], {}, rb'"GET /health HTTP/1.1" \x1b[32m200\x1b[0m 0'),
        ([], {"NO_COLOR": "1"}, rb'"GET /health HTTP/1.1" 200 0'),
        (["--no-access-log"], {}, b""),
    ],
)
def test_terminal(options: list[str], env: dict[str, str], line: bytes) -> None:
    """Has requests and colours unless it is said otherwise."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "aiovoy", f"{__name__}:app", "--app-dir", str(ROOT), "--port", "0", *options]
    environment = {**clean_environment(), "TERM": "xterm", **env}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        shown = _until(ours, rb"http://127.0.0.1:(\d+) ")
        port = shown.rpartition(b"http://127.0.0.1:")[2].partition(b" ")[0].decode()
        for path in ("health", "raises"):
            subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/{path}"], check=True)
        process.send_signal(signal.SIGTERM)
        shown += _until(ours, None)
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert line.replace(rb"\x1b", b"\x1b") in shown
    assert (b'"GET /raises HTTP/1.1"' in shown) == bool(line)
    assert (b"[\x1b[31merror\x1b[0m] exception in ASGI application" in shown) == ("NO_COLOR" not in env)


def _until(terminal: int, pattern: bytes | None) -> bytes:
    """What comes from `terminal` until there is `pattern`, or until its end."""
    shown = b""
    while pattern is None or not re.search(pattern, shown):
        ready, _, _ = select.select([terminal], [], [], DEADLINE)
        assert ready, shown
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # nobody has the other end
            break
    return shown
