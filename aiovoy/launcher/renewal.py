"""Certificates that are renewed on disk while the server runs.

Envoy could watch the files itself, but would take them up at any moment: half written, or a certificate whose key is
yet to come. So it watches a folder of ours, in which something is renamed once the new files fit together, and reads
them again then. Looking at the files each second finds every way of replacing them.
"""

import contextlib
import logging
import os
import threading
from pathlib import Path

from .certificates import Authorities, Certificate
from .errors import ConfigError

POLL_SECONDS = 1.0

_logger = logging.getLogger("aiovoy.error")


class Renewal:
    """Watches files that Envoy has read, in a thread of its own."""

    def __init__(self, secrets: dict[Path, Certificate | Authorities]) -> None:
        """`secrets` by the folder that Envoy watches for each."""
        self._watched = [_Watched(folder, secret) for folder, secret in secrets.items()]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="aiovoy-renewal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        # It may be held up by a complaint that its logger cannot write, and the server's end is not to be.
        self._thread.join(POLL_SECONDS)

    def _watch(self) -> None:
        while not self._closed.wait(POLL_SECONDS):
            for watched in self._watched:
                watched.look()


class _Watched:
    def __init__(self, folder: Path, secret: Certificate | Authorities) -> None:
        self._folder = folder
        self._secret = secret
        self._seen = self._state()
        self._complained = False

    def look(self) -> None:
        """Has Envoy read the files if they have changed and are good."""
        state = self._state()
        if state == self._seen:
            return
        try:
            self._secret.check()
            if state != self._state():
                return  # changed meanwhile: look again
            token = self._folder / "token"
            token.touch()
            token.rename(self._folder / "renewed")
        except (ConfigError, OSError) as error:
            if not self._complained:
                _logger.warning("kept the certificate in use: %s", error)
            self._complained = True
            return
        self._seen = state
        self._complained = False

    def _state(self) -> list[tuple[int, int, int, int] | None]:
        return [_state(path) for path in self._secret.files]


def _state(path: Path) -> tuple[int, int, int, int] | None:
    """What changes with the file at `path`, links followed; None if there is none."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None
