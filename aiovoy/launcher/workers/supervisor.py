"""Which workers there are to be, and what becomes of each."""

import asyncio
import atexit
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any

from .. import debugger
from ..config import Config
from ..descriptors import Output
from ..errors import StartupError, refuse_inside_server
from ..lanes import Lane
from ..listening import QUEUE_SECONDS
from ..port import reason
from .common import Common
from .envoy import Envoys
from .limits import Limits
from .process import STEP_SECONDS, Process, Ready, exit_text
from .reload import changes
from .slot import Slot

_logger = logging.getLogger("aiovoy.error")

STARTUP_SECONDS = 60.0
"""How long a worker may take to start where others serve, at least; longer if the first one did."""

SETTLED_SECONDS = 60.0
"""How long a worker must have lived for its successor to be started at once, if it dies."""

SUSPICION_SECONDS = 5.0
"""How long a worker may not respond before others get its connections."""

_DUMP_SECONDS = 0.5
"""How long a worker that is to be killed gets to write what it is amid."""

_LEAVE_SECONDS = 1.0
"""How long a handshake may take whose worker is not to get connections any more, and whose socket no other one has."""


class Supervisor:
    """A server: as many workers as `Config` says, in slots, on sockets that are there as long as it is.

    Creating it takes the addresses and returns; a thread of its own does the rest, in an event loop. So callers may be
    of any kind, and methods may be called from any thread. Nothing needs to be closed. If this interpreter exits
    before, the workers are killed.

    The invariants: a slot that is not filled is being filled (`Slot.task`), unless the server stops. Connections are
    steered to slots in which somebody accepts, and packets of QUIC to the process whose connection it is. A process
    that was started is watched until it has exited, and the thread outlives them all: Envoy asks the kernel to be
    stopped when the thread ends that has started it.
    """

    ready: "Future[Ready]"
    """Done when the server accepts connections; fails with `StartupError` when it ends before."""

    exited: "Future[int]"
    """Done when all has ended and is cleaned up: the exit status of the first worker that did not end in 0 when it was
    told to, negative if a signal killed it; else 0."""

    def __init__(
        self, config: Config, *, stdout: Output = None, stderr: Output = None, kind: type[Common] = Envoys
    ) -> None:
        """Workers are of a `kind`, and inherit standard input, and `stdout` and `stderr` unless those are given."""
        refuse_inside_server()
        self.config = config
        self.ready = Future()
        self.exited = Future()
        self._common = kind(config, stdout, stderr)
        self._slots = [Slot(index) for index in range(config.worker_count)]
        self._opened = asyncio.Event()
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        """Whether files have changed."""
        self._is_outdated = False
        """Whether what starts first is to be replaced once it has."""
        self._course: asyncio.Task[None] | None = None
        """What is done with the workers: their start, their replacement, or their end."""
        self._processes: dict[Process, asyncio.Task[None]] = {}
        """Those that have not exited, with who watches them."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._patience: float | None = None
        # A handshake of QUIC is over with the process that has its first packet. In development nobody waits for that.
        self._handshake = _LEAVE_SECONDS if config.http3 and not config.reload else 0.0
        self._info: Ready
        """Of the worker that has come last."""
        self._code = 0
        self._loop = asyncio.SelectorEventLoop()
        _running.add(self)
        threading.Thread(target=self._run, name="aiovoy-supervisor", daemon=True).start()

    @property
    def host(self) -> str:
        """The IP address it listens on."""
        return self._common.listening.host

    @property
    def port(self) -> int:
        """0 on a Unix domain socket."""
        return self._common.listening.port

    @property
    def ssl_port(self) -> int | None:
        """The port that speaks TLS."""
        return self._common.listening.ssl_port

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """`url`, and that of the TLS port if it is another one."""
        return self._common.listening.urls

    @property
    def pid(self) -> int:
        """Process id of the worker that has come to the first slot last; it may have ended."""
        latest = self._slots[0].latest
        if latest is None:
            raise RuntimeError("no worker has been started yet")
        return latest.pid

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers, one for each slot that is not empty."""
        filled = [slot.current or slot.coming for slot in self._slots]
        return [process.pid for process in filled if process is not None]

    def shutdown(self) -> None:
        """Asks for a graceful stop of all workers. Does not wait."""
        self._soon(self._begin_stop)

    def abort(self) -> None:
        """Asks for a stop at once. Does not wait."""
        self._soon(self._abort)

    def kill(self) -> None:
        """Kills the workers. Does not wait."""
        self._soon(self._kill)

    def stop(self) -> int:
        """Stops gracefully and waits for the end. Returns the exit status."""
        self.shutdown()
        return self.exited.result()

    def roll(self) -> None:
        """Has all workers replaced, one after the other. A roll that is under way begins anew."""
        self._soon(self._begin_roll)

    def grow(self) -> None:
        """Adds a worker."""
        self._soon(self._add_slot)

    def shrink(self) -> None:
        """Takes the last worker away, if there is more than one."""
        self._soon(self._remove_slot)

    def _soon(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended, and the loop is closed
            self._loop.call_soon_threadsafe(call)

    # In the thread.

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._loop.run_until_complete(self._serve())
        except StartupError as error:
            failure, self._code = error, error.exit_code
        except BaseException as error:
            _logger.exception("the supervision of the workers has failed: the server ends")
            failure, self._code = error, 1
        finally:
            self._loop.close()
            try:
                self._common.close()
            finally:  # somebody may wait for these
                _running.discard(self)
                if not self.ready.done():
                    failure = failure or StartupError("told to stop before it was ready", exit_code=self._code)
                    self.ready.set_exception(failure)
                self.exited.set_result(self._code)

    async def _serve(self) -> None:
        try:
            if not self._stopping.is_set():  # before the loop ran
                startup = self._course = self._spawn(self._start())
                await asyncio.wait([startup])
            if not self._stopping.is_set():
                startup.result()
                if self._is_outdated:
                    self._begin_roll()
                await self._stopping.wait()
        except BaseException:
            self._kill()
            raise
        finally:
            while self._processes:
                await asyncio.wait(self._processes.values())
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self) -> None:
        """Opens the port once all workers have started, or the first one has and others take long.

        The first one starts alone: an application that can't be started is tried once, and what it does at its first
        start, such as to compile its modules, it does once.
        """
        first, *others = self._slots
        if self.config.reload:
            self._spawn(self._watch_files())
        while True:
            begun = time.monotonic()
            self._changed.clear()
            self._is_outdated = False
            self._fill(first)
            try:
                await self._started_or_changed(first)
                if first.started.is_set():
                    break
            except StartupError:
                if not self.config.reload:
                    raise
                _logger.error("the application has not started: again when its files change")
                await self._changed.wait()
        took = time.monotonic() - begun
        self._patience = max(STARTUP_SECONDS, 3 * took)
        for slot in others:
            self._fill(slot)
        filling = [slot.task for slot in self._slots if slot.task is not None]
        if others:
            starts = [self._spawn(_started(slot)) for slot in others]
            await asyncio.wait(starts, timeout=2 * took + 1, return_when=asyncio.FIRST_EXCEPTION)
        for task in filling:
            if task.done():
                task.result()  # it has failed: who succeeds waits for the port
        started = [slot for slot in self._slots if slot.started.is_set()]
        self._common.listening.listen()
        self._common.listening.steer([slot.index for slot in started])
        self._opened.set()
        await asyncio.wait([slot.task for slot in started if slot.task is not None])
        self._spawn(self._examine_all())
        self.ready.set_result(dataclasses.replace(self._info, workers=len(self._slots)))

    async def _started_or_changed(self, slot: Slot) -> None:
        """Waits until the application has started in a slot; if files change before, what was begun is given up."""
        start, change = self._spawn(_started(slot)), self._spawn(_true(self._changed))
        await asyncio.wait([start, change], return_when=asyncio.FIRST_COMPLETED)
        change.cancel()
        if start.done():
            start.result()
        elif slot.task is not None:
            slot.task.cancel()
            await asyncio.wait([slot.task])

    async def _bring_up(self, slot: Slot) -> None:
        """Starts a worker in the slot, and makes it the current one when it accepts connections.

        `StartupError` if it does not come to that. One that is not to come any more, since this task is cancelled, is
        told to stop.
        """
        udp = self._common.listening.udp
        while udp is not None and udp.is_full:  # of those that retire: there are more lanes than slots
            await asyncio.wait(self._processes.values(), return_when=asyncio.FIRST_COMPLETED)
        slot.generation += 1
        slot.started.clear()
        process = slot.coming = slot.latest = self._common.start(slot.number, slot.generation)
        self._processes[process] = self._spawn(self._watch(slot, process))
        try:
            self._steer()
            async with asyncio.timeout(None if debugger.follows() else self._patience):
                await asyncio.shield(process.started)
                slot.started.set()
                await self._opened.wait()
                process.listen()
                self._info = await asyncio.shield(process.ready)
            if process.exited.done():
                raise StartupError(f"{self._common.name} {exit_text(process.exited.result())} as soon as it was ready")
        except TimeoutError:
            process.shutdown()
            raise StartupError(f"it has not started within {self._patience:g} s") from None
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                process.shutdown()
            raise
        finally:
            slot.coming = None
        before, slot.current = slot.current, process
        slot.limits = Limits.draw(self.config)
        self._steer()
        if before is None:
            # Where there is but one, the server says so.
            level = logging.INFO if self.ready.done() or len(self._slots) > 1 else logging.DEBUG
            _logger.log(level, "worker %d (pid %d) serves", slot.number, process.pid)
        else:
            _logger.info("worker %d (pid %d) has replaced pid %d", slot.number, process.pid, before.pid)
            self._loop.call_later(self._handshake, self._retire, before)

    def _fill(self, slot: Slot) -> None:
        """Has a worker brought up in an empty slot, however many attempts that takes."""
        slot.task = self._spawn(self._keep_trying(slot))

    async def _keep_trying(self, slot: Slot) -> None:
        try:
            while True:
                await asyncio.sleep(slot.delay())
                try:
                    await self._bring_up(slot)
                    return
                except StartupError as error:
                    if not self._opened.is_set():
                        raise  # to `_start`, and the server ends
                    slot.failures += 1
                    why, again = _why(error), slot.delay()
                    _logger.error("worker %d has not come up: %s: again in %g s", slot.number, why, again)
                except Exception:
                    if not self._opened.is_set():
                        raise
                    slot.failures += 1
                    _logger.exception("worker %d has not come up: again in %g s", slot.number, slot.delay())
        finally:
            slot.task = None

    async def _watch(self, slot: Slot, process: Process) -> None:
        """Sees to what follows from the end of a worker."""
        code = await asyncio.shield(process.exited)
        del self._processes[process]
        if self._stopping.is_set():
            if not process.has_failed:  # to start, which nobody wants any more
                self._code = self._code or code
            return
        is_current = process is slot.current and slot in self._slots
        if is_current:
            slot.current = None
        self._steer()
        if is_current and code == 0 and len(self._slots) == 1:
            # By a signal that the application has sent to itself, or by hand: as it would stop other servers.
            _logger.info("the only worker has ended in good order, and so does the server")
            self._begin_stop()
        elif is_current:
            lived = time.monotonic() - process.born
            slot.failures = 0 if lived > SETTLED_SECONDS else slot.failures + 1
            end = f"worker {slot.number} (pid {process.pid}) {exit_text(code)}"
            if slot.task is not None:
                _logger.error("%s: its successor is about to come", end)
            else:
                _logger.error("%s: the next one starts %s", end, f"in {slot.delay():g} s" if slot.failures else "now")
                self._fill(slot)
        elif process.has_served:
            level = logging.ERROR if code else logging.INFO
            _logger.log(level, "worker %d (pid %d), retired, %s", slot.number, process.pid, exit_text(code))

    def _steer(self) -> None:
        """Has connections go to those who accept them, and not to suspects unless there are only those.

        Before the port is open there is nothing to steer. While nobody accepts, connections wait in the sockets of
        slots, and those of QUIC in that of whoever comes.
        """
        if not self._opened.is_set():
            return
        accept = [slot for slot in self._slots if slot.accepts]
        good = [slot for slot in accept if slot.current is None or not slot.current.is_suspected]
        self._common.listening.steer([slot.index for slot in good or accept])
        for slot in accept:
            if slot.current is not None:
                slot.current.pause(slot.current.is_suspected and bool(good))
        if (udp := self._common.listening.udp) is not None:
            takers = [slot.accepts for slot in good or accept] or [slot.coming for slot in self._slots]
            udp.steer(_lanes(takers), _lanes(self._processes))

    async def _examine_all(self) -> None:
        while True:
            await asyncio.sleep(STEP_SECONDS)
            serving = [(slot, slot.current) for slot in self._slots if slot.current is not None]
            # Who serves longest is replaced first, or workers that reach their limits soon again would keep the turn.
            for slot, process in sorted(serving, key=lambda one: one[1].born):
                process.examine()
                self._judge(slot, process)

    def _judge(self, slot: Slot, process: Process) -> None:
        if not process.accepts:
            return
        stuck = 0 if debugger.follows() else process.vitals.stuck_steps * STEP_SECONDS
        name = f"worker {slot.number} (pid {process.pid})"
        trouble = f"{name} {process.vitals.trouble} for {stuck:g} s"
        limit = self.config.timeout_worker_healthcheck
        if limit and stuck >= limit:
            _logger.error("%s: killed; the tracebacks of its threads:", trouble)
            process.accepts = False
            self._steer()
            process.dump_stacks()
            self._loop.call_later(_DUMP_SECONDS, process.kill)
        elif stuck >= SUSPICION_SECONDS and not process.is_suspected:
            _logger.warning("%s: it gets no connections until it does", trouble)
            process.is_suspected = True
            process.explain()
            self._steer()
        elif stuck == 0 and process.is_suspected:
            _logger.warning("%s is well again", name)
            process.is_suspected = False
            self._steer()
        elif (self._course is None or self._course.done()) and (why := slot.limits.reached(process)) is not None:
            self._course = self._spawn(self._recycle(slot, f"{name} is replaced {why}"))

    async def _recycle(self, slot: Slot, why: str) -> None:
        _logger.info("%s", why)
        try:
            await self._replace(slot)
        except StartupError as error:
            slot.failures += 1
            _logger.error("worker %d is not replaced: %s: again in %g s", slot.number, _why(error), slot.delay())
            slot.limits = dataclasses.replace(Limits(), dies=time.monotonic() + slot.delay())

    def _begin_roll(self) -> None:
        if self._stopping.is_set():
            return
        if not self.ready.done():
            self._is_outdated = True
            return
        if self._course is not None:
            self._course.cancel()
        self._course = self._spawn(self._roll())

    async def _roll(self) -> None:
        for slot in list(self._slots):
            if slot in self._slots:
                try:
                    await self._replace(slot)
                except StartupError as error:
                    _logger.error("worker %d is not replaced, nor are those after it: %s", slot.number, _why(error))
                    return

    async def _replace(self, slot: Slot) -> None:
        """Brings up a new worker in a slot, whatever is going on there, and waits until the old one has gone."""
        if slot.task is not None:
            slot.task.cancel()
            await asyncio.wait([slot.task])
        old = slot.current
        slot.task = asyncio.current_task()
        try:
            if old is not None and self.config.replace_first == "old":
                self._leave(slot, self._handshake)  # what comes meanwhile waits in the slot's queue
                await asyncio.shield(old.exited)
            await self._bring_up(slot)
        finally:
            slot.task = None
            if slot.current is None and slot in self._slots and not self._stopping.is_set():
                self._fill(slot)  # the old one has died meanwhile
        if old is not None and not self.config.reload:
            await asyncio.shield(old.exited)

    def _add_slot(self) -> None:
        if self._stopping.is_set() or not self.ready.done():
            return
        slot = Slot(len(self._slots))
        try:
            self._common.listening.grow(len(self._slots) + 1)
        except OSError as error:
            _logger.error("no worker %d: cannot listen for it: %s", slot.number, reason(error))
            return
        self._slots.append(slot)
        self._fill(slot)

    def _remove_slot(self) -> None:
        if self._stopping.is_set() or not self.ready.done() or len(self._slots) == 1:
            return
        slot = self._slots.pop()
        if slot.task is not None:
            slot.task.cancel()
        if slot.current is not None:
            _logger.info("worker %d (pid %d) is taken away", slot.number, slot.current.pid)
            self._leave(slot, _LEAVE_SECONDS)

    def _leave(self, slot: Slot, seconds: float) -> None:
        """Has the worker of a slot leave, from which connections are kept from now on; it is told in `seconds`."""
        process, slot.current = slot.current, None
        if process is not None:
            process.accepts = False
            self._steer()
            self._loop.call_later(seconds, self._retire, process)

    def _retire(self, process: Process) -> None:
        # When the server stops, it is told to stop.
        if process in self._processes and not self._stopping.is_set():
            process.retire()

    async def _watch_files(self) -> None:
        async for files in changes(self.config):
            names = ", ".join(file.name for file in files[:3]) + ", ..." * (len(files) > 3)
            _logger.info("changed: %s", names)
            self._changed.set()
            self._begin_roll()

    def _begin_stop(self) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._abandon()
            self._course = self._spawn(self._shut_down())

    async def _shut_down(self) -> None:
        if self._opened.is_set():
            self._common.listening.close_soon()
            await asyncio.sleep(QUEUE_SECONDS)
        # Before the workers close theirs, or the port would be open with nobody there.
        self._common.listening.close_listeners()
        for process in self._processes:
            process.shutdown()

    def _abort(self) -> None:
        self._stopping.set()
        self._abandon()
        for process in self._processes:
            process.abort()

    def _kill(self) -> None:
        self._stopping.set()
        self._abandon()
        for process in self._processes:
            process.kill()

    def _abandon(self) -> None:
        """Nothing is to come any more."""
        for task in (self._course, *(slot.task for slot in self._slots)):
            if task is not None:
                task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, StartupError):
            _logger.error("the supervision of the workers has failed", exc_info=error)


def _lanes(processes: Iterable[Process | None]) -> list[Lane]:
    return [process.lane for process in processes if process is not None and process.lane is not None]


def _why(error: StartupError) -> str:
    """What to say of it; the rest stands in the log if it is reported."""
    return str(error).partition("\n")[0] if error.reported else str(error)


async def _true(event: asyncio.Event) -> None:
    await event.wait()


async def _started(slot: Slot) -> None:
    """Waits until the application has started in a slot for the first time; `StartupError` if it has not."""
    started = asyncio.ensure_future(slot.started.wait())
    task = slot.task
    if task is not None:
        await asyncio.wait([started, task], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if task.done():
            task.result()


_running: set[Supervisor] = set()


@atexit.register
def _kill_all() -> None:
    for supervisor in list(_running):
        supervisor.kill()
        with contextlib.suppress(TimeoutError):
            supervisor.exited.result(timeout=5)
