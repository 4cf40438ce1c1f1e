"""Ends an Envoy that starts with the process that starts it.

An Envoy asks its launcher for its sockets, and would wait for the answer for ever if that has died. Once it has them,
the bridge sees to an end in good order; until then the kernel does. It has a signal for the death of a parent, but only
the child itself can ask for it, and Envoy does so late.
"""

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Sequence

# Waits for a byte, of which there is none if the launcher has died, and becomes the program.
_WAIT = """
import os, sys
gate, program, *words = sys.argv[1:]
if not os.read(int(gate), 1):
    sys.exit(1)
os.close(int(gate))
try:
    os.execv(program, words)
except OSError as error:
    sys.exit(f"cannot run `{program}`: {error.strerror}")
"""


class Leash:
    """Two pipes: the kernel kills the child when the first one ends, and the child begins when the second one says so.

    So there is no moment at which this process could die and the child would go on.
    """

    python = sys._base_executable  # type: ignore[attr-defined]
    """The program to start. Under the name that `command` gives it, it finds the library beside itself, of which there
    is none beside a copy in a virtual environment."""

    def __init__(self) -> None:
        self._end, self._held = os.pipe2(os.O_CLOEXEC)
        self._gate, self._go = os.pipe2(os.O_CLOEXEC)
        self._open = [self._end, self._held, self._gate, self._go]

    def filenos(self) -> list[int]:
        """The descriptors for the child to inherit."""
        return [self._end, self._gate]

    def command(self, program: str | os.PathLike[str], words: Sequence[str]) -> list[str]:
        """What to start `python` with, to have `program` started with `words`, the first of which is its name."""
        # A debugger would follow what is called Python, and this becomes an Envoy.
        return ["/proc/self/exe", "-I", "-S", "-c", _WAIT, str(self._gate), os.fspath(program), *words]

    def tie(self, pid: int) -> None:
        """Lets the process `pid` begin, which is killed from now on if this one ends."""
        fcntl.fcntl(self._end, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(self._end, fcntl.F_SETOWN, pid)
        fcntl.fcntl(self._end, fcntl.F_SETFL, os.O_RDONLY | os.O_ASYNC)
        with contextlib.suppress(BrokenPipeError):  # it has ended
            os.write(self._go, b"\n")

    def take_off(self) -> None:
        """The process is not killed any more. May be called again."""
        if self._open:
            fcntl.fcntl(self._end, fcntl.F_SETFL, os.O_RDONLY)
        while self._open:
            os.close(self._open.pop())
