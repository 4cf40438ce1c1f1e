"""`python -m aiovoy` is `aiovoy`."""

from .launcher.cli import main

if __name__ == "__main__":
    main(prog_name="python -m aiovoy")
