"""aiovoy, with its Envoy or without one, under callgrind: how many instructions each thread takes in user space."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

from harness.process import RunningServer, processes, tree
from harness.servers import APPS, Place, Server, ServerUnavailableError, installed_envoy

# Debian package of each program.
TOOLS = {"valgrind": "valgrind", "vgdb": "valgrind", "h2load": "nghttp2-client"}

# Seconds for a start, and for a word to valgrind, which is some fifty times as slow as the processor.
PATIENCE = 180.0

# All threads in turn: else those that wait for valgrind's lock starve.
OPTIONS = ["--quiet", "--tool=callgrind", "--separate-threads=yes", "--fair-sched=yes", "--instr-atstart=no"]


@dataclass(frozen=True)
class Instructions:
    """Of the Envoy worker, or the network thread, of our own code on it, of the loop thread, and of all others."""

    worker: float
    bridge: float
    loop: float
    others: float

    @property
    def total(self) -> float:
        return self.worker + self.loop + self.others

    def each_above(self, less: Self, requests: int) -> Instructions:
        """What each of the `requests` took that these have more than `less`."""
        pairs = zip(astuple(self), astuple(less), strict=True)
        return Instructions(*((more - fewer) / requests for more, fewer in pairs))


class Counters:
    """The counters of a server that runs under callgrind."""

    def __init__(self, running: RunningServer) -> None:
        self.port = running.port
        self.directory = Path(running.directory.name)
        members = tree(running.process.pid, processes())
        programs = {member.pid: Path(f"/proc/{member.pid}/exe").resolve().name for member in members}
        pids = [pid for pid, program in programs.items() if program.startswith("callgrind")]
        if len(pids) != 1:
            raise ServerUnavailableError(f"expected one process under callgrind, found {len(pids)}")
        self.pid = pids[0]
        self.tell("instrumentation on")

    def count(self, load: Callable[[], None]) -> Instructions:
        """The instructions that are taken while `load` runs."""
        self.tell("zero")
        load()
        self.tell("dump")
        files = sorted(self.directory.glob("costs.*-*"))
        threads = [costs(file.read_text(errors="replace").splitlines()) for file in files]
        for file in files:
            file.unlink()
        return by_role(threads)

    def tell(self, command: str) -> None:
        subprocess.run(
            ["vgdb", f"--pid={self.pid}", *command.split()],
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )


def server(options: tuple[str, ...], with_envoy: bool) -> Server:
    """aiovoy under callgrind, at first without counting."""

    def valgrind(place: Place) -> list[str]:
        return ["valgrind", *OPTIONS, f"--callgrind-out-file={place.directory / 'costs'}"]

    # With random hashes the same keys collide in one process and not in another.
    environ = ["env", "PYTHONHASHSEED=0"]

    def without(place: Place) -> list[str]:
        fixed = ["--port", str(place.port), "--app-dir", str(APPS)]
        python = [sys.executable, "-m", "aiovoy", "upstream"]
        return [*environ, *valgrind(place), *python, *fixed, *options, place.app]

    if not with_envoy:
        return Server("upstream", without, Path(sys.prefix))
    envoy = installed_envoy()

    def command(place: Place) -> list[str]:
        counted = [*valgrind(place), envoy]
        wrapper = place.directory / "envoy"
        # The launcher asks Envoy for its versions first.
        asked = f'case "$1" in *version) exec {shlex.quote(envoy)} "$@";; esac'
        wrapper.write_text(f'#!/bin/sh\n{asked}\nexec {shlex.join(counted)} "$@"\n')
        wrapper.chmod(0o755)
        fixed = f"--port {place.port} --app-dir {APPS} --envoy {wrapper} --timeout-worker-healthcheck 0"
        return [*environ, sys.executable, "-m", "aiovoy", *shlex.split(fixed), *options, place.app]

    return Server("aiovoy", command, Path(sys.prefix))


def missing_tools() -> list[str]:
    """Debian packages to install, of the programs that are not here."""
    return sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})


NAME = re.compile(r"ob=\((\d+)\)(?: (.*))?")


def costs(lines: Iterable[str]) -> Counter[str]:
    """The instructions of one thread by the file that they lie in, of a dump of callgrind.

    See "Callgrind Format Specification" of Valgrind's manual.
    """
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    here = ""
    called = False
    for line in lines:
        if match := NAME.match(line):
            number, name = match.groups()
            if name is not None:
                names[number] = name
            here = names[number]
        elif line.startswith("calls="):
            # The next line is what the called function took, which stands with that function.
            called = True
        elif line[:1].isdigit() or line[:1] in "+-*":
            if not called:
                # A cost of zero may be left out.
                found[here] += sum(map(int, line.split()[1:]))
            called = False
        elif line.startswith("cob=") and (match := NAME.match(line[1:])):
            number, name = match.groups()
            if name is not None:
                names[number] = name
    return found


def by_role(threads: Iterable[Counter[str]]) -> Instructions:
    """Python, and its loop, run on the loop thread alone; of the others the worker is the busiest."""
    loop = worker = others = bridge = 0
    for thread in sorted(threads, key=lambda thread: thread.total(), reverse=True):
        if any("/uvloop/" in name for name in thread):
            loop += thread.total()
        elif not worker:
            worker = thread.total()
            bridge = sum(cost for name, cost in thread.items() if "/bridge." in name or "/network." in name)
        else:
            others += thread.total()
    return Instructions(worker, bridge, loop, others)
