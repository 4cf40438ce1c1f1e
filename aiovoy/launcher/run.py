"""A server in the foreground: signals, what the terminal shows, the exit code."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import __version__, logs
from .config import Config
from .descriptors import fill_standard
from .errors import StartupError, refuse_inside_server
from .logs import configure, for_people, handlers_of_launcher
from .server import Server
from .stderr import Talk
from .terminal import has_terminal
from .workers.control import STACKS_SIGNAL
from .workers.process import Ready, exit_text


def run(app: object, **settings: Any) -> None:
    """Serves an application as the command `aiovoy` does, and returns when that has been told to stop.

    `app` and `settings` are those of `Server`. `ConfigError` if they make no sense; `SystemExit`, with the command's
    exit code, if the server does not start, fails, or is told to stop at once.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("only the main thread has signals\nhint: in other threads use `aiovoy.Server`")
    refuse_inside_server()
    if code := serve(Config.of(app, **settings)):
        sys.exit(code)


def serve(config: Config, make: type[Server] = Server) -> int:
    """Serves until the server is told to stop by SIGINT or SIGTERM, or does not start. Returns the exit code.

    The first signal stops gracefully and ends in 0, the second one at once and ends in 128 plus its number. A
    server that fails ends in a worker's exit status, or in 1 if a signal killed it. SIGHUP replaces all workers,
    SIGTTIN adds one and SIGTTOU takes one away.
    """
    fill_standard()
    config = for_people(config)
    logger = logging.getLogger("aiovoy.error")
    before = logger.handlers, logger.propagate, logger.level
    configure(config)
    talk = Talk(handlers_of_launcher(config), colors=bool(config.use_colors))
    talk.is_json = logs.writes_json()
    # Nobody here waits for a handler.
    logger.handlers, logger.propagate = [talk], False
    if not logger.level and not logging.getLogger("aiovoy").level:
        logger.setLevel(logs.LEVELS[config.log_level])
    try:
        return asyncio.run(_watch_over(make(config), talk))
    finally:
        talk.finish()
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])


async def _watch_over(server: Server, talk: Talk) -> int:
    stop = _Stop(server, talk)
    started = time.perf_counter()
    with stop.on_signals():
        try:
            ready = await server.start()
        except StartupError as error:
            if not stop.signals and not error.reported:
                talk.say(f"error: {error}", logging.ERROR)
            return stop.exit_code(error.exit_code)
        if os.isatty(2):
            talk.say(_banner(server, ready, time.perf_counter() - started))
        talk.say(f"aiovoy running on {' and '.join(server.urls)} (press CTRL+C to quit)")
        code = await server.wait()
    exit_code = stop.exit_code(code)
    if exit_code != 0 and len(stop.signals) < 2:
        talk.say(f"error: {server.kind.name} {exit_text(code)}", logging.ERROR)
    return exit_code


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_ECHO_SECONDS = 0.02
"""How long an echo of the first signal is waited for: `timeout` and the like send on what has reached us already."""


class _Stop:
    """What signals do. Workers get Ctrl-C from the terminal as well, so they are not passed on to them."""

    def __init__(self, server: Server, talk: Talk) -> None:
        self.signals: list[int] = []
        self._server = server
        self._talk = talk
        self._may_abort = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers: dict[int, Callable[[int], None]] = dict.fromkeys(_STOP_SIGNALS, self._signalled)
        # Other servers have a use for these; one that is sent them by habit must not end.
        handlers |= dict.fromkeys([signal.SIGUSR1, signal.SIGUSR2, STACKS_SIGNAL], _ignored)
        handlers[signal.SIGTTIN] = lambda _: self._server.grow()
        handlers[signal.SIGTTOU] = lambda _: self._server.shrink()
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            handlers[signal.SIGHUP] = self._hung_up if has_terminal() else self._roll
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler, number)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def exit_code(self, code: int) -> int:
        """The launcher's exit code, where a worker's was `code` (negative: it died by that signal)."""
        match self.signals:
            case [_, second, *_]:
                return 128 + second
            case [_] if -code in _STOP_SIGNALS:  # it was too young to handle them
                return 0
        return 1 if code < 0 else code

    def _signalled(self, number: int) -> None:
        if not self.signals:
            self.signals.append(number)
            self._server.shutdown()
            asyncio.get_running_loop().call_later(_ECHO_SECONDS, self._shutting_down)
        elif self._may_abort:
            self.signals.append(number)
            self._server.abort()

    def _hung_up(self, number: int) -> None:
        """SIGHUP: the terminal has gone, or there is new code."""
        if has_terminal():
            self._roll(number)
        elif not self.signals:
            self._signalled(number)

    def _roll(self, _: int) -> None:
        self._server.roll()

    def _shutting_down(self) -> None:
        self._may_abort = True
        self._talk.say("aiovoy stopping (press CTRL+C again to quit at once)")


def _ignored(_: int) -> None:
    pass


def _banner(server: Server, ready: Ready, seconds: float) -> str:
    workers = "1 worker" if ready.workers == 1 else f"{ready.workers} workers"
    python = f"CPython {ready.python}"
    what = [f"aiovoy {__version__}", *server.kind.versions(server.config), python, ready.loop, workers]
    return f"{', '.join(what)}, ready in {seconds * 1000:.0f} ms"
