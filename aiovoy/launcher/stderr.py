"""What the launcher says to people, on standard error.

It is only talk: one that is closed or full, or that nobody reads, stops and delays nothing that is asked of the server.
"""

import contextlib
import logging
import queue
import sys
import threading

from .descriptors import write_all

_FINISH_SECONDS = 1.0
"""How long the exit waits for what has been said; a standard error that is read takes no time worth mentioning."""


class Talk(logging.Handler):
    """Says one thing after the other in a thread of its own; as a handler, also what this package logs."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="aiovoy-talk", daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        """Says `text`, on a line or lines of its own. Does not wait, and never fails."""
        self._texts.put(text)

    def emit(self, record: logging.LogRecord) -> None:
        self.say(self.format(record))

    def finish(self) -> None:
        """Waits for what has been said, but not for ever."""
        self._texts.put(None)
        self._thread.join(_FINISH_SECONDS)

    def _write(self) -> None:
        while (text := self._texts.get()) is not None:
            # Not by `sys.stderr`: a write that blocks would hold its lock, which the end of the interpreter needs.
            with contextlib.suppress(OSError):  # nobody can be told
                write_all(2, f"{text}\n".encode(sys.getfilesystemencoding(), "backslashreplace"))
