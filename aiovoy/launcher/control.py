"""The control channel between the launcher and the bridge.

The launcher listens on a Unix socket, the bridge connects when Envoy has loaded it. Lines of JSON come in, one word a
line goes out:

    {"event": "started"}                                                      the applications have started
    listen                                                                    open the listeners
    {"event": "ready", "python": "3.11.7", "workers": 1, "loop": "uvloop"}    Envoy accepts connections
    {"event": "failed", "message": "..."}                                     start-up failed, Envoy will exit
    shutdown                                                                  stop gracefully
    abort                                                                     stop at once

The end of the launcher's side, however it came, makes the bridge stop gracefully: Envoy does not outlive its launcher.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Event = dict[str, Any]
Command = Literal["listen", "shutdown", "abort"]


class ControlChannel:
    """The launcher's side. A thread of its own gives each event to `on_event`."""

    def __init__(self, path: Path, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._lock = threading.Lock()  # guards the next two
        self._connection: socket.socket | None = None
        self._closing = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(path))
            self._listener.listen(1)
        except OSError:
            self._listener.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="aiovoy-control", daemon=True)
        self._thread.start()

    def send(self, command: Command) -> bool:
        """Sends `command`; False if the bridge is not there to hear it."""
        with self._lock:
            if self._connection is None:
                return False
            try:
                self._connection.sendall(f"{command}\n".encode())
            except OSError:
                return False
            return True

    def close(self) -> None:
        """Ends the channel once the events that have arrived are handled."""
        with self._lock:
            self._closing = True
            if self._connection is None:
                _shut_down(self._listener)
            else:
                _shut_down(self._connection)
        self._thread.join()

    def _serve(self) -> None:
        with self._listener:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
        with connection, connection.makefile("rb") as lines:
            with self._lock:
                self._connection = connection
                if self._closing:
                    _shut_down(connection)
            try:
                for line in lines:
                    self._on_event(json.loads(line))
            except (OSError, ValueError):
                pass  # the bridge died in the middle of a line
            with self._lock:
                self._connection = None


def _shut_down(waiting: socket.socket) -> None:
    """Wakes the thread that waits on the socket. What was received before can still be read."""
    with contextlib.suppress(OSError):
        waiting.shutdown(socket.SHUT_RDWR)
