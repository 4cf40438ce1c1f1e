"""What the threads of this process are amid, for who wants to know why one does not go on.

Runs inside Envoy: `dump_at_signal` on Python's main thread, once; `of_thread` on a thread of the bridge's.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import traceback

SIGNAL = signal.SIGRTMAX - 6
"""At this signal the tracebacks of all threads go to standard error.

The launcher may send it before it kills a process that is beyond help, and the bridge raises it where the GIL is not to
be had; both know its number, see `aiovoy/launcher/workers/control.py` and `src/life/explain.rs`. Neither Envoy nor the
C library has a use for it, and it is not one of the first, which programs take, nor the last, which is Valgrind's.
"""

_DEEPEST = 50
"""So many calls are shown, the innermost: a recursion has thousands."""


def dump_at_signal() -> None:
    """Has CPython write tracebacks at `SIGNAL`, in the signal's handler: that needs neither a loop nor the GIL."""
    # By its number: what becomes of `sys.stderr` is the application's business.
    faulthandler.register(SIGNAL, file=2, all_threads=True, chain=False)


def of_thread(ident: int | None) -> str:
    """The calls that a thread is amid, as in a traceback, the innermost last, without the last line end."""
    frame = None if ident is None else sys._current_frames().get(ident)
    lines = traceback.format_stack(frame, limit=_DEEPEST) if frame is not None else ["  no Python code"]
    # A lone surrogate in a name or a line has no UTF-8.
    return "".join(lines).rstrip().encode(errors="backslashreplace").decode()
