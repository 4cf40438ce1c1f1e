"""The loggers of the server, in the process of the command line and in those that serve.

Python's `logging` has the last word on a line of the server: it is a record of `aiovoy.error`, of `aiovoy.asgi` if it
tells of the application, or of `aiovoy.access`, and goes to the handlers that there are for it. Where only uvicorn's
loggers have any, as in configurations made for that, these are taken. What nobody takes a `LastHandler` writes.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import cast

Write = Callable[[str, str, str], None]
"""Writes a line of the log: its level, the name of its logger, and its text. Never fails, and never waits."""

LEVELS = {"critical": 50, "error": 40, "warning": 30, "info": 20, "debug": 10, "trace": 5}
"""The numbers that `logging` has for the server's levels; `trace` is uvicorn's."""

OURS = ("aiovoy", "uvicorn", "uvicorn.access")
"""The logger above those of the server, and those on which uvicorn has its handlers."""

UVICORNS = {"aiovoy.error": "uvicorn.error", "aiovoy.asgi": "uvicorn.error", "aiovoy.access": "uvicorn.access"}

_UNKNOWN = logging.getLogger("aiovoy-unknown")
"""One that nobody knows, so that `disable_existing_loggers` alone disables it."""

_SEND_AWAY = ("opentelemetry", "sentry_sdk")
"""Packages whose handlers send records to somewhere else besides, and stand for nobody's log."""


class LastHandler(logging.Handler):
    """Writes records that no other handler takes."""

    is_json = False
    """Whether it writes objects of JSON."""

    def __init__(self, write: Write, logger: str = "aiovoy") -> None:
        super().__init__()
        self._write = write
        self._logger = logger
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        name, level = record.name, record.levelno
        try:
            # The server's may have gone to the one of uvicorn's that stands for it.
            through = name if self._logger == "aiovoy" else UVICORNS.get(name, name)
            if takers(logging.getLogger(through), level):
                return
            text = self.format(record).encode("utf-8", "backslashreplace").decode()
            if self._pid == os.getpid():
                self._write(level_name(level), name, text)
            else:  # a forked child has no log of the server's
                sys.stderr.write(f"{text}\n")
        except Exception:
            self.handleError(record)


def level_name(number: int) -> str:
    """The server's name of a level of `logging`."""
    return next(name for name, least in (*LEVELS.items(), ("trace", number)) if number >= least)


_last: dict[str, LastHandler] = {}
"""The last handler of each logger in `OURS`."""

_taken: set[str] = set()
"""Loggers whose last handler others have taken away."""

_given: set[str] = set()
"""Loggers that were given a level, unless they had one."""


class _Given(int):
    """A level that was given here, and by nobody who means the same number."""


def set_up(write: Write, level: str) -> None:
    """Makes `write` the last resort of our loggers and uvicorn's, which have `level` unless others have set theirs."""
    _be_as_uvicorns()
    keep_last()
    for name in OURS:
        logger = logging.getLogger(name)
        if name in _last:
            logger.removeHandler(_last[name])
        _last[name] = LastHandler(write, name)
        logger.addHandler(_last[name])
        _give_level(logger, LEVELS[level])


def _be_as_uvicorns() -> None:
    """Makes uvicorn's logger for requests what it is there before others configure it."""
    logger = logging.getLogger("uvicorn.access")
    if logger.name not in _given:
        _give_level(logger, logging.INFO)
        if logger.propagate:
            # What has handlers of both is not written twice. None, since it is no False of somebody else's.
            logger.propagate = cast(bool, None)


def _give_level(logger: logging.Logger, level: int) -> None:
    if isinstance(logger.level, _Given) or (logger.level == logging.NOTSET and logger.name not in _given):
        logger.setLevel(_Given(level))
    _given.add(logger.name)


def keep_last() -> None:
    """Puts the last handlers back where a configuration has taken them away."""
    for name, handler in _last.items():
        logger = logging.getLogger(name)
        if handler not in logger.handlers:
            _taken.add(name)
            logger.addHandler(handler)


class LoggingConfigError(ValueError):
    """`logging` cannot be configured like that; the message says why."""


def configure(source: str) -> None:
    """Configures `logging` by a file, or by what `dictConfig` takes, in JSON; once for a process.

    A file is JSON or YAML if its name says so, else as `fileConfig` has it. Raises `LoggingConfigError`.
    """
    if source in _configured:
        return
    _be_as_uvicorns()
    try:
        _configure(source)
    except Exception as error:
        what = "a dictionary" if source.startswith("{") else f"`{source}`"
        hint = "\nhint: `pip install pyyaml`" if getattr(error, "name", None) == "yaml" else ""
        causes = ": ".join(dict.fromkeys(map(_words, _causes(error))))
        raise LoggingConfigError(f"`log_config` of {what} cannot be applied: {causes}{hint}") from error
    _configured[:] = [source]
    _enable()


_configured: list[str] = []


def _configure(source: str) -> None:
    import logging.config

    if source.startswith("{"):
        found = json.loads(source)
    elif source.endswith(".json"):
        with open(source, encoding="utf-8") as file:
            found = json.load(file)
    elif source.endswith((".yaml", ".yml")):
        import yaml

        with open(source, encoding="utf-8") as file:
            found = yaml.safe_load(file)
    else:
        logging.config.fileConfig(source, disable_existing_loggers=False)
        return
    if not isinstance(found, dict):
        raise TypeError(f"it is no dictionary, but a {type(found).__name__}")
    logging.config.dictConfig(found)


def _words(error: BaseException) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error) or repr(error)


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


def _enable() -> None:
    """Undoes what `disable_existing_loggers` does to loggers that a configuration does not know of."""
    for logger in (_UNKNOWN, *map(logging.getLogger, (*OURS, *UVICORNS, *UVICORNS.values()))):
        logger.disabled = False


def logger_of(name: str, level: int) -> logging.Logger:
    """The logger that a record for our logger `name` is to go to."""
    ours, theirs = _both(name)
    return theirs if takers(theirs, level) and not takers(ours, level) else ours


def _both(name: str) -> tuple[logging.Logger, logging.Logger]:
    """Our logger `name`, and uvicorn's for the same."""
    if _UNKNOWN.disabled:
        _enable()
    return logging.getLogger(name), logging.getLogger(UVICORNS[name])


def lets_through(logger: logging.Logger, level: int) -> bool:
    """Whether `logger` takes records of `level`; a level that it was given here keeps none away."""
    if logger.isEnabledFor(level):
        return True
    if logger.disabled or logger.manager.disable >= level:
        return False
    at = logger
    while at.level == logging.NOTSET and at.parent is not None:
        at = at.parent
    return isinstance(at.level, _Given)


def are_requests_unwanted() -> bool:
    """Whether requests are to be written nowhere, by what others have made of `aiovoy.access`, or uvicorn's logger."""
    ours, theirs = _both("aiovoy.access")
    if not (lets_through(ours, logging.INFO) and lets_through(theirs, logging.INFO)):
        return True
    for logger in (ours, theirs):
        if logger is theirs and not _configured and theirs.name not in _taken:
            continue  # under uvicorn there would be its own handler still
        if not all(map(_is_beside, logger.handlers)) or logger.propagate in (False, 0):
            above = logger.parent if logger.propagate is None else None
            return not (takers(logger, logging.INFO) or (above and takers(above, logging.INFO)))
    return False


def writes_json() -> bool:
    """Whether the handlers of our lines write objects of JSON: all that do not write files."""
    logger = logger_of("aiovoy.error", logging.ERROR)
    if any(isinstance(handler, LastHandler) and handler.is_json for handler in logger.handlers):
        return True
    record = logger.makeRecord(logger.name, logging.ERROR, "", 0, "a line", (), None)
    found: list[logging.Handler] = []
    for handler in takers(logger, logging.ERROR):
        listener = getattr(handler, "listener", None)  # of a queue, whose handlers write
        found += getattr(listener, "handlers", [handler])
    found = [handler for handler in found if not isinstance(handler, logging.FileHandler)]
    return bool(found) and all(_formats_json(handler, record) for handler in found)


def _formats_json(handler: logging.Handler, record: logging.LogRecord) -> bool:
    try:
        return is_object(handler.format(record))
    except Exception:  # it may be anybody's
        return False


def is_object(text: str) -> bool:
    """Whether `text` is an object of JSON."""
    try:
        return text.startswith("{") and isinstance(_STRICT.decode(text), dict)
    except ValueError:
        return False


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is Python's alone")


_STRICT = json.JSONDecoder(parse_constant=_refuse)
"""Takes no `NaN`, as `json.loads` does."""


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
