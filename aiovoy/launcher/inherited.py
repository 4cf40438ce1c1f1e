"""Sockets that this process has inherited from whoever started it."""

import os
import socket
import stat

from .addresses import Address
from .errors import StartupError
from .port import BACKLOG, reason

FIRST = 3
"""The first descriptor that systemd passes, sd_listen_fds(3)."""


def passed_by_systemd() -> dict[int, str]:
    """The descriptors that are meant for this process, with their names; `unknown` is the name of one without."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = os.environ.get("LISTEN_FDS", "")
    if not count.isdecimal():
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * (int(count) - len(names))
    return {FIRST + index: names[index] or "unknown" for index in range(int(count))}


class GivenSocket:
    """An inherited socket, which all Envoys of a server share. Options and permissions are its giver's."""

    def __init__(self, descriptor: int | str) -> None:
        """Takes the socket with a number, or with a name that systemd has given it; `StartupError` if it is none."""
        number = _number(descriptor)
        try:
            self.address = _address(number)
        except OSError as error:
            raise StartupError(f"cannot listen on descriptor {number}: {reason(error)}") from None
        os.set_inheritable(number, False)
        self._socket = socket.socket(fileno=number)
        # Of the open file, which Envoys share: one that finds the queue emptied by another must not wait.
        self._socket.setblocking(False)

    def grow(self, slots: int) -> None:
        """There is one for all."""

    def socket(self, slot: int) -> socket.socket:
        return self._socket

    def listen(self) -> None:
        if not self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._socket.listen(BACKLOG)

    def steer(self, live: object) -> None:
        """The kernel gives a connection to whoever is first."""

    def close_soon(self) -> None:
        """What comes is for who has the socket besides."""

    def close(self) -> None:
        self._socket.close()


def _address(number: int) -> Address:
    """The address of a socket; `OSError` if it is none that can be listened on. It stays whose it is until then."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        raise OSError("it is no socket")
    with socket.socket(fileno=os.dup(number)) as sock:
        if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise OSError("it is no socket of TCP or of a Unix domain")
        name = sock.getsockname()
        if sock.family != socket.AF_UNIX:
            return Address(name[0], name[1], inherited=True)
        if not name:
            raise OSError("it is not bound")
        return Address(path=os.fsdecode(name).replace("\0", "@", 1))


def _number(descriptor: int | str) -> int:
    if isinstance(descriptor, int):
        return descriptor
    passed = passed_by_systemd()
    for number, name in passed.items():
        if name == descriptor:
            return number
    names = ", ".join(passed.values()) or "none at all"
    raise StartupError(f"systemd has passed no socket of the name `{descriptor}`: {names}")
