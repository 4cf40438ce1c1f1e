"""A server in this process: on its main thread, if the process is the server's."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiovoy

from ..embedded import signals
from .settings import Settings


def new_server(
    settings: Settings,
    filenos: Sequence[int],
    *,
    opening: Callable[[], None],
    ready: Callable[[], None],
    closing: Callable[[], None],
    app: object = None,
) -> Any:
    """A server on the sockets with these descriptors, which `opening` has listen; `ready` hears that it serves.

    When it stops, `closing` closes what else there is of the sockets, and leaves those who have come time to be let in.
    What the modules of the application need of this process is seen to; unless the application is `app`, an object of
    this process, which is not the server's then.
    """
    from .. import network

    if app is None:
        aiovoy.inside_server = True
        sys.path.insert(0, settings.app_dir)
    network.log_to_stderr(_LEVELS[settings.log_level])
    told = json.dumps(settings.bridge), json.dumps(settings.network)
    return network.Server(*told, filenos, opening, ready, closing, app)


def run(server: Any, *, stopping: Callable[[], None], hung_up: Callable[[], None]) -> int:
    """Runs a server to its end, which SIGINT and SIGTERM bring. Returns the exit code.

    At the first one `stopping` is called, and at SIGHUP `hung_up`. Handlers are Python's own, so the application may
    have others once it runs.
    """
    first: float | None = None

    def stop(number: int, _: Any) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            server.stop()
            stopping()
        elif time.monotonic() - first >= signals.ECHO_SECONDS:
            os._exit(128 + number)

    def handle_stops() -> None:
        for number in signals.SERVERS:
            if signal.signal(number, stop) is not stop:
                signals.warn(number)

    for one in signals.SERVERS:
        signal.signal(one, stop)
    handlers: dict[int, Callable[..., None]] = dict.fromkeys(signals.HARMLESS, lambda *_: None)
    handlers[signal.SIGHUP] = lambda *_: hung_up()
    for number, handler in handlers.items():
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, handler)
    # What modules handle as soon as they are imported can't mean the server.
    code: int = server.run(handle_stops)
    return code


_LEVELS = {"critical": "error", "error": "error", "warning": "warn", "info": "info", "debug": "debug", "trace": "trace"}
