"""The Unix domain socket of a server."""

import contextlib
import errno
import os
import socket
import stat

from .addresses import Address
from .errors import StartupError
from .port import BACKLOG, reason


class HeldUds:
    """A socket at a path, which all Envoys of a server share.

    One that somebody listens on is left alone, another one replaced. Of two servers that start at the same time the
    second is refused: they take an abstract socket that stands for the path.
    """

    def __init__(self, path: str | os.PathLike[str], mode: int) -> None:
        """Takes `path`, with permissions of `mode`; `StartupError` says why it can't be listened on there."""
        self._path = os.path.abspath(path)
        self.address = Address(path=self._path)
        folder = os.path.dirname(self._path)
        self._lock = socket.socket(socket.AF_UNIX)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._lock.bind(_abstract(self._path))
            os.stat(folder)
            if os.path.lexists(self._path):
                self._remove_stale()
            self._socket.bind(self._path)
            self._file = os.lstat(self._path).st_ino
            # Nobody can connect yet.
            os.chmod(self._path, mode)
        except OSError as error:
            self._socket.close()
            self._lock.close()
            why = f"there is no folder `{folder}`" if isinstance(error, FileNotFoundError) else reason(error)
            raise StartupError(f"cannot listen on `{os.fspath(path)}`: {why}") from None
        # Of the open file, which Envoys share: one that finds the queue emptied by another must not wait.
        self._socket.setblocking(False)

    def grow(self, slots: int) -> None:
        """There is one for all."""

    def socket(self, slot: int) -> socket.socket:
        return self._socket

    def listen(self) -> None:
        self._socket.listen(BACKLOG)

    def steer(self, live: object) -> None:
        """The kernel gives a connection to whoever is first."""

    def close_soon(self) -> None:
        """What has connected is in the queue already."""

    def close(self) -> None:
        """Lets go of the path, and removes the socket's file unless it is another one by now."""
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(self._path).st_ino == self._file:
                os.unlink(self._path)
        self._socket.close()
        self._lock.close()

    def _remove_stale(self) -> None:
        if not stat.S_ISSOCK(os.lstat(self._path).st_mode):
            raise OSError("there is a file that is no socket")
        if _is_live(self._path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        os.unlink(self._path)


def _abstract(path: str) -> bytes:
    """The name of the abstract socket that stands for `path`; such names are short."""
    import hashlib  # only those who use it pay for it

    return b"\0aiovoy-" + hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest().encode()


def _is_live(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except TimeoutError:
            pass  # it listens, and has no time
    return True
