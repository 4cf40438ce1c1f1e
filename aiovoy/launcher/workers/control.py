"""The control channel between the launcher and the bridge.

The launcher listens on a Unix socket, the bridge connects when Envoy has loaded it. Lines of JSON come in, one word a
line goes out:

    {"event": "started"}                                                      the application has started; `listen` next
    {"event": "logs", "json": true, "requests": false}                        what `logging` is like: whether lines are
                                                                              objects, and whether it has requests
    {"event": "ready", "python": "3.11.7", "workers": 1, "loop": "uvloop"}    Envoy accepts connections
    {"event": "failed", "message": "..."}                                     start-up failed, Envoy will exit
    {"event": "pong", "loops": [0], "requests": 7, "in_flight": 1}            the answer to `ping`: for each loop, how
                                                                              many milliseconds it has not turned
    listen                                                                    let Envoy accept connections
    shutdown                                                                  stop gracefully
    retire SECONDS                                                            likewise, but with so long for idle
                                                                              connections to be told
    abort                                                                     stop at once
    pause                                                                     leave connections to others, on sockets
                                                                              that are shared; `resume` ends that. An
                                                                              Envoy looks at a file for it
    ping                                                                      answered by a thread of its own
    explain                                                                   log what runs, and where

The end of the launcher's side, however it came, makes the bridge stop gracefully: Envoy does not outlive its launcher.
"""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

Event = dict[str, Any]

STACKS_SIGNAL = signal.SIGRTMAX - 6
"""At this signal the bridge's Python writes the tracebacks of all threads, see `aiovoy/embedded/stacks.py`."""


class ControlChannel:
    """The launcher's side, in an event loop. Each event is given to `on_event`; `on_connect` is called before."""

    def __init__(self, path: Path, on_connect: Callable[[], None], on_event: Callable[[Event], None]) -> None:
        self._on_connect = on_connect
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._connection: socket.socket | None = None
        self._rest = b""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(path))
            self._listener.listen(1)
        except OSError:
            self._listener.close()
            raise
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def send(self, word: str) -> bool:
        """Sends a word; False if the bridge is not there to hear it."""
        if self._connection is None:
            return False
        try:
            return self._connection.send(f"{word}\n".encode()) > 0
        except OSError:  # it has gone, or has not read for very long
            return False

    def close(self) -> None:
        """Handles the events that have arrived, and ends the channel."""
        self._accept()
        self._read()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._disconnect()

    def _accept(self) -> None:
        if self._connection is not None:
            return
        with contextlib.suppress(BlockingIOError):
            self._connection, _ = self._listener.accept()
            self._connection.setblocking(False)
            self._loop.add_reader(self._connection, self._read)
            self._on_connect()

    def _read(self) -> None:
        while self._connection is not None:
            try:
                received = self._connection.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                received = b""
            if not received:
                self._disconnect()
                return
            *lines, self._rest = (self._rest + received).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    self._on_event(json.loads(line))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._loop.remove_reader(self._connection)
            self._connection.close()
            self._connection = None
