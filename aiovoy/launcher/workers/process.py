"""One worker process and all that belongs to it."""

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import StartupError
from ..lanes import Lane
from ..relay import Fifo
from .common import Common, writing
from .control import STACKS_SIGNAL, ControlChannel, Event

_logger = logging.getLogger("aiovoy.error")


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


class Process(ABC):
    """A process that serves in a slot, numbered from 1. Creating it starts it and returns at once.

        starting ──started──▶ waits for `listen` ──ready──▶ serves ──▶ is told to retire or stop, or dies ──▶ exited

    Nothing needs to be closed: when it has exited, whatever was made for it is removed.
    """

    started: asyncio.Future[None]
    """Done when the application has started; `StartupError` if the process exits before."""

    ready: asyncio.Future[Ready]
    """Done when the process accepts connections, after `listen`; `StartupError` if it exits before."""

    exited: asyncio.Future[int]
    """Done when it has exited and everything is cleaned up: its exit status, negative if a signal killed it."""

    accepts: bool
    """It has been told to listen, and has not been told to stop."""

    lane: Lane | None = None
    """Its lane, if it speaks HTTP/3."""

    def __init__(self, common: Common, slot: int, generation: int) -> None:
        """`generation` tells processes of a slot apart; `StartupError` if there can be none."""
        self._common = common
        self._loop = asyncio.get_running_loop()
        self.started, self.ready, self.exited = (self._loop.create_future() for _ in range(3))
        self.accepts = False
        self.slot = slot
        self.vitals = Vitals()
        self.is_suspected = False
        self._failure: str | None = None
        self._is_paused = False
        self._requests: Fifo | None = None
        self._killer: asyncio.TimerHandle | None = None
        with contextlib.ExitStack() as made:
            with writing():
                self._folder = common.folder.path / f"{slot}.{generation}"
                self._folder.mkdir(0o700)
                made.callback(shutil.rmtree, self._folder, ignore_errors=True)
                control = self._folder / "control.sock"
                self._control = ControlChannel(control, self._on_connect, self._on_event)
                made.callback(self._control.close)
            self._popen = self._start(control, made)
            self.born = time.monotonic()
            try:
                threading.Thread(target=self._wait, name="aiovoy-wait", daemon=True).start()
            except RuntimeError as error:  # there are too many
                self._popen.kill()
                self._popen.wait()
                raise StartupError(f"cannot watch over a worker: {error}") from None
            self._made = made.pop_all()

    @abstractmethod
    def _start(self, control: Path, made: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        """Starts it, which connects to `control`. What is `made` for it is removed after its end."""

    @abstractmethod
    def _on_connect(self) -> None:
        """It has connected."""

    @abstractmethod
    def _pause(self, wanted: bool) -> None:
        """Has it leave connections to others, on sockets that are shared; or not any more."""

    def _access_log(self, made: contextlib.ExitStack) -> Path | None:
        """Where it is to write the access log, if there is one."""
        if self._common.access_log is None:
            return None
        path = self._folder / "access.log"
        self._requests = Fifo(path, self._common.access_log)
        made.callback(self._requests.close)
        return path

    def _stderr(self, made: contextlib.ExitStack, open_: contextlib.ExitStack) -> Any:
        """Its standard error, as `subprocess` takes it, `open_` until it has it."""
        if self._common.log is None:
            return self._common.stderr
        log = self._folder / "stderr"
        made.callback(Fifo(log, self._common.log).close)
        return open_.enter_context(log.open("wb"))

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_served(self) -> bool:
        """Whether it has ever accepted connections."""
        return self.ready.done() and self.ready.exception() is None

    @property
    def has_failed(self) -> bool:
        """Whether it has said that it does not start."""
        return self._failure is not None

    def listen(self) -> None:
        """Has it accept connections. The application has started."""
        self.accepts = self._control.send("listen")

    def pause(self, wanted: bool) -> None:
        """Has it leave connections to others, on sockets that are shared; or not any more."""
        if self._common.listening.are_shared and wanted != self._is_paused:
            self._is_paused = wanted
            self._pause(wanted)

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

        Kills it if that takes longer than all time limits of the bridge together and `SPARE_SECONDS`.
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
        """Asks for a stop at once, and kills it if that takes more than `ABORT_SECONDS`."""
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
            _logger.error("%s has not ended %g s after it was asked to: killed", self._common.name, seconds)

        if self._killer is not None:
            self._killer.cancel()
        self._killer = self._loop.call_later(seconds, kill)

    def _on_event(self, event: Event) -> None:
        match event:
            case {"event": "started"}:
                _resolve(self.started, None)
            case {"event": "logs", "json": bool(json), "requests": bool(requests)}:
                if json:
                    self._common.log_json()
                if self._requests is not None:
                    self._requests.is_heard = not requests
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
        return StartupError(f"{self._common.name} {exit_text(code)} before it was ready{log}", exit_code=code)


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


def exit_text(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exited with status {code}"
    return f"was killed by signal {-code}"
