"""Serves in the process of the command line, of which there is no other then."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

from .. import logs
from ..embedded import stacks
from ..embedded.logs import log
from ..launcher.config import Config
from ..launcher.descriptors import fill_standard
from ..launcher.environ import SYSTEMD, check_library, extension_path, read_env_file
from ..launcher.errors import StartupError
from ..launcher.listening import QUEUE_SECONDS, Listening
from ..launcher.logs import configure, for_people
from ..launcher.stderr import Talk
from ..launcher.terminal import has_terminal
from .server import new_server, run
from .settings import Settings


def serve(config: Config) -> int:
    """Serves until the server is told to stop by SIGINT or SIGTERM, or does not start. Returns the exit code."""
    fill_standard()
    stacks.dump_at_signal()
    config = for_people(config)
    configure(config)
    talk = Talk(colors=bool(config.use_colors))
    talk.is_json = logs.writes_json()
    try:
        check_library(extension_path())
        with contextlib.closing(Listening(config, 1)) as listening:
            settings = Settings.of(config)  # without the file of variables, which is the application's
            os.environ.update({**read_env_file(config.env_file), **os.environ})
            os.environ["AIOVOY_WORKER"] = "1"  # as where there are several
            for name in SYSTEMD:  # it has them
                os.environ.pop(name, None)
            sys.argv = ["aiovoy", config.first_app]
            server = new_server(
                settings,
                listening.filenos(0),
                opening=listening.listen,
                ready=lambda: talk.say(f"aiovoy running on {' and '.join(listening.urls)} (press CTRL+C to quit)"),
                closing=lambda: _close(listening),
            )
            return run(
                server,
                stopping=lambda: talk.say("aiovoy stopping (press CTRL+C again to quit at once)"),
                hung_up=_end_with_the_terminal(),
            )
    except StartupError as error:
        talk.say(f"error: {error}", logging.ERROR)
        return error.exit_code
    finally:
        talk.finish()


def _end_with_the_terminal() -> Callable[[], None]:
    """What there is to do at SIGHUP: if there was a terminal, and it has gone, to stop."""
    had_terminal = has_terminal()

    def hung_up() -> None:
        if had_terminal and not has_terminal():
            signal.raise_signal(signal.SIGTERM)
        else:
            log("warning", "SIGHUP replaces workers, and there are none\nhint: `--workers 1`")

    return hung_up


def _close(listening: Listening) -> None:
    listening.close_soon()
    time.sleep(QUEUE_SECONDS)
    listening.close_listeners()
