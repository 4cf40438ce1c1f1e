"""The server's lines, on their way to Python's `logging`.

Runs inside Envoy; on loop threads, and on one of the bridge's own for what other threads have to say.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

from aiovoy import logs

_write: logs.Write | None = None


def set_up(write: logs.Write, level: str) -> None:
    """What no handler takes goes to `write` from now on."""
    global _write
    _write = write
    logs.set_up(write, level)


def configure(source: str) -> None:
    """Configures `logging`; `RuntimeError` if that cannot be done."""
    try:
        logs.configure(source)
    except logs.LoggingConfigError as error:
        raise RuntimeError(str(error)) from None


def log(level: str, text: str) -> None:
    """Logs what the server has to say. Never raises."""
    if not emit("aiovoy.error", level, text, None) and _write is not None:
        _write(level, "aiovoy.error", text)


def emit(name: str, level: str, text: str, error: BaseException | None, args: tuple[object, ...] = ()) -> bool:
    """Gives a record to our logger `name`. Returns whether that could be done; never raises, whatever handlers do."""
    if _write is None:
        return False
    number = logs.LEVELS[level]
    try:
        logger = logs.logger_of(name, number)
        if name == "aiovoy.access" or logger.isEnabledFor(number):  # of requests it has been asked already
            if not logger.hasHandlers():
                return False
            info: tuple[type[BaseException], BaseException, TracebackType | None] | None = None
            if error is not None:
                info = (type(error), error, error.__traceback__)
            _handle(logger, logger.makeRecord(name, number, __file__, 0, text, args, info))
    except BaseException:
        _write("error", name, f"logging has failed\n{traceback.format_exc().rstrip()}")
        return False
    return True


def access(client: str, method: str, target: str, version: str, status: int) -> None:
    """Logs a request as uvicorn does, with the same arguments. Never raises."""
    if logs.are_requests_unwanted():
        return
    text, args = '%s - "%s %s HTTP/%s" %d', (client, method, target, version, status)
    if not emit("aiovoy.access", "info", text, None, args) and _write is not None:
        _write("info", "aiovoy.access", text % args)


def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Also by the level and the filters that uvicorn's logger has, which are meant for such records."""
    theirs = logging.getLogger(logs.UVICORNS[record.name])
    if logger is theirs or (logs.lets_through(theirs, record.levelno) and theirs.filter(record)):
        logger.handle(record)


def look() -> tuple[bool, bool, bool]:
    """What has been configured: whether handlers take the server's lines; whether requests are for `access`, as nobody
    may want them; and whether handlers write JSON.
    """
    if _write is None:
        return False, False, False
    logs.keep_last()
    access = logs.logger_of("aiovoy.access", logging.INFO)
    takes_requests = bool(logs.takers(access, logging.INFO)) or logs.are_requests_unwanted()
    takes = bool(logs.takers(logs.logger_of("aiovoy.error", logging.ERROR), logging.ERROR))
    return takes, takes_requests, logs.writes_json()
