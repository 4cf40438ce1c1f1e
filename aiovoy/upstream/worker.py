"""A worker: `python worker.py APP SETTINGS DESCRIPTOR...`, as `workers` starts it.

APP is what `ps` shows; SETTINGS is the file of the settings; each DESCRIPTOR is that of a socket, which the launcher
has listen. Nothing of the launcher is imported here. Of this package, too, only SETTINGS says where it is.
"""

import json
import os
import sys
from pathlib import Path


def main() -> int:
    """Serves until the launcher, or a signal, says otherwise. Returns the exit code."""
    app, file, *descriptors = sys.argv[1:]
    filenos = [int(descriptor) for descriptor in descriptors]
    told = json.loads(Path(file).read_text("utf-8"))
    sys.argv = ["aiovoy", app]
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this file
    first = told["python_path"]
    sys.path[:] = [*first, *(entry for entry in sys.path if entry not in first)]

    from aiovoy.embedded import interpreter, stacks
    from aiovoy.upstream.server import new_server, run
    from aiovoy.upstream.settings import Settings

    stacks.dump_at_signal()
    if (lock := os.environ.get("AIOVOY_LOCK")) is not None:
        os.set_inheritable(int(lock), False)
    server = new_server(Settings(**told["settings"]), filenos, opening=_nothing, ready=_nothing, closing=_nothing)
    for fileno in filenos:
        os.close(fileno)  # it has its own
    interpreter.forget_launcher()
    # Of the terminal's end the launcher hears, too.
    return run(server, stopping=_nothing, hung_up=_nothing)


def _nothing() -> None:
    """The launcher sees to it."""


if __name__ == "__main__":
    sys.exit(main())
