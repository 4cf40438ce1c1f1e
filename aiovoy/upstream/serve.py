"""Serves in this process, on its main thread."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import aiovoy

from ..embedded import interpreter, signals
from ..launcher.config import LOG_LEVELS, Config
from ..launcher.environ import read_env_file
from ..launcher.listening import Listening
from .settings import network_settings, settings


def serve(config: Config) -> int:
    """Serves until the server is told to stop by SIGINT or SIGTERM, or does not start. Returns the exit code."""
    from .. import network

    aiovoy.inside_server = True
    network.log_to_stderr(_LEVELS[config.log_level])
    interpreter.log = signals._log = network.log_function()
    os.environ.update({**read_env_file(config.env_file), **os.environ})
    sys.path.insert(0, os.fspath(config.app_dir or os.getcwd()))
    listening = Listening(config, 1)
    with contextlib.closing(listening):
        news = LOG_LEVELS.index(config.log_level) >= LOG_LEVELS.index("info")

        def ready() -> None:
            if news:
                print(f"aiovoy running on {' and '.join(listening.urls)} (press CTRL+C to quit)", file=sys.stderr)

        server = network.Server(
            json.dumps(settings(config)),
            json.dumps(network_settings(config)),
            listening.filenos(0),
            listening.listen,
            ready,
        )

        def stop() -> None:
            server.stop()
            if news:
                print("aiovoy stopping (press CTRL+C again to quit at once)", file=sys.stderr)

        with _stopped_by_signals(stop):
            code: int = server.run()
        return code


_LEVELS = {"critical": "error", "error": "error", "warning": "warn", "info": "info", "debug": "debug", "trace": "trace"}


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    seen: list[int] = []

    def handle(number: int, _: Any) -> None:
        seen.append(number)
        if len(seen) > 1:
            os._exit(128 + number)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
