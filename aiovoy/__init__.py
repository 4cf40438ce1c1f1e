"""aiovoy: an application server for Python that lives inside Envoy.

    aiovoy.run("main:app")

The command `aiovoy` does the same; `Server` is for asyncio code. `launcher` runs in the process that starts Envoy;
`embedded` runs inside Envoy, where the bridge calls it. Neither imports the other, and this package imports nothing of
either before it is asked for. What both need is here: `inside_server` and `allocators`. So is what users and tools
name: `environ`, `pytest_plugin`, the bridge.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .launcher.config import Config
    from .launcher.errors import AiovoyError, ConfigError, StartupError
    from .launcher.run import run
    from .launcher.server import Server

__all__ = ["AiovoyError", "Config", "ConfigError", "Server", "StartupError", "__version__", "run"]

__version__ = "0.1.0"

inside_server = False
"""Whether the application runs here, in Envoy or without it: asked for by `launcher`."""

_HOMES = {
    "AiovoyError": ".launcher.errors",
    "Config": ".launcher.config",
    "ConfigError": ".launcher.errors",
    "Server": ".launcher.server",
    "StartupError": ".launcher.errors",
    "run": ".launcher.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
