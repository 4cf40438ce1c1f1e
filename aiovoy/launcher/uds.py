"""The file of a Unix domain socket."""

import contextlib
import errno
import hashlib
import os
import socket
import stat

from .errors import StartupError
from .port import reason


class HeldUds:
    """A path that Envoy, and no other server of ours, can listen on while this object holds it.

    Envoy replaces whatever socket it finds there. So one that somebody listens on is refused here, and of two servers
    that start at the same time the second: they take an abstract socket that stands for the path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Takes `path`; `StartupError` says why Envoy could not listen there."""
        self._path = os.fspath(path)
        self._lock = socket.socket(socket.AF_UNIX)
        try:
            self._lock.bind(_abstract(self._path))
            os.stat(os.path.dirname(os.path.abspath(self._path)))
            if os.path.lexists(self._path) and not stat.S_ISSOCK(os.lstat(self._path).st_mode):
                raise OSError("there is a file that is no socket")
            if _is_live(self._path):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        except OSError as error:
            self._lock.close()
            raise StartupError(f"cannot listen on `{self._path}`: {reason(error)}") from None

    def release(self) -> None:
        """Lets go of the path, and removes the socket unless somebody else listens there by now."""
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(self._path).st_mode) and not _is_live(self._path):
                os.unlink(self._path)
        self._lock.close()


def _abstract(path: str) -> bytes:
    """The name of the abstract socket that stands for `path`; such names are short."""
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
