"""Makes a child that is forked inside Envoy an ordinary Python process.

The bridge has taken from it what is Envoy's: descriptors and signal handlers. Here it loses what is the server's in
Python: the event loop, which would go on with the requests of its parent, and its hold on signals.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import traceback
from typing import Any, NoReturn

forked = False
"""Whether this process is such a child."""

_event_loops: dict[int, tuple[Any, set[int]]] = {}
"""The loops of the server with the descriptors by which they wait, by the threads that they run on."""


def watch() -> None:
    """Has every child begin in `_become_ordinary`."""
    os.register_at_fork(after_in_child=_become_ordinary)


def know_loop(event_loop: Any, pollers: set[int]) -> None:
    """Tells of a loop of this thread. `pollers` are the descriptors by which it waits."""
    _event_loops[threading.get_ident()] = (event_loop, pollers)


def forget_loop(event_loop: Any) -> None:
    """The loop is closed, and its descriptors with it."""
    for thread, (known, _) in list(_event_loops.items()):
        if known is event_loop:
            del _event_loops[thread]


def open_pollers() -> set[int]:
    """The epoll descriptors of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                found.add(int(name))
    return found


def _become_ordinary() -> None:
    global forked
    if forked:  # a child of a child
        return
    forked = True
    try:
        _lose_the_servers()
    finally:
        # Last: what it raises would keep the rest from being done. Until then SIGINT ends the child.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _lose_the_servers() -> None:
    """Takes the event loop from this process, and the hold on signals."""
    signal.set_wakeup_fd(-1)
    for event_loop, pollers in _event_loops.values():
        # The kernel has one list of what each of these watches, for parent and child: what the child took off it, and
        # be it by freeing an object, the parent would hear no more of.
        for poller in pollers:
            with select.epoll() as fresh:
                os.dup2(fresh.fileno(), poller, inheritable=False)
        for number, handler in event_loop.handled_signals.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL)
    own, _ = _event_loops.get(threading.get_ident(), (None, None))
    if own is not None:
        asyncio._set_running_loop(None)
        asyncio.set_event_loop(None)
        # What was due in this turn is the parent's. uvloop does not show it.
        for handle in getattr(own, "_ready", ()):
            handle.cancel()
        own.stop()


def leave(error: BaseException | None) -> NoReturn:
    """Ends a child that comes back to the event loop, which it does not have, as Python would end there.

    `error` is the exception by which it has come.
    """
    code = 0
    try:
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        finally:
            code = _exit_code(error)
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
    except BaseException:
        code = code or 1
    finally:
        # Not by Python's own end, which would take objects of the server apart.
        os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    traceback.print_exception(error)
    return 1
