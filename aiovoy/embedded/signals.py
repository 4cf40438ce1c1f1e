"""Which signals are the server's, and which the application's.

Runs inside Envoy.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

from aiovoy.embedded import child
from aiovoy.embedded.logs import log

SERVERS = frozenset({signal.SIGINT, signal.SIGTERM})
"""They stop the server, whatever the application says."""

HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Other servers have a use for these; one that is sent them by habit does not end."""

ECHO_SECONDS = 0.02
"""How long after one of those that stop it another is its echo, as `timeout` makes it: see `src/life/stop.rs`."""

handled: set[int] = set()
"""Those that the application has a handler for."""


class LoopThread(threading.Thread):
    """The thread of an event loop that is not the first, which is on Python's main thread."""


def share() -> None:
    """Leaves the signals of the server to it from now on."""
    # The import of `signal` has given SIGINT to Python.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal = _beside_the_server(signal.signal)


def _beside_the_server(signal_signal: Any) -> Any:
    """`signal.signal` that leaves the signals of the server to it, and says so.

    Python takes signals on its main thread, where the first event loop runs. What an application does once on each
    loop, as in its lifespan, need not fail on the others. In a forked child all are its own.
    """

    def signal_(signalnum: Any, handler: Any, /) -> Any:
        if child.forked:
            return signal_signal(signalnum, handler)
        if signalnum in SERVERS:
            warn(signalnum)
        elif not isinstance(threading.current_thread(), LoopThread):
            before = signal_signal(signalnum, handler)
            handled.add(signalnum)
            return before
        return signal.getsignal(signalnum)

    return signal_


def handle_again() -> None:
    """Gives signals that Envoy has taken when it began to run back to the application, if that had them before."""
    for number in handled & {signal.SIGHUP, signal.SIGUSR1}:
        signal.signal(number, signal.getsignal(number))


def warn(signalnum: int) -> None:
    """Says that no handler for this signal is installed, and what to do instead."""
    log(
        "warning",
        f"no handler installed for {signal.Signals(signalnum).name}: it stops the server\n"
        "hint: `lifespan.shutdown` tells of it",
    )
