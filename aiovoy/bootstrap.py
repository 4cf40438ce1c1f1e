"""Config → Envoy's bootstrap, by filling in the files of `templates/`.

Values go in as JSON, which YAML reads as it stands: no value can change the shape of the document.
"""

import json
import os
import resource
import string
import textwrap
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from .config import Config
from .environ import bridge_path
from .errors import ConfigError


def bootstrap(config: Config, *, host: str, port: int, admin: str | Path, python: str) -> str:
    """The bootstrap that serves `config` on `host` and `port`.

    `host` is an IP address, since Envoy resolves no names; `admin` is where its admin interface listens; `python` is
    the executable of the environment that the application runs in.
    """
    settings = _settings(config, admin, python)
    return _fill(
        "bootstrap.yaml",
        admin=_quote(str(admin)),
        max_connections=_quote(_max_connections()),
        bridge=_quote(str(bridge_path())),
        settings=_block((f"{name}: {_quote(value)}" for name, value in settings.items()), indent=8),
        host=_quote(host),
        port=_quote(port),
        keep_alive=_quote(_duration(config.timeout_keep_alive)),
        access_log=_block(_access_log(config), indent=10),
    )


def _settings(config: Config, admin: str | Path, python: str) -> dict[str, str | float | bool]:
    """What the bridge is told. What is not set is left out: `src/config.rs` has the defaults."""
    app_dir = None if config.app_dir is None else os.path.abspath(config.app_dir)
    settings = {
        "app": config.app,
        "factory": config.factory or None,
        "app_dir": app_dir,
        "python": python or None,
        "loop": config.loop,
        "lifespan": config.lifespan,
        "root_path": config.root_path or None,
        "timeout_graceful_shutdown": _number(config.timeout_graceful_shutdown),
        "admin": str(admin),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _number(value: float | None) -> float | None:
    """Whole numbers as such: of a `Struct` in YAML Envoy reads `1` as a number, but `1.0` as a string."""
    return int(value) if value is not None and value == int(value) else value


def _access_log(config: Config) -> list[str]:
    if not config.access_log:
        return ["# No access log: `--access-log` writes one."]
    return _template("access_log.yaml").splitlines()


def _max_connections() -> int:
    """Three quarters of the file descriptors; the rest is for the application and for Envoy itself."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return 1_000_000
    return max(1, descriptors * 3 // 4)


def _duration(seconds: float) -> str:
    """`google.protobuf.Duration` as JSON: decimals, no exponent. Not 0, which would mean no limit at all."""
    return f"{max(seconds, 0.001):.3f}".rstrip("0").rstrip(".") + "s"


def _quote(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"expected a setting in UTF-8, got `{text}`") from None
    return text


def _block(lines: Iterable[str], indent: int) -> str:
    """Lines for a placeholder that stands alone on its line, `indent` columns from the left."""
    return textwrap.indent("\n".join(lines), " " * indent).lstrip()


def _fill(template: str, **values: str) -> str:
    return string.Template(_template(template)).substitute(values)


def _template(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")
