"""The server under test, started as its users start it: a process of its own, on a free port."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import Response
from py_tests.harness.folders import ROOT
from py_tests.harness.http1 import Http1Connection

# uvicorn is what frameworks are written for: where the ASGI specification leaves a thing open, its
# answer is the one to give. The suite can run against it, and some tests compare the two.
AIOVOY, UVICORN = "aiovoy", "uvicorn"
UNDER_TEST = os.environ.get("AIOVOY_TEST_SERVER", AIOVOY)

# What applications and clients see is the same on both of aiovoy's response paths.
DIRECT, ROUTER = "direct", "router"
RESPONSE_PATH = os.environ.get("AIOVOY_TEST_RESPONSE_PATH", DIRECT)

# And without Envoy: `aiovoy upstream`, which speaks HTTP/1.1 and HTTP/2 without TLS.
ENVOY, OWN = "envoy", "upstream"
FRONT = os.environ.get("AIOVOY_TEST_FRONT", ENVOY)

# Ending by the signal's own default is uvicorn's way since 0.30; ours is exit code 0.
GOOD_ENDS = {AIOVOY: {0}, UVICORN: {0, -signal.SIGTERM, -signal.SIGINT}}

BANNER = re.compile(r"running on (?:unix:\S+|(https?)://\S+:(\d+)) (?:and https://\S+:(\d+) )?", re.IGNORECASE)

# What must never stand in a server's log, whatever the test did to it.
CRASHES = re.compile(r"panicked at|Segmentation fault|assert failure|Fatal Python error|envoy bug")

RECENT: list["Server"] = []
"""Servers of the running test, for the report of its failure."""


def unlike_uvicorn(reason: str) -> pytest.MarkDecorator:
    """For tests of what the specification wants and uvicorn does not do."""
    return pytest.mark.skipif(UNDER_TEST == UVICORN, reason=reason)


def of_envoy(reason: str) -> pytest.MarkDecorator:
    """For tests of what is Envoy's, and not there without it."""
    return pytest.mark.skipif(FRONT == OWN, reason=reason)


class Server:
    """A server process. Its log is what it wrote to stderr, its output what it wrote to stdout."""

    def __init__(
        self,
        command: list[str],
        kind: str,
        cwd: Path,
        env: Mapping[str, str],
        stdout: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.kind = kind
        self.port = 0
        self.ssl_port = 0
        self._log, self._output = _Written(), _Written()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**clean_environment(), **env},
            stdin=subprocess.DEVNULL,
            stdout=self._output.file if stdout is None else stdout,
            stderr=self._log.file,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        # The test that waited for the end, and so expected it, answers for the exit code.
        self.code: int | None = None
        self.told_to_stop = False
        self.mark = 0

    @property
    def log(self) -> str:
        return self._log.text()

    @property
    def fresh_log(self) -> str:
        """The log since the running test began."""
        return self.log[self.mark :]

    @property
    def output(self) -> str:
        return self._output.text()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def started(self) -> bool:
        """True once the banner is out; the port is known from then on."""
        # uvicorn writes its banner to stderr, too.
        if banner := BANNER.search(self.log):
            scheme, port, ssl_port = banner.groups()
            self.port = int(port or 0)
            self.ssl_port = int(ssl_port or (port if scheme == "https" else 0))
        elif self.process.poll() is not None:
            raise ServerEnded(self)
        return bool(banner)

    def wait_until_started(self) -> None:
        # It imports frameworks, and several may start at a time.
        end = time.monotonic() + 3 * DEADLINE
        while not self.started():
            if time.monotonic() > end:
                raise TimeoutError(f"no banner after {3 * DEADLINE} s:\n{self.log}")
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        """Tells the server to stop; a second time to stop at once."""
        self.told_to_stop = True
        self.process.send_signal(number)

    async def exit_code(self, within: float = DEADLINE) -> int:
        """Waits for the server's end."""
        await eventually(lambda: self.process.poll() is not None, within)
        self.code = self.process.returncode
        return self.code

    def processes(self) -> list[psutil.Process]:
        """The server's process and all below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.pid)
            return [top, *top.children(recursive=True)]
        return []

    def memory(self) -> int:
        """Resident bytes of the whole process tree."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    async def get(self, path: str) -> Response:
        """One request on a connection of its own."""
        async with await Http1Connection.open(self.port) as connection:
            return await connection.get(path)

    async def notes(self, key: str) -> list[Any]:
        """What the application noted at requests with the query string `key`."""
        notes: list[Any] = (await self.get(f"/notes?{key}")).json()
        return notes

    async def noted(self, key: str, *awaited: Any) -> list[Any]:
        """Waits until each of `awaited` is among the notes; gives all notes."""
        seen: list[Any] = []

        async def all_there() -> bool:
            seen[:] = await self.notes(key)
            return all(one in seen for one in awaited)

        try:
            await eventually(all_there)
        except TimeoutError:
            raise TimeoutError(f"waited for {awaited}, noted were {seen}") from None
        return seen

    def stop(self) -> None:
        """Ends a server that no test has ended: it must exit as promised and leave nothing behind."""
        processes = self.processes()
        try:
            if self.code is None:
                if self.process.poll() is not None:
                    raise ServerEnded(self)
                if not self.told_to_stop:
                    self.process.terminate()
                try:
                    code = self.process.wait(DEADLINE)
                except subprocess.TimeoutExpired:
                    raise TimeoutError(f"alive {DEADLINE} s after SIGTERM:\n{self.log}") from None
                assert code in GOOD_ENDS[self.kind], f"exit code {code}:\n{self.log}"
                _, alive = psutil.wait_procs(processes, timeout=DEADLINE)
                assert not alive, f"left behind: {alive}"
            assert not CRASHES.search(self.log), self.log
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()
            self._log.close()
            self._output.close()


class ServerEnded(Exception):
    def __init__(self, server: Server) -> None:
        self.server = server
        super().__init__(f"exit code {server.process.returncode}, log:\n{server.log}")


class _Written:
    """A file that the server writes to; its text outlives it."""

    def __init__(self) -> None:
        # Closed by `close`.
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self._last = ""

    def text(self) -> str:
        if not self.file.closed:
            size = os.fstat(self.file.fileno()).st_size
            self._last = os.pread(self.file.fileno(), size, 0).decode(errors="replace")
        return self._last

    def close(self) -> None:
        self.text()
        self.file.close()


def clean_environment() -> dict[str, str]:
    """This process's environment without what would configure a server behind the test's back."""
    return {name: value for name, value in os.environ.items() if not re.match("AIOVOY_|WEB_CONCURRENCY$", name)}


def import_string(app: str | Callable[..., Any]) -> str:
    return app if isinstance(app, str) else f"{app.__module__}:{app.__qualname__}"


def command(app: str | Callable[..., Any], kind: str = UNDER_TEST, front: str = FRONT, **options: Any) -> list[str]:
    """The command line: `port=8000` becomes `--port 8000`, True `--name`, False `--no-name`, and a list repeats it."""
    words = [sys.executable, "-m", kind, import_string(app)]
    if kind == AIOVOY and front == OWN:
        words.insert(3, OWN)
    elif kind == AIOVOY:
        options = {"response_path": RESPONSE_PATH, **options}
    for name, value in {"port": 0, "app_dir": ROOT, **options}.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
        elif value is False:
            words.append(option.replace("--", "--no-", 1))
        elif value is not None:
            for one in value if isinstance(value, list) else [value]:
                words += [option, str(one)]
    return words


@contextlib.contextmanager
def launch(
    app: str | Callable[..., Any],
    *,
    kind: str = UNDER_TEST,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    through: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    **options: Any,
) -> Iterator[Server]:
    """Starts a server and does not wait for it; stopped and checked at the end, if it still runs.

    `app` is an import string, or a function or class of a test module. `options` are those of the
    command line; `env` is added to the environment. What it writes to standard output goes to the
    descriptor `stdout`, if there is one. It inherits `pass_fds`. `through` are the words of a command that
    runs the one that follows them in its own place.
    """
    server = Server([*through, *command(app, kind, **options)], kind, cwd, env or {}, stdout, pass_fds)
    RECENT.append(server)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def serve(app: str | Callable[..., Any], **options: Any) -> Iterator[Server]:
    """As `launch`, and waits until the server accepts connections."""
    with launch(app, **options) as server:
        server.wait_until_started()
        yield server


Serve = Callable[..., Server]
"""The fixture `serve`."""
