"""The asyncio event loop of a worker.

Runs inside Envoy, on the worker's loop thread.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import traceback
from collections.abc import Callable
from typing import Any

from aiovoy.embedded import child, signals
from aiovoy.embedded.logs import log


def start_thread(name: str, main: Callable[[], None]) -> None:
    """Starts the thread that an event loop runs on."""
    signals.LoopThread(target=main, name=name, daemon=False).start()


def new_event_loop(kind: str) -> asyncio.AbstractEventLoop:
    """A new loop of `kind`, `uvloop` or `asyncio`, set as the current thread's."""
    loop_class: Any
    if kind == "uvloop":
        import uvloop

        loop_class = uvloop.Loop
    else:
        loop_class = asyncio.SelectorEventLoop
    # In the name of the class that it extends, by which libraries tell loops apart.
    names = {"__module__": loop_class.__module__, "__qualname__": loop_class.__qualname__}
    pollers = child.open_pollers()
    event_loop: Any = type(loop_class.__name__, (_ServerLoop, loop_class), names)()
    child.know_loop(event_loop, child.open_pollers() - pollers)
    asyncio.set_event_loop(event_loop)
    if threading.current_thread() is threading.main_thread():
        event_loop.survive_signals()
    return event_loop  # type: ignore[no-any-return]


def own_thread(event_loop: Any) -> None:
    """Makes the thread that of `event_loop` again, after an import that has had one of its own, as by `asyncio.run`.

    Envoy does not run yet: what it does at signals counts from then on.
    """
    asyncio.set_event_loop(event_loop)
    if threading.current_thread() is threading.main_thread():
        event_loop.survive_signals()


_STOPPED = "the application stopped the event loop, which is the server's: it goes on"


def run(event_loop: Any, failed: Callable[[str], None]) -> None:
    """Runs `event_loop` until `end` is called on it, then closes it.

    `SystemExit` and `KeyboardInterrupt` that a task raises end `run_forever`, as does the loop's `stop`, but not the
    server: the loop goes on. Any other exception is the loop's own. `failed` is told of the first, which makes the
    server stop, and the loop goes on until then; another one, or one of a loop that is closed, is raised.
    """
    is_failing = False
    while not event_loop.ending:
        try:
            event_loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            if child.forked:
                child.leave(error)
            log("error", traceback.format_exc().rstrip())
        except BaseException as error:
            if child.forked:
                child.leave(error)
            if is_failing or event_loop.is_closed():
                raise
            is_failing = True
            failed(traceback.format_exc().rstrip())
        else:
            if child.forked:
                child.leave(None)
            if not event_loop.ending:
                log("warning", _STOPPED)
    close(event_loop)


def end(event_loop: Any) -> None:
    """Makes `run` close the loop; called in the loop."""
    event_loop.ending = True
    event_loop.stop()


class _ServerLoop:
    """What a loop of the server adds to its class."""

    ending = False

    on_task_factory: Callable[[bool], None] | None = None
    """Is told whether there is a task factory, when one is set or taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.handled_signals: dict[int, Any] = {}
        """What Python calls for signals that the loop has a handler for, as `signal.getsignal` tells it."""
        self._quiet: set[int] = set()
        """Those of them whose handler does nothing."""

    def set_task_factory(self, factory: Any) -> None:
        super().set_task_factory(factory)  # type: ignore[misc]
        if self.on_task_factory is not None:
            self.on_task_factory(factory is not None)

    def survive_signals(self) -> None:
        """Sees to it that no signal that other servers have a use for ends this one.

        Besides, the loop now wakes for signals, so that handlers set by `signal.signal` run at once.
        """
        # Nobody is sent the last one, and it ends nobody: it is for the waking.
        for number in (*signals.HARMLESS, signal.SIGURG):
            quiet = self.handled_signals.get(number) if number in self._quiet else None
            if signal.getsignal(number) in (signal.SIG_DFL, quiet):
                self._handle(number, _nothing)

    def _handle(self, sig: int, callback: Any, *args: Any) -> None:
        super().add_signal_handler(sig, callback, *args)  # type: ignore[misc]
        self.handled_signals[sig] = signal.getsignal(sig)
        if callback is _nothing:
            self._quiet.add(sig)
            signals.handled.discard(sig)
        else:
            self._quiet.discard(sig)

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        """As always, but for the signals of the server, and on loops outside Python's main thread: they get none."""
        if sig in signals.SERVERS:
            signals.warn(sig)
        elif threading.current_thread() is threading.main_thread():
            self._handle(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return False
        removed: bool = super().remove_signal_handler(sig)  # type: ignore[misc]
        if sig in signals.HARMLESS and self.ending:
            signal.signal(sig, _nothing)
        elif sig in signals.HARMLESS:
            self._handle(sig, _nothing)
        return removed


def _nothing(*_: Any) -> None:
    pass


def close(event_loop: Any) -> None:
    """What `asyncio.Runner` does at its end."""
    event_loop.ending = True
    try:
        _cancel_all_tasks(event_loop)
        event_loop.run_until_complete(event_loop.shutdown_asyncgens())
        event_loop.run_until_complete(event_loop.shutdown_default_executor())
    finally:
        child.forget_loop(event_loop)
        event_loop.on_task_factory = None
        asyncio.set_event_loop(None)
        event_loop.close()


def _cancel_all_tasks(event_loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(event_loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    event_loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        if not task.cancelled() and (exception := task.exception()) is not None:
            context: dict[str, Any] = {
                "message": "exception in a task that was cancelled at shutdown",
                "exception": exception,
                "task": task,
            }
            event_loop.call_exception_handler(context)
