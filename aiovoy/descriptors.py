"""The standard file descriptors, which we share with Envoy and with whoever started us."""

import os
import select
import subprocess


def fill_standard() -> None:
    """Opens the null device as 0, 1 and 2 where they are closed, so that nothing else that is opened becomes one."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def inherited(number: int) -> int | None:
    """For `subprocess`: None if a child inherits the standard descriptor `number`, else the null device.

    A script that has closed one may have opened something of its own in its place.
    """
    return None if os.get_inheritable(number) else subprocess.DEVNULL


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
