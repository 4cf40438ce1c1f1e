"""The file of a Unix domain socket."""

import contextlib
import os
import socket
import stat

from .errors import StartupError
from .port import reason


def check_uds(path: str | os.PathLike[str]) -> None:
    """Says why Envoy cannot listen on `path`, if so. It replaces a socket that nobody listens on."""
    path = os.fspath(path)
    try:
        os.stat(os.path.dirname(os.path.abspath(path)))
        if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError("there is a file that is no socket")
        if _is_live(path):
            raise OSError("address already in use")
    except OSError as error:
        raise StartupError(f"cannot listen on `{path}`: {reason(error)}") from None


def remove_uds(path: str | os.PathLike[str]) -> None:
    """Removes the socket at `path`, unless another server listens there by now."""
    path = os.fspath(path)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode) and not _is_live(path):
            os.unlink(path)


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
