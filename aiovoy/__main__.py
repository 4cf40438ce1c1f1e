"""`aiovoy`, and `python -m aiovoy`."""

import os
import sys

_COMPLETE = "_AIOVOY_COMPLETE"
"""The variable by which a shell asks what may come next; the words that are there come by another one."""


def main(prog_name: str | None = None) -> None:
    """Serves from inside Envoy, or without it: `aiovoy upstream`."""
    words = os.environ.get("COMP_WORDS", "").split() if _COMPLETE in os.environ else sys.argv
    if words[1:2] == ["upstream"]:
        from .upstream.cli import main as command

        command.main(sys.argv[2:], f"{prog_name or 'aiovoy'} upstream", _COMPLETE)
    else:
        from .launcher.cli import main as command

        command.main(prog_name=prog_name)


if __name__ == "__main__":
    main("python -m aiovoy")
