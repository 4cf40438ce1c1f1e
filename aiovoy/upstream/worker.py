"""A worker: `python -m aiovoy.upstream.worker APP SETTINGS DESCRIPTOR...`, as `workers` starts it.

APP is what `ps` shows; SETTINGS is the file of the settings; each DESCRIPTOR is that of a socket, which the launcher
has listen. Nothing of the launcher is imported here.
"""

import os
import sys
from pathlib import Path

from ..embedded import interpreter, stacks
from .server import new_server, run
from .settings import Settings


def main() -> int:
    """Serves until the launcher, or a signal, says otherwise. Returns the exit code."""
    app, file, *descriptors = sys.argv[1:]
    filenos = [int(descriptor) for descriptor in descriptors]
    sys.argv = ["aiovoy", app]
    if not sys.flags.safe_path:
        del sys.path[0]  # the working directory, which `-m` has put there
    stacks.dump_at_signal()
    if (lock := os.environ.get("AIOVOY_LOCK")) is not None:
        os.set_inheritable(int(lock), False)
    settings = Settings.from_json(Path(file).read_text("utf-8"))
    server = new_server(settings, filenos, opening=_nothing, ready=_nothing, closing=_nothing)
    for fileno in filenos:
        os.close(fileno)  # it has its own
    interpreter.forget_launcher()
    # Of the terminal's end the launcher hears, too.
    return run(server, stopping=_nothing, hung_up=_nothing)


def _nothing() -> None:
    """The launcher sees to it."""


if __name__ == "__main__":
    sys.exit(main())
