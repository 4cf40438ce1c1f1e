"""Serves in this process, on its main thread."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiovoy

from ..embedded import interpreter, signals
from ..launcher.config import LOG_LEVELS, Config
from ..launcher.descriptors import fill_standard
from ..launcher.environ import SYSTEMD, check_library, extension_path, read_env_file
from ..launcher.errors import StartupError
from ..launcher.listening import QUEUE_SECONDS, Listening
from ..launcher.run import has_terminal
from ..launcher.stderr import Talk
from .settings import Settings


def serve(config: Config) -> int:
    """Serves until the server is told to stop by SIGINT or SIGTERM, or does not start. Returns the exit code."""
    fill_standard()
    talk = Talk()
    says = talk.say if LOG_LEVELS.index(config.log_level) >= LOG_LEVELS.index("info") else _say_nothing
    try:
        check_library(extension_path())
        with contextlib.closing(Listening(config, 1)) as listening:
            os.environ.update({**read_env_file(config.env_file), **os.environ})
            os.environ["AIOVOY_WORKER"] = "1"  # as where there are several
            for name in SYSTEMD:  # it has them
                os.environ.pop(name, None)
            server = new_server(
                Settings.of(config),
                listening.filenos(0),
                opening=listening.listen,
                ready=lambda: says(f"aiovoy running on {' and '.join(listening.urls)} (press CTRL+C to quit)"),
                closing=lambda: _close(listening),
            )
            return run(
                server,
                stopping=lambda: says("aiovoy stopping (press CTRL+C again to quit at once)"),
                hung_up=_end_with_the_terminal(),
            )
    except StartupError as error:
        talk.say(f"error: {error}")
        return error.exit_code
    finally:
        talk.finish()


def new_server(
    settings: Settings,
    filenos: Sequence[int],
    *,
    opening: Callable[[], None],
    ready: Callable[[], None],
    closing: Callable[[], None],
) -> Any:
    """A server on the sockets with these descriptors, which `opening` has listen; `ready` hears that it serves.

    When it stops, `closing` closes what else there is of the sockets, and leaves those who have come time to be let in.
    What the modules of the application need of this process is seen to.
    """
    from .. import network

    aiovoy.inside_server = True
    network.log_to_stderr(_LEVELS[settings.log_level])
    interpreter.use_log(network.log_function())
    sys.path.insert(0, settings.app_dir)
    told = json.dumps(settings.bridge), json.dumps(settings.network)
    return network.Server(*told, filenos, opening, ready, closing)


def run(server: Any, *, stopping: Callable[[], None], hung_up: Callable[[], None]) -> int:
    """Runs a server to its end, which SIGINT and SIGTERM bring. Returns the exit code.

    At the first one `stopping` is called, and at SIGHUP `hung_up`. Handlers are Python's own, so the application may
    have others once it runs.
    """
    stops: list[int] = []

    def stop(number: int, _: Any) -> None:
        stops.append(number)
        if len(stops) > 1:
            os._exit(128 + number)
        server.stop()
        stopping()

    def handle_stops() -> None:
        for number in signals.SERVERS:
            signal.signal(number, stop)

    handle_stops()
    handlers: dict[int, Callable[..., None]] = dict.fromkeys(signals.HARMLESS, lambda *_: None)
    handlers[signal.SIGHUP] = lambda *_: hung_up()
    for number, handler in handlers.items():
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, handler)
    # Modules may have handlers of their own as soon as they are imported, where they can't mean the server.
    code: int = server.run(handle_stops)
    return code


def _end_with_the_terminal() -> Callable[[], None]:
    """What there is to do at SIGHUP: if there was a terminal, and it has gone, to stop."""
    had_terminal = has_terminal()

    def hung_up() -> None:
        if had_terminal and not has_terminal():
            signal.raise_signal(signal.SIGTERM)
        else:
            interpreter.log("warning", "SIGHUP replaces workers, and there are none\nhint: `--workers 1`")

    return hung_up


_LEVELS = {"critical": "error", "error": "error", "warning": "warn", "info": "info", "debug": "debug", "trace": "trace"}


def _close(listening: Listening) -> None:
    listening.close_soon()
    time.sleep(QUEUE_SECONDS)
    listening.close_listeners()


def _say_nothing(_: str) -> None:
    pass
