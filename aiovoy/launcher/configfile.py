"""The file of settings: `aiovoy.toml`, or `[tool.aiovoy]` in `pyproject.toml`.

Only those who have one pay for this module.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

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


def read(path: str, options: Mapping[str, click.Parameter]) -> ConfigFile | None:
    """The settings at `path`, each for one of `options`; `None` for a `pyproject.toml` that has none."""
    try:
        table = tomllib.loads(Path(path).read_bytes().decode())
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
            raise ConfigError(f"`{path}`: expected `tool.aiovoy` to be a table, got {_kind(table)}")
    settings: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in options:
            from . import elsewhere

            raise ConfigError(f"`{path}`: {elsewhere.unknown(key, options)}")
        if name in settings:
            raise ConfigError(f"`{path}`: `{name}` stands there twice, as `{key}`, too")
        try:
            settings[name] = _as_option(options[name], value)
        except _UnexpectedError as expected:
            raise ConfigError(f"`{path}`: expected `{key}` to be {expected}, got {_kind(value)}") from None
    return ConfigFile(path, settings)


def _as_option(option: click.Parameter, value: Any) -> Any:
    """`value` as click takes it for `option`; of another type than the setting has, it is `_UnexpectedError`."""
    if option.name == "mount":
        if not isinstance(value, dict):
            raise _UnexpectedError("a table")
        return {prefix: _underscored(app) for prefix, app in value.items()}
    if option.multiple or option.name == "forwarded_allow_ips":
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in values):
            raise _UnexpectedError("a string, or an array of strings")
        return values if option.multiple else ",".join(values)
    kinds, words = _kinds(option)
    if type(value) not in kinds:  # to `isinstance` true is a number
        raise _UnexpectedError(words)
    return value if kinds[0] is not str else str(value)


def _kinds(option: click.Parameter) -> tuple[list[type], str]:
    """The types that a value of `option` may have, and how they are called."""
    match option:
        case click.Parameter(name="workers"):
            return [int, str], "a whole number or a string"
        case click.Parameter(name="fd" | "ssl_cert_reqs"):
            return [str, int], "a string or a whole number"
        case click.Parameter(name="uds_permissions"):
            return [str], "a string of octal digits"
        case click.Parameter(type=click.types.BoolParamType()):
            return [bool], "a boolean"
        case click.Parameter(type=click.IntRange()):
            return [int], "a whole number"
        case click.Parameter(type=click.FloatRange()):
            return [float, int], "a number"
    return [str], "a string"


class _UnexpectedError(Exception):
    """The message says what was expected."""


_NAMES = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "a table",
}


def _kind(value: object) -> str:
    return _NAMES.get(type(value), "a date or a time")


def _underscored(app: Any) -> Any:
    """What is said of an application at a prefix, if it is more than its name."""
    return {key.replace("-", "_"): value for key, value in app.items()} if isinstance(app, dict) else app
