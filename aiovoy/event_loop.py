"""The asyncio event loop of a worker.

Runs inside Envoy, on the worker's loop thread.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from aiovoy.interpreter import warn_of_handler


def start_thread(name: str, main: Callable[[], None]) -> threading.Thread:
    """Starts the thread that an event loop runs on."""
    thread = threading.Thread(target=main, name=name, daemon=False)
    thread.start()
    return thread


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
    event_loop: asyncio.AbstractEventLoop = type(loop_class.__name__, (_ServerLoop, loop_class), names)()
    asyncio.set_event_loop(event_loop)
    return event_loop


_STOPPED = "aiovoy: the application stopped the event loop, which is the server's: it goes on"


def run(event_loop: Any) -> None:
    """Runs `event_loop` until `end` is called on it, then closes it.

    `SystemExit` and `KeyboardInterrupt` that a task raises end `run_forever`, as does the loop's `stop`, but not the
    server: the loop goes on.
    """
    while not event_loop.ending:
        try:
            event_loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            traceback.print_exc(file=sys.stderr)
        else:
            if not event_loop.ending:
                print(_STOPPED, file=sys.stderr)
    _close(event_loop)


def end(event_loop: Any) -> None:
    """Makes `run` close the loop; called in the loop."""
    event_loop.ending = True
    event_loop.stop()


class _ServerLoop:
    """What a loop of the server adds to its class."""

    ending = False

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        """Warns where a loop outside Python's main thread, which is Envoy's, would raise."""
        warn_of_handler(sig)

    def remove_signal_handler(self, sig: int) -> bool:
        return False


def _close(event_loop: asyncio.AbstractEventLoop) -> None:
    """What `asyncio.Runner` does at its end."""
    try:
        _cancel_all_tasks(event_loop)
        event_loop.run_until_complete(event_loop.shutdown_asyncgens())
        event_loop.run_until_complete(event_loop.shutdown_default_executor())
    finally:
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
