"""What the launcher says to people, on standard error.

It is only talk: one that is closed or full, or that nobody reads, stops and delays nothing that is asked of the server.
Nor do handlers of Python's `logging`, which may have to wait for anything.
"""

import atexit
import contextlib
import logging
import queue
import sys
import threading
from collections.abc import Sequence

from ..logs import LastHandler, level_name, logger_of, takers, to_json
from .descriptors import write_all

_FINISH_SECONDS = 1.0
"""How long the exit waits for what has been said; a standard error that is read takes no time worth mentioning."""

_COLORS = {"error": 31, "critical": 31, "warning": 33}


class Talk(LastHandler):
    """Says one thing after the other in a thread of its own; as a handler, also what this package logs.

    What `logging` has handlers for goes to these, in that thread, too; or to `handlers`, if there are any.
    """

    def __init__(self, handlers: Sequence[logging.Handler] = (), *, colors: bool = False) -> None:
        super().__init__(self._print)
        self._handlers = handlers
        self._colors = colors
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="aiovoy-talk", daemon=True)
        self._thread.start()

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Says `text`, on a line or lines of its own; the logger may leave out news. Never waits, and never fails."""
        if level >= logging.ERROR or logging.getLogger("aiovoy.error").isEnabledFor(level):
            self._records.put(logging.LogRecord("aiovoy.error", level, __file__, 0, text, (), None))

    def emit(self, record: logging.LogRecord) -> None:
        self._records.put(record)

    def finish(self) -> None:
        """Waits for what has been said, but not for ever; nor does the end of the interpreter then."""
        self._records.put(None)
        self._thread.join(_FINISH_SECONDS)
        if self._thread.is_alive():
            atexit.unregister(logging.shutdown)  # it would wait for the lock of a handler

    def _work(self) -> None:
        while (record := self._records.get()) is not None:
            handlers = self._handlers or takers(logger_of("aiovoy.error", record.levelno), record.levelno)
            try:
                for handler in handlers:
                    if record.levelno >= handler.level:
                        self._give(handler, record)
                if not handlers:
                    self._print(level_name(record.levelno), record.name, self.format(record))
            except Exception as error:  # handlers and arguments are somebody else's
                self._print("error", record.name, f"{record.msg}\nlogging has failed: {error!r}")

    def _give(self, handler: logging.Handler, record: logging.LogRecord) -> None:
        if type(handler) is logging.StreamHandler and handler.stream is sys.stderr:
            if handler.filter(record):
                self._put(handler.format(record))
        else:
            handler.handle(record)

    def _print(self, level: str, logger: str, text: str) -> None:
        if self.is_json:
            text = to_json(level, logger, text)
        elif self._colors and level in _COLORS:
            text = f"\x1b[{_COLORS[level]}m{text}\x1b[0m"
        self._put(text)

    @staticmethod
    def _put(text: str) -> None:
        # Not by `sys.stderr`: a write that blocks would hold its lock, which the end of the interpreter needs.
        with contextlib.suppress(OSError):  # nobody can be told
            write_all(2, f"{text}\n".encode(sys.getfilesystemencoding(), "backslashreplace"))
