"""The Unix domain socket of a server."""

import contextlib
import errno
import os
import socket
import stat

from .addresses import Address
from .errors import StartupError
from .port import BACKLOG, reason

_LONGEST = 107
"""Bytes of a path, of the 108 that the kernel has for it with the end."""


class HeldUds:
    """A socket at a path, which all Envoys of a server share.

    One that somebody listens on is left alone, another one replaced. Of two servers that start at the same time the
    second is refused: they take an abstract socket that stands for the path.
    """

    def __init__(self, path: str | os.PathLike[str], mode: int) -> None:
        """Takes `path`, with permissions of `mode`; `StartupError` says why it can't be listened on there."""
        self._path = os.path.abspath(path)
        self.address = Address(path=self._path)
        self._lock = socket.socket(socket.AF_UNIX)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._lock.bind(_abstract(self._path))
            os.stat(os.path.dirname(self._path))
            if os.path.lexists(self._path):
                self._remove_stale()
            self._socket.bind(self._path)
            self._file = os.lstat(self._path).st_ino
            # Nobody can connect yet.
            os.chmod(self._path, mode)
        except OSError as error:
            self._socket.close()
            self._lock.close()
            raise StartupError(f"cannot listen on `{os.fspath(path)}`: {_why(error, self._path)}") from None
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
        mode = os.lstat(self._path).st_mode
        if stat.S_ISDIR(mode):
            raise OSError("it is a folder\nhint: write the name of a file in it")
        if not stat.S_ISSOCK(mode):
            raise OSError("there is a file that is no socket")
        if _is_live(self._path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        os.unlink(self._path)


def _why(error: OSError, path: str) -> str:
    """What `error` means for who wants a socket at `path`."""
    folder = os.path.dirname(path)
    if (length := len(os.fsencode(path))) > _LONGEST:
        return f"the path has {length} bytes, and {_LONGEST} are the most"
    if isinstance(error, FileNotFoundError) and not os.path.lexists(folder):
        return f"there is no folder `{folder}`"
    if isinstance(error, NotADirectoryError):
        return f"`{folder}` is no folder"
    if isinstance(error, PermissionError):
        user = os.geteuid()
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            return (
                f"user {user} may not make files in `{folder}`\n"
                "hint: give the folder to the user that runs the server, or choose another one"
            )
        if os.path.lexists(path):
            return f"there is a socket of user {os.lstat(path).st_uid}, which user {user} may not replace"
    return reason(error)


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
