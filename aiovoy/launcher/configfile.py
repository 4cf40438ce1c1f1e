"""The file of settings: `aiovoy.toml`, or `[tool.aiovoy]` in `pyproject.toml`.

Only those who have one pay for this module.
"""

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .config import Config, checked, kind_of
from .errors import ConfigError
from .port import reason


@dataclass(frozen=True)
class ConfigFile:
    """What stands there, in the types of its options; ranges and choices are not checked."""

    path: str
    settings: Mapping[str, Any]

    def hint(self, message: str, names: Iterable[str]) -> str:
        """Which of its settings `names` the error `message` is about, if any."""
        named = [f"`{name}`" for name in names if any(f"`{word}`" in message for word in self._words(name))]
        return f"\nhint: `{self.path}` has {' and '.join(named)}" if named else ""

    def _words(self, name: str) -> list[str]:
        """By which an error may name it: as a setting, or by its value."""
        value = self.settings[name]
        return [name, *map(str, value if isinstance(value, list | dict) else [value])]


def read(path: str, options: Mapping[str, click.Parameter], refused: Mapping[str, str]) -> ConfigFile | None:
    """The settings at `path`, each for one of `options`; `None` for a `pyproject.toml` that has none.

    `refused` are those that are not for the command, with the reason.
    """
    try:
        table = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read `{path}`: {reason(error)}") from None
    except ValueError as error:
        raise ConfigError(f"`{path}` is not TOML: {error}") from None
    if os.path.basename(path) == "pyproject.toml":
        tools = table.get("tool")
        if not isinstance(tools, dict) or "aiovoy" not in tools:
            return None
        table = tools["aiovoy"]
        if not isinstance(table, dict):
            raise ConfigError(f"`{path}`: expected `tool.aiovoy` to be a table, got {kind_of(table)}")
    elif "tool" in table:
        raise ConfigError(f"`{path}`: `[tool.aiovoy]` is for `pyproject.toml`; here the settings stand at the top")
    settings: dict[str, Any] = {}
    try:
        for key, name, value in _named(table):
            if name not in options:
                from . import elsewhere

                raise ConfigError(elsewhere.unknown(key, options, refused))
            settings[name] = _as_option(options[name], key, value)
    except ConfigError as error:
        raise ConfigError(f"`{path}`: {error}") from None
    return ConfigFile(path, settings)


def _named(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The keys of a table, the settings that they name, and the values."""
    seen = set()
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in seen:
            raise ConfigError(f"`{name}` stands there twice, as `{key}`, too")
        seen.add(name)
        yield key, name, value


def _as_option(option: click.Parameter, key: str, value: Any) -> Any:
    """`value` as click takes it for `option`; `ConfigError` if it is of another type than the setting has."""
    name = option.name or ""
    if name == "uds_permissions" and not isinstance(value, str):
        raise ConfigError(f"expected `{key}` to be a string of octal digits, got {kind_of(value)}")
    value = checked(f"`{key}`", value, _IN_FILE.get(name) or Config.__annotations__[name])
    if name == "mount":
        return {prefix: _underscored(app) for prefix, app in value.items()}
    if option.multiple or name == "forwarded_allow_ips":
        values = [value] if isinstance(value, str) else value
        return values if option.multiple else ",".join(values)
    return str(value) if isinstance(option.type, click.Choice) else value


_IN_FILE = {"uds_permissions": str, "log_config": str}
"""The types of settings that are of others in Python."""


def _underscored(app: Any) -> Any:
    """What is said of an application at a prefix, if it is more than its name."""
    return {name: value for _, name, value in _named(app)} if isinstance(app, dict) else app
