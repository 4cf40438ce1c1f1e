"""What can go wrong before requests are served.

    AiovoyError
    ├── ConfigError    a setting is wrong; nothing was started
    └── StartupError   Envoy, the interpreter or the application did not start

Errors of single requests never get here: they are answered and logged inside Envoy.
"""

import aiovoy


class AiovoyError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(AiovoyError, ValueError):
    """A setting is wrong. The message names the setting and the value."""


class StartupError(AiovoyError):
    """The server ended before it was ready, or could not be started at all."""

    exit_code: int
    """Envoy's exit status (negative: it died by that signal), or 1 if it never ran."""

    reported: bool
    """Whether the reason already stands on the server's standard error."""

    def __init__(self, message: str, *, exit_code: int = 1, reported: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.reported = reported


def refuse_inside_server() -> None:
    """Raises `StartupError` where the application runs: it would import that again, start the next one, and so on."""
    if aiovoy.inside_server:
        raise StartupError(
            "a server was started where the application runs\n"
            'hint: a script that is its own application starts it below `if __name__ == "__main__":`'
        )
