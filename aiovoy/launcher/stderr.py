"""What the launcher says to people, on standard error.

It is only talk: one that is closed or full, or that nobody reads, stops and delays nothing that is asked of the server.
Nor do handlers of Python's `logging`, which may have to wait for anything.
"""

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
        """Says `text`, on a line or lines of its own. Does not wait, and never fails."""
        self._records.put(logging.LogRecord("aiovoy.error", level, __file__, 0, text, (), None))

    def emit(self, record: logging.LogRecord) -> None:
        self._records.put(record)

    def finish(self) -> None:
        """Waits for what has been said, but not for ever."""
        self._records.put(None)
        self._thread.join(_FINISH_SECONDS)

    def _work(self) -> None:
        while (record := self._records.get()) is not None:
            handlers = self._handlers or takers(logger_of("aiovoy.error", record.levelno), record.levelno)
            try:
                for handler in handlers:
                    if record.levelno >= handler.level:
                        handler.handle(record)
            except Exception as error:  # they are somebody else's
                self._print("error", record.name, f"logging has failed: {error!r}")
                handlers = ()
            if not handlers:
                self._print(level_name(record.levelno), record.name, self.format(record))

    def _print(self, level: str, logger: str, text: str) -> None:
        if self.is_json:
            text = to_json(level, logger, text)
        elif self._colors and level in _COLORS:
            text = f"\x1b[{_COLORS[level]}m{text}\x1b[0m"
        # Not by `sys.stderr`: a write that blocks would hold its lock, which the end of the interpreter needs.
        with contextlib.suppress(OSError):  # nobody can be told
            write_all(2, f"{text}\n".encode(sys.getfilesystemencoding(), "backslashreplace"))
