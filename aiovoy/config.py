"""The settings of a server.

A setting that Envoy's side interprets and that is not set here is left out of the bootstrap, so that its default is
written once, in `src/config.rs`.
"""

import os
import re
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from .appname import app_name
from .errors import ConfigError

Loop = Literal["uvloop", "asyncio"]
Lifespan = Literal["auto", "on", "off"]
LogLevel = Literal["critical", "error", "warning", "info", "debug", "trace"]

LOOPS: tuple[Loop, ...] = get_args(Loop)
LIFESPANS: tuple[Lifespan, ...] = get_args(Lifespan)
LOG_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
"""Least talkative first."""


@dataclass(frozen=True)
class Config:
    """Settings of one server; a wrong one raises `ConfigError`."""

    app: str
    """The application, as `module:attribute`."""

    _: KW_ONLY

    factory: bool = False
    """Whether the attribute is called, without arguments, to make the application."""

    app_dir: str | os.PathLike[str] | None = None
    """Folder to import the application from; by default the working directory."""

    root_path: str = ""
    """Path that a proxy in front strips: the scope's `root_path`."""

    loop: Loop | None = None
    """Event loop; by default uvloop."""

    lifespan: Lifespan | None = None
    """Whether lifespan events are sent; by default `auto`: if the application understands them."""

    host: str = "127.0.0.1"
    """Address or host name to listen on."""

    port: int = 8000
    """Port to listen on; 0 takes a free one."""

    log_level: LogLevel = "info"
    """The least severe messages that are logged."""

    access_log: bool = False
    """Whether each request is logged on standard output."""

    env_file: str | os.PathLike[str] | None = None
    """File of environment variables for the application; those already set win."""

    timeout_graceful_shutdown: float | None = None
    """Seconds that requests in flight get to finish when the server stops; by default 30."""

    timeout_keep_alive: float = 5
    """Seconds after which an idle connection is closed."""

    envoy: str | os.PathLike[str] | None = None
    """Another Envoy binary than the one installed with aiovoy."""

    @classmethod
    def of(cls, app: object, **settings: Any) -> Self:
        """Settings for an application object, or for `module:attribute`; changes `settings` of a `Config`."""
        if isinstance(app, cls):
            return replace(app, **settings)
        if not isinstance(app, str):
            app, app_dir = app_name(app)
            settings.setdefault("app_dir", app_dir)
        return cls(app, **settings)

    def __post_init__(self) -> None:
        if not _APP.fullmatch(self.app):
            raise ConfigError(f"expected an application as `module:attribute`, got `{self.app}`")
        _check_choice("loop", self.loop, LOOPS)
        _check_choice("lifespan", self.lifespan, LIFESPANS)
        _check_choice("log_level", self.log_level, LOG_LEVELS)
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"expected `port` from 0 to 65535, got `{self.port}`")
        if self.timeout_graceful_shutdown is not None and self.timeout_graceful_shutdown < 0:
            raise ConfigError(
                f"expected `timeout_graceful_shutdown` of 0 or more, got `{self.timeout_graceful_shutdown}`"
            )
        if self.timeout_keep_alive <= 0:
            raise ConfigError(f"expected `timeout_keep_alive` above 0, got `{self.timeout_keep_alive}`")
        if self.env_file is not None and not Path(self.env_file).is_file():
            raise ConfigError(f"found no `env_file` at `{self.env_file}`")


_APP = re.compile(r"[^\s:]+:[^\s:]+")
"""Not stricter: what can be imported is for the import to say, inside Envoy."""


def _check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise ConfigError(f"expected `{name}` to be one of {', '.join(choices)}, got `{value}`")
