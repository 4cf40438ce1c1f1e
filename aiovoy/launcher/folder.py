"""The private folder of a server: files and sockets of its workers, each in a folder in it."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from .workers.hot_restart import remove_memory

LONGEST_NAME = "999.999999/hot_udp_parent_1999999990"
"""Of the sockets in it."""

_MARK = "launcher.pid"


class RunFolder:
    """A new folder that only the own user may enter (mode 0700).

    Its launcher and its workers hold a lock on it, so a folder that nobody holds was left by a launcher that was
    killed. Making a folder removes those.
    """

    def __init__(self) -> None:
        self.path = _make()
        self._lock = _open(self.path)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            (self.path / _MARK).write_text(f"{os.getpid()}\n")
            _remove_left(self.path.parent)

    def fileno(self) -> int:
        """The descriptor with the lock, for workers to inherit."""
        return self._lock

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _make() -> Path:
    """A folder whose path is short enough for the sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if len(os.fsencode(folder / LONGEST_NAME)) <= _LONGEST_SOCKET_PATH:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))


def _remove_left(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*/"):
        # Gone by now, locked, or somebody else's.
        with contextlib.suppress(OSError):
            lock = _open(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A folder without has just been made, or is no folder of ours at all.
                if os.fstat(lock).st_uid == os.geteuid() and (folder / _MARK).is_file():
                    for worker in folder.iterdir():
                        remove_memory(worker)
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


_PREFIX = "aiovoy-"

_LONGEST_SOCKET_PATH = 107
"""Bytes of `sun_path`, without the zero at its end (unix(7))."""
