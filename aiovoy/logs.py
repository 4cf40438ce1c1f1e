"""The loggers of the server, in the process of the command line and in those that serve.

Python's `logging` has the last word on a line of the server: it is a record of `aiovoy.error`, of `aiovoy.asgi` if it
tells of the application, or of `aiovoy.access`, and goes to the handlers that there are for it. Where only uvicorn's
loggers have any, as in configurations made for that, these are taken. What nobody takes a `LastHandler` writes.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

Write = Callable[[str, str, str], None]
"""Writes a line of the log: its level, the name of its logger, and its text. Never fails, and never waits."""

LEVELS = {"critical": 50, "error": 40, "warning": 30, "info": 20, "debug": 10, "trace": 5}
"""The numbers that `logging` has for the server's levels; `trace` is uvicorn's."""

OURS = ("aiovoy", "uvicorn")
"""The loggers above those of the server, and those that applications know from uvicorn."""

UVICORNS = {"aiovoy.error": "uvicorn.error", "aiovoy.asgi": "uvicorn.error", "aiovoy.access": "uvicorn.access"}

_SEND_AWAY = ("opentelemetry", "sentry_sdk")
"""Packages whose handlers send records to somewhere else besides, and stand for nobody's log."""


class LastHandler(logging.Handler):
    """Writes records that no other handler takes."""

    is_json = False
    """Whether it writes objects of JSON."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        if not takers(logging.getLogger(record.name), record.levelno):
            text = self.format(record).encode("utf-8", "backslashreplace").decode()
            self._write(level_name(record.levelno), record.name, text)


def level_name(number: int) -> str:
    """The server's name of a level of `logging`."""
    return next(name for name, least in (*LEVELS.items(), ("trace", number)) if number >= least)


def set_up(write: Write, level: str) -> None:
    """Makes `write` the last resort of our loggers and uvicorn's, which have `level` from now on."""
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, LastHandler)]
        logger.addHandler(LastHandler(write))
        logger.setLevel(LEVELS[level])


class LoggingConfigError(ValueError):
    """`logging` cannot be configured like that; the message says why."""


def configure(source: str) -> None:
    """Configures `logging` by a file, or by what `dictConfig` takes, in JSON.

    A file is JSON or YAML if its name says so, else as `fileConfig` has it. Raises `LoggingConfigError`.
    """
    try:
        _configure(source)
    except Exception as error:
        what = "a dictionary" if source.startswith("{") else f"`{source}`"
        hint = "\nhint: `pip install pyyaml`" if getattr(error, "name", None) == "yaml" else ""
        causes = ": ".join(dict.fromkeys(str(one) or repr(one) for one in _causes(error)))
        raise LoggingConfigError(f"`log_config` of {what} cannot be applied: {causes}{hint}") from error


def _configure(source: str) -> None:
    import logging.config

    if source.startswith("{"):
        logging.config.dictConfig(json.loads(source))
    elif source.endswith(".json"):
        with open(source, encoding="utf-8") as file:
            logging.config.dictConfig(json.load(file))
    elif source.endswith((".yaml", ".yml")):
        import yaml

        with open(source, encoding="utf-8") as file:
            logging.config.dictConfig(yaml.safe_load(file))
    else:
        logging.config.fileConfig(source, disable_existing_loggers=False)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, and what it was raised from, down to the first."""
    while error is not None:
        yield error
        error = error.__cause__


def takers(logger: logging.Logger, level: int) -> list[logging.Handler]:
    """The handlers that take a record of `level`, besides those of ours and those that only send it away."""
    found: list[logging.Handler] = []
    at: logging.Logger | None = logger
    while at is not None:
        found += [handler for handler in at.handlers if handler.level <= level and not _is_beside(handler)]
        at = at.parent if at.propagate else None
    return found


def _is_beside(handler: logging.Handler) -> bool:
    return isinstance(handler, LastHandler) or type(handler).__module__.partition(".")[0] in _SEND_AWAY


def logger_of(name: str, level: int) -> logging.Logger:
    """The logger that a record for our logger `name` is to go to."""
    ours, theirs = logging.getLogger(name), logging.getLogger(UVICORNS[name])
    for logger in (ours, theirs):
        at: logging.Logger | None = logger
        while at is not None:
            # A configuration that does not name it has done so, by `disable_existing_loggers`, and does not mean it.
            at.disabled = False
            at = at.parent
    return theirs if takers(theirs, level) and not takers(ours, level) else ours


def writes_json(name: str = "aiovoy.error") -> bool:
    """Whether the handlers of our logger `name` write an object of JSON for an error."""
    logger = logger_of(name, logging.ERROR)
    record = logger.makeRecord(name, logging.ERROR, "", 0, "a line", (), None)
    if any(isinstance(handler, LastHandler) and handler.is_json for handler in logger.handlers):
        return True
    for handler in takers(logger, logging.ERROR):
        try:
            if isinstance(json.loads(handler.format(record)), dict):
                return True
        except Exception:  # it may be anybody's
            continue
    return False


def become_json() -> None:
    """Has the last handler of our loggers write objects of JSON from now on."""
    for handler in logging.getLogger("aiovoy.error").handlers:
        if isinstance(handler, LastHandler):
            handler.is_json = True


def to_json(level: str, logger: str, text: str, time: str | None = None) -> str:
    """A line of JSON, with the time of now, for those that no formatter of `logging` makes."""
    if time is None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"timestamp": time, "level": level, "logger": logger, "message": text}, ensure_ascii=False)


def wants_colors(fileno: int) -> bool:
    """Whether a standard stream is a terminal that colours are welcome on (https://no-color.org)."""
    return os.isatty(fileno) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
