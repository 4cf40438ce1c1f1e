"""`aiovoy`, and `python -m aiovoy`."""

import sys


def main(prog_name: str | None = None) -> None:
    """Serves from inside Envoy, or without it: `aiovoy upstream`."""
    if sys.argv[1:2] == ["upstream"]:
        from .upstream.cli import main as command

        command.main(sys.argv[2:], f"{prog_name or 'aiovoy'} upstream")
    else:
        from .launcher.cli import main as command

        command.main(prog_name=prog_name)


if __name__ == "__main__":
    main("python -m aiovoy")
