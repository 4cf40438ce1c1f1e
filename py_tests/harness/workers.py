"""A server with its worker processes, seen from outside: which there are, who answers, what its end leaves behind."""

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from py_tests.harness.certificates import Pair
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.load import Load
from py_tests.harness.load_app import Event, app, journal
from py_tests.harness.serving import ENVOY, FRONT, OWN, Server, ServerEnded, launch

# --- What the operator sees ---

KILLED = r"worker {number}\b.*(signal 9|SIGKILL|killed)"
EXITED = r"worker {number}\b.*\b{code}\b"
REPLACED = r"worker {number}\b.*(replace|in place of)"
MENTIONED = r"worker {number}\b"
"""Patterns of lines on standard error, case aside: the worker's number and the words that matter, nothing more."""

FIRST_WORKER = 1
"""Workers are counted from here on, in `AIOVOY_WORKER` and in what the operator sees."""

# --- How clients get to the server ---

TCP, TLS, UDS, FD, SYSTEMD = "tcp", "tls", "uds", "fd", "systemd"
"""A port, in the clear or under TLS; the path of a Unix domain socket; a socket that is there before the server, named
by `--fd` or as systemd does it."""

TRANSPORTS = [transport for transport in (TCP, TLS, UDS, FD, SYSTEMD) if FRONT == ENVOY or transport != TLS]
"""Those that tests run with: all cases of the long version, and what of the short one names them."""

SHARED = {UDS, FD, SYSTEMD}
"""Those where all workers have one socket. Who of them is idle takes what comes, so one may have nothing to do."""

# As systemd starts a service with a socket: descriptor 3, and the id of the process that it is meant for.
_SYSTEMD = """
import os, sys
given = int(sys.argv[1])
if given != 3:
    os.dup2(given, 3)
    os.close(given)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""

# --- How long a test is ---

SOAK = os.environ.get("AIOVOY_TEST_SOAK") == "1"
"""The long version of the tests: `make soak-workers`."""


def rounds(short: int, long: int = 20) -> int:
    """How often a test does what it is about."""
    return long if SOAK else short


def cases(short: Iterable[tuple[int, str]], numbers: Iterable[int] = (1, 2, 4)) -> list[tuple[int, str]]:
    """Numbers of workers with transports, for a test to run with: all of them in the long version."""
    if SOAK:
        return [(number, transport) for transport in TRANSPORTS for number in numbers]
    return [(number, transport) for number, transport in short if transport in TRANSPORTS]


@dataclass
class Workers:
    """A server of `load_app`, and its workers: processes below its launcher."""

    server: Server
    path: Path | None
    """Of the Unix domain socket."""
    tls: bool

    def pids(self) -> set[int]:
        """The workers that run now, whether they are ready or not."""
        if self.server.process.poll() is not None:
            raise ServerEnded(self.server)
        found = set()
        for child in psutil.Process(self.server.pid).children():
            # One that has ended by now has no executable any more.
            with contextlib.suppress(psutil.Error):
                if _is_worker(child):
                    found.add(child.pid)
        return found

    def tell(self, number: int) -> None:
        """Sends a signal that does not end the server."""
        self.server.process.send_signal(number)

    async def become(self, number: int, without: Iterable[int] = (), within: float = 3 * DEADLINE) -> set[int]:
        """Waits until so many workers run and none of `without` does; gives those that do."""
        gone = set(without)

        def right() -> set[int]:
            pids = self.pids()
            return pids if len(pids) == number and not gone & pids else set()

        return await eventually(right, within)

    async def replaced(self, old: set[int]) -> set[int]:
        """Waits until there are as many others, and `old` have gone."""
        return await self.become(len(old), old, within=2 * DEADLINE * len(old))

    def wait_until_all_serve(self) -> None:
        """After the banner: the port opens without those that take much longer to start than the first one did."""
        end = time.monotonic() + 3 * DEADLINE
        while len(pids := self.pids()) > 1 and not all(self.lines(rf"\(pid {pid}\) serves") for pid in pids):
            if time.monotonic() > end:
                raise TimeoutError(self.server.log)
            time.sleep(0.01)

    async def answer(self) -> None:
        """Waits until each worker that runs now has answered a new connection."""
        async with self.load(short=8, slow=0, keep_alive=0, paced=0, http2=0, websockets=0) as load:
            await eventually(lambda: self.pids() <= set(load.served), within=3 * DEADLINE)
        assert not load.failures, load.report()

    def load(self, **clients: Any) -> Load:
        return Load(self.path or self.server.ssl_port or self.server.port, tls=self.tls, **clients)

    def lines(self, pattern: str, number: int | str = r"\d+", **words: Any) -> list[str]:
        """What the server has said of worker `number`, or of any."""
        wanted = re.compile(pattern.format(number=number, **words), re.IGNORECASE)
        return [line for line in self.server.log.splitlines() if wanted.search(line)]

    async def said(self, pattern: str, number: int | str = r"\d+", *, times: int = 1, **words: Any) -> None:
        """Waits until there are so many such lines."""
        try:
            await eventually(lambda: len(self.lines(pattern, number, **words)) >= times)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.server.log}") from None


def _is_worker(child: psutil.Process) -> bool:
    if FRONT == OWN:
        return any(word.endswith("/upstream/worker.py") for word in child.cmdline())
    return Path(child.exe()).name.startswith("envoy")


_SEGMENT = r"envoy_shared_memory_\d+"


@dataclass
class Site:
    """Where the servers of one test run, so that what they leave behind can be seen."""

    folder: Path
    pair: Pair
    sessions: list[int] = field(default_factory=list)
    """Each server leads a session, in which its processes stay whoever their parents are."""

    def __post_init__(self) -> None:
        self.tmp = self.folder / "tmp"
        self.tmp.mkdir()
        self.steering = self.folder / "app"
        self.steering.mkdir()  # of the application: see `load_app`
        self.path = self.folder / "aiovoy.sock"
        self.segments = _segments()

    @contextlib.contextmanager
    def workers(
        self,
        number: int | str | None = None,
        transport: str = TCP,
        *,
        served: str | Callable[..., Any] = app,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Iterator[Workers]:
        """Starts a server and does not wait for it. One worker is what it has without being told.

        `served` is another application that does what `load_app` does.
        """
        options = {"timeout_graceful_shutdown": 10, **options}
        asked = {**os.environ, **(env or {})}
        if number not in (None, 1):
            options["workers"] = number
        elif FRONT == OWN and not any(asked.get(name) for name in ("AIOVOY_WORKERS", "WEB_CONCURRENCY")):
            options["workers"] = 1  # without, the server is one process that nobody replaces
        env = {"TMPDIR": str(self.tmp), "LOAD_APP_FOLDER": str(self.steering), **(env or {})}
        with contextlib.ExitStack() as running:
            with self._reached_by(transport) as more:
                server = running.enter_context(launch(served, env=env, **{**options, **more}))
            self.sessions.append(server.pid)
            yield Workers(server, self.path if transport == UDS else None, transport == TLS)

    @contextlib.contextmanager
    def _reached_by(self, transport: str) -> Iterator[dict[str, Any]]:
        """The options of a server; a socket that is given to it is closed here once the server has it."""
        if transport == TLS:
            yield self.pair.options
        elif transport == UDS:
            yield {"uds": self.path, "port": None}
        elif transport == TCP:
            yield {}
        else:
            with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
                given = listener.fileno()
                options: dict[str, Any] = {"port": None, "pass_fds": [given]}
                if transport == FD:
                    yield options | {"fd": given}
                else:
                    yield options | {"through": [sys.executable, "-c", _SYSTEMD, str(given)]}

    def write(self, name: str, text: str = "") -> None:
        """Makes a file that steers the application."""
        (self.steering / name).write_text(text)

    def remove(self, name: str) -> None:
        (self.steering / name).unlink()

    def events(self, what: str, pids: Iterable[int] | None = None) -> list[Event]:
        """What the application's journal tells, of these processes or of all."""
        return [event for event in journal(self.steering) if event.what == what and (pids is None or event.pid in pids)]

    async def event(
        self, what: str, *, number: int = 1, but: Iterable[int] = (), within: float = 3 * DEADLINE
    ) -> list[Event]:
        """Waits until so many processes besides those of `but` have written this; gives what they have."""
        others = set(but)

        def written() -> list[Event]:
            found = [event for event in self.events(what) if event.pid not in others]
            return found if len(found) >= number else []

        return await eventually(written, within)

    def processes(self) -> list[int]:
        """Those of all servers that run still."""
        return [process.pid for process in psutil.process_iter() if self._runs(process)]

    def _runs(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            return os.getsid(process.pid) in self.sessions and process.status() != psutil.STATUS_ZOMBIE
        return False

    def files(self) -> list[str]:
        """What is left where servers keep their own files."""
        left = [path.name for path in self.tmp.iterdir()]
        return [*left, self.path.name] if self.path.exists() else left

    def new_segments(self) -> set[str]:
        """Shared memory that was not there before, and that no server of somebody else's uses. One that starts has some
        for a moment that nobody uses."""
        new = _segments() - self.segments
        if new:
            for process in psutil.process_iter():
                with contextlib.suppress(OSError):
                    if not self._runs(process):
                        new -= _used(process.pid)
        return new

    async def nothing_is_left(self) -> None:
        await eventually(lambda: not self.processes())
        await eventually(lambda: not self.files())
        await eventually(lambda: not self.new_segments())


def _segments() -> set[str]:
    """What Envoys share with their successors."""
    return {path.name for path in Path("/dev/shm").iterdir() if re.fullmatch(_SEGMENT, path.name)}


def _used(pid: int) -> set[str]:
    return set(re.findall(_SEGMENT, Path(f"/proc/{pid}/maps").read_text()))
