"""The standard file descriptors, which we share with Envoy and with whoever started us."""

import os
import select
import stat
import subprocess
from typing import IO, Any

Output = IO[Any] | int | None
"""Where a process writes: a file, a number as in `subprocess`, or None for the place it inherits."""


def fill_standard() -> None:
    """Opens the null device as 0, 1 and 2 where they are closed, so that nothing else that is opened becomes one."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def inherited(number: int) -> int:
    """For `subprocess`: the standard descriptor `number` if a child inherits it, else the null device.

    A script that has closed one may have opened something of its own in its place.
    """
    return number if os.get_inheritable(number) else subprocess.DEVNULL


def waits(output: IO[Any] | int) -> bool:
    """Whether who writes to `output` may have to wait for somebody who reads it: a pipe or a socket."""
    number = output if isinstance(output, int) else output.fileno()
    if number < 0:
        return False
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def is_terminal(output: IO[Any] | int) -> bool:
    """Whether `output` is a terminal."""
    number = output if isinstance(output, int) else output.fileno()
    return number >= 0 and os.isatty(number)


def duplicate(output: IO[Any] | int) -> int:
    """A descriptor of one's own to write to `output`."""
    if not isinstance(output, int):
        return os.dup(output.fileno())
    return os.dup(output) if output >= 0 else os.open(os.devnull, os.O_WRONLY)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data`, and waits as long as that takes, whether or not others have made it non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
