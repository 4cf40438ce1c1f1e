"""One Envoy process and all that belongs to it."""

import asyncio
import contextlib
import logging
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bootstrap import bootstrap
from ..config import LOG_LEVELS, Config
from ..descriptors import inherited
from ..environ import envoy_environ
from ..errors import StartupError
from ..lanes import Lane
from ..port import reason
from ..relay import Fifo
from .common import Common, writing
from .control import STACKS_SIGNAL, ControlChannel, Event
from .hot_restart import HotRestartParent
from .leash import Leash

_logger = logging.getLogger("aiovoy")


@dataclass(frozen=True, slots=True)
class Ready:
    """What is known of a server once it accepts connections."""

    python: str
    workers: int
    loop: str


class Vitals:
    """What a worker says of itself when it is asked, and for how long it has not said what it should.

    Time is counted in steps, those in which it is asked, and not by a clock: after a pause in which this process and
    its workers stood still, as when a machine sleeps, nobody is late.
    """

    def __init__(self) -> None:
        self.stuck_steps = 0
        """For how many steps it has not answered, or has said that an event loop does not turn."""
        self.trouble = ""
        """Which of it, in words."""
        self.requests = 0
        """How many have arrived since its start."""
        self._has_answered = True
        self._has_turned = True

    def step(self) -> None:
        """Another question is about to be asked."""
        fine = self._has_answered and self._has_turned
        self.stuck_steps = 0 if fine else self.stuck_steps + 1
        self.trouble = "has an event loop that does not turn" if self._has_answered else "does not respond"
        self._has_answered = False

    def answer(self, loops: list[int], requests: int) -> None:
        """`loops` says of each for how many milliseconds it has not turned since it was asked to."""
        self._has_answered = True
        # What was asked in this step may not be answered yet; what was asked in one before should be.
        self._has_turned = all(age < STEP_SECONDS * 500 for age in loops)
        self.requests = requests


class EnvoyProcess:
    """An Envoy that serves in a slot, numbered from 1. Creating it starts Envoy and returns at once.

        starting ──started──▶ waits for `listen` ──ready──▶ serves ──▶ is told to retire or stop, or dies ──▶ exited

    Nothing needs to be closed: when Envoy has exited, whatever was made for it is removed.
    """

    started: asyncio.Future[None]
    """Done when the application has started; `StartupError` if Envoy exits before."""

    ready: asyncio.Future[Ready]
    """Done when Envoy accepts connections, after `listen`; `StartupError` if it exits before."""

    exited: asyncio.Future[int]
    """Done when Envoy has exited and everything is cleaned up: its exit status, negative if a signal killed it."""

    accepts: bool
    """It has been told to listen, and has not been told to stop."""

    lane: Lane | None = None
    """Its lane, if it speaks HTTP/3."""

    def __init__(self, common: Common, slot: int, generation: int) -> None:
        """`generation` tells processes of a slot apart; `StartupError` if Envoy can't be run."""
        self._common = common
        self._loop = asyncio.get_running_loop()
        self.started, self.ready, self.exited = (self._loop.create_future() for _ in range(3))
        self.accepts = False
        self.slot = slot
        self.vitals = Vitals()
        self.is_suspected = False
        self._failure: str | None = None
        self._pause_file: Path | None = None
        self._is_paused = False
        self._killer: asyncio.TimerHandle | None = None
        with contextlib.ExitStack() as made:
            if (udp := common.listening.udp) is not None:
                self.lane = udp.take()
                made.callback(udp.give_back, self.lane)
            with writing():
                folder = common.folder.path / f"{slot}.{generation}"
                folder.mkdir(0o700)
                made.callback(shutil.rmtree, folder, ignore_errors=True)
                leash = Leash()
                made.callback(leash.take_off)
                missing = common.listening.names

                def find(name: str) -> socket.socket | None:
                    missing.discard(name)
                    if not missing:  # this is the last time that it waits for us
                        self._loop.call_soon(leash.take_off)
                    return common.listening.find(name, slot - 1, self.lane)

                parent = HotRestartParent(folder, find)
                made.callback(parent.close)
                self._loop.add_reader(parent, parent.answer)
                made.callback(self._loop.remove_reader, parent)
                control = folder / "control.sock"
                self._control = ControlChannel(control, parent.opened, self._on_event)
                made.callback(self._control.close)
            self._popen = self._run(folder, control, parent, leash, made)
            leash.tie(self._popen.pid)
            self.born = time.monotonic()
            try:
                threading.Thread(target=self._wait, name="aiovoy-wait", daemon=True).start()
            except RuntimeError as error:  # there are too many
                self._popen.kill()
                self._popen.wait()
                raise StartupError(f"cannot watch over a worker: {error}") from None
            self._made = made.pop_all()

    def _run(
        self, folder: Path, control: Path, parent: HotRestartParent, leash: Leash, made: contextlib.ExitStack
    ) -> subprocess.Popen[bytes]:
        common, config = self._common, self._common.config
        with writing(), contextlib.ExitStack() as written:
            bootstrap_file = folder / "bootstrap.yaml"
            access_log, stderr = None, common.stderr
            if common.listening.are_shared:
                self._pause_file = folder / "pause"
                self._pause_file.write_text("0")
            if common.access_log is not None:
                access_log = folder / "access.log"
                made.callback(Fifo(access_log, common.access_log).close)
            if common.log is not None:
                log = folder / "stderr"
                made.callback(Fifo(log, common.log).close)
                stderr = written.enter_context(log.open("wb"))
            document = bootstrap(
                config,
                addresses=common.listening.addresses,
                admin=folder / "admin.sock",
                python=sys.executable,
                secrets=common.secrets,
                access_log=access_log,
                pause=self._pause_file,
                lane=self.lane,
            )
            bootstrap_file.write_text(document, "utf-8")
            words = [self._title(), *envoy_arguments(config, bootstrap_file), *parent.arguments()]
            try:
                return subprocess.Popen(
                    leash.command(common.binary, words),
                    env={**envoy_environ(config, control, self.slot), **common.leftovers},
                    stdin=inherited(0),
                    stdout=common.stdout,
                    stderr=stderr,
                    pass_fds=[common.folder.fileno(), parent.fileno(), *leash.filenos()],
                )
            except OSError as error:
                raise StartupError(f"cannot run `{common.binary}`: {reason(error)}") from None

    def _title(self) -> str:
        """What `ps` shows first."""
        apps = [app for app in (self._common.config.app, *self._common.config.mount.values()) if app]
        return f"aiovoy: worker {self.slot} {apps[0]}"

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_served(self) -> bool:
        """Whether it has ever accepted connections."""
        return self.ready.done() and self.ready.exception() is None

    def listen(self) -> None:
        """Has Envoy accept connections. The application has started."""
        self.accepts = self._control.send("listen")

    def pause(self, wanted: bool) -> None:
        """Has it leave connections to others, on sockets that are shared; or not any more."""
        if self._pause_file is not None and wanted != self._is_paused:
            self._is_paused = wanted
            new = self._pause_file.with_suffix(".new")
            try:
                new.write_text(str(int(wanted)))
                new.rename(self._pause_file)  # Envoy looks when something is renamed there
            except OSError as error:
                _logger.warning("worker %d (pid %d) goes on to get connections: %s", self.slot, self.pid, reason(error))

    def examine(self) -> None:
        """Asks it to say that it is well. To be called every `STEP_SECONDS`."""
        self.vitals.step()
        self._control.send("ping")

    def explain(self) -> None:
        """Has it log what it is amid."""
        self._control.send("explain")

    def dump_stacks(self) -> None:
        """Has it write the tracebacks of all threads to standard error. What then becomes of it must not matter."""
        self._popen.send_signal(STACKS_SIGNAL)

    def resident_bytes(self) -> int:
        """The memory that it has; 0 if it has gone."""
        with contextlib.suppress(OSError):
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def shutdown(self) -> None:
        """Asks for a graceful stop: requests in flight finish, lifespan shutdown runs.

        Kills Envoy if that takes longer than all time limits of the bridge together and `SPARE_SECONDS`.
        """
        self._stop("shutdown")

    def retire(self) -> None:
        """Likewise, where another one serves already: idle connections are given time to be told to close."""
        self._stop(f"retire {self._common.config.timeout_keep_alive + 1:g}")

    def _stop(self, word: str) -> None:
        self.accepts = False
        if not self._control.send(word):
            self._popen.terminate()
        self._kill_after(graceful_seconds(self._common.config) + SPARE_SECONDS)

    def abort(self) -> None:
        """Asks for a stop at once, and kills Envoy if that takes more than `ABORT_SECONDS`."""
        self.accepts = False
        if self._control.send("abort"):
            self._kill_after(ABORT_SECONDS)
        else:
            self.kill()

    def kill(self) -> None:
        self.accepts = False
        self._popen.kill()

    def _kill_after(self, seconds: float) -> None:
        def kill() -> None:
            self.kill()  # first: a logger may wait for whom nobody knows
            _logger.error("Envoy has not ended %g s after it was asked to: killed", seconds)

        if self._killer is not None:
            self._killer.cancel()
        self._killer = self._loop.call_later(seconds, kill)

    def _on_event(self, event: Event) -> None:
        match event:
            case {"event": "started"}:
                _resolve(self.started, None)
            case {"event": "ready", "python": str(python), "workers": int(workers), "loop": str(loop)}:
                _resolve(self.ready, Ready(python, workers, loop))
            case {"event": "pong", "loops": list(loops), "requests": int(requests)}:
                self.vitals.answer(loops, requests)
            case {"event": "failed", "message": str(message)}:
                self._failure = message

    def _wait(self) -> None:
        """In a thread of its own."""
        code = self._popen.wait()
        self._loop.call_soon_threadsafe(self._on_exit, code)

    def _on_exit(self, code: int) -> None:
        self.accepts = False
        if self._killer is not None:
            self._killer.cancel()
        try:
            self._made.close()
        finally:  # somebody waits for these
            error = self._startup_error(code)
            for outcome in (self.started, self.ready):
                if not outcome.done():
                    outcome.set_exception(error)
                    outcome.exception()  # whether or not anybody else asks for it
            _resolve(self.exited, code)

    def _startup_error(self, code: int) -> StartupError:
        if self._failure is not None:
            return StartupError(self._failure, exit_code=code, reported=True)
        log = self._common.log_end.read()
        return StartupError(f"Envoy {exit_text(code)} before it was ready{log}", exit_code=code)


def _resolve(outcome: asyncio.Future[Any], result: object) -> None:
    if not outcome.done():
        outcome.set_result(result)


STEP_SECONDS = 1.0
"""How often a worker is asked whether it is well."""

ABORT_SECONDS = 2.0
SPARE_SECONDS = 4.0


def graceful_seconds(config: Config) -> float:
    """The longest that the bridge takes to end, by its own clocks: see `src/life/stop.rs` and `drain.rs`."""
    requests = 30 if config.timeout_graceful_shutdown is None else config.timeout_graceful_shutdown
    cancelled, lifespan, loops, python = 1, max(requests, 10), 10, 10
    return requests + cancelled + lifespan + loops + python


def envoy_arguments(config: Config, bootstrap_file: Path) -> list[str]:
    """Envoy's command line."""
    # Envoy's own warnings are worth reading, its news are not. Nor are those it has of the bridge while it starts: the
    # level `info` of the bridge begins after that, see `log_refusals` in `bootstrap`.
    level = min(config.log_level, "warning", key=LOG_LEVELS.index)
    bridge_level = "warning" if config.log_level == "info" else config.log_level
    # Longer than any request may take, though the bridge ends them.
    drain = math.ceil(config.timeout_graceful_shutdown or 30)
    return [
        *("-c", str(bootstrap_file)),
        *("--concurrency", "1"),
        *("--drain-strategy", "immediate"),
        *("--drain-time-s", str(drain)),
        *("--log-level", level),
        # `main` warns of the signals that stop Envoy, and repeats errors that are written to standard error anyway.
        # `misc` warns of fields of the configuration that are new.
        *("--component-log-level", f"dynamic_modules:{bridge_level},main:off,misc:error"),
        *("--log-format", "[%Y-%m-%d %T.%e] [%l] %v"),
        # The access log, if there is one: Envoy's default is ten seconds.
        *("--file-flush-interval-msec", "100"),
    ]


def exit_text(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exited with status {code}"
    return f"was killed by signal {-code}"
