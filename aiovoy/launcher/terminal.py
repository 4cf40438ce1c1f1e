"""The terminal that this process may have."""

import os


def has_terminal() -> bool:
    """Whether this process has a terminal that can hang up; one that has hung up is none."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
