"""A server while it runs: start-up time, processor time, and its end. From `/proc`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.cases import Transport
from harness.client import answers
from harness.memory import resident_bytes
from harness.servers import APPS, Place, Server, ServerUnavailableError, free_port
from harness.tls import certificate

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0

# Between two tries of a starting server: the start-up time is exact to this.
START_POLL = 0.002


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    session: int
    # User and system time, with that of children that ended and were waited for.
    ticks: int
    # Since boot; with the pid it names a process for good.
    started: int
    # It has only not been waited for.
    ended: bool


def parse_stat(text: str) -> Process:
    """The line in `/proc/PID/stat`. The second field is the name, and may hold anything."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Process(
        pid=int(head.split(" ", 1)[0]),
        parent=int(fields[1]),
        session=int(fields[3]),
        ticks=sum(map(int, fields[11:15])),
        started=int(fields[19]),
        ended=fields[0] in "ZX",
    )


def processes() -> dict[int, Process]:
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            # One that ends meanwhile is one we did not see.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                process = parse_stat(Path("/proc", entry, "stat").read_text(errors="replace"))
                found[process.pid] = process
    return found


def tree(root: int, among: Mapping[int, Process]) -> list[Process]:
    """`root`, its descendants, and what is left of its session where a parent has ended."""
    members = {pid for pid, process in among.items() if pid == root or process.session == root}
    grown = True
    while grown:
        more = {pid for pid, process in among.items() if process.parent in members} - members
        members |= more
        grown = bool(more)
    return [among[pid] for pid in sorted(members)]


def machine_busy_seconds() -> float:
    """Processor time that all processes took since boot; not that stolen from this machine."""
    user, nice, system = Path("/proc/stat").read_text().split(None, 4)[1:4]
    return (int(user) + int(nice) + int(system)) / TICKS_PER_SECOND


class RunningServer:
    """A server process with everything under it, in a session of its own.

    As a context manager it stops the server on leaving.
    """

    def __init__(
        self,
        server: Server,
        app: str,
        path: str,
        transport: Transport = "tcp",
        patience: float = START_TIMEOUT,
    ) -> None:
        """Starts `server` on `app`; returns when it has answered a request for `path`, `patience` seconds at most."""
        self.name = server.name
        self.port = free_port()
        self.secure = transport == "tls"
        self.directory = tempfile.TemporaryDirectory(prefix=f"bench-{server.name}-")
        directory = Path(self.directory.name)
        uds = directory / "server" if transport == "uds" else None
        # Where requests go: to the port, or to the Unix domain socket.
        self.place = self.port if uds is None else uds
        tls = certificate() if self.secure else None
        place = Place(app=app, port=self.port, directory=directory, uds=uds, tls=tls)
        self.log = place.directory / "log"
        command = server.command(place)
        begin = time.perf_counter()
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    command,
                    cwd=APPS,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            self.directory.cleanup()
            raise ServerUnavailableError(f"cannot run `{command[0]}`: {error.strerror}") from error
        try:
            self.wait_until_answering(path, begin + patience)
            self.startup_seconds = time.perf_counter() - begin
        except BaseException:
            self.stop()
            raise

    def wait_until_answering(self, path: str, deadline: float) -> None:
        while not answers(self.place, path, self.secure):
            self.check_alive()
            if time.perf_counter() > deadline:
                raise ServerUnavailableError(f"no answer in time\n{self.last_words()}")
            time.sleep(START_POLL)

    def check_alive(self) -> None:
        status = self.process.poll()
        if status is not None:
            raise ServerUnavailableError(f"ended with status {status}\n{self.last_words()}")

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def cpu_seconds(self) -> float:
        ticks = sum(process.ticks for process in tree(self.process.pid, processes()))
        return ticks / TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        members = tree(self.process.pid, processes())
        return resident_bytes(process.pid for process in members)

    def stop(self) -> None:
        """Asks the server to end, then ends whatever of it is left."""
        members = tree(self.process.pid, processes())
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT)
        now = processes()
        left = {process.pid for process in tree(self.process.pid, now)}
        for member in members:
            # Not another one that has got the pid meanwhile.
            if member.pid in now and now[member.pid].started == member.started:
                left.add(member.pid)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + STOP_TIMEOUT
        while any(pid in left and not process.ended for pid, process in processes().items()):
            if time.monotonic() > deadline:
                break
            time.sleep(START_POLL)
        self.directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
