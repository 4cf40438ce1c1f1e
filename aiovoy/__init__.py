"""aiovoy: an application server for Python that lives inside Envoy.

    from aiovoy import Server

    async with Server("main:app") as server:
        await server.wait()

The command `aiovoy` does the same. `importer`, `lifespan`, `interpreter`, `event_loop`, `signals` and `child` are for
the bridge and run inside Envoy; all the rest runs in the process that starts Envoy, and is imported when it is asked
for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .launcher.config import Config
    from .launcher.errors import AiovoyError, ConfigError, StartupError
    from .launcher.server import Server

__all__ = ["AiovoyError", "Config", "ConfigError", "Server", "StartupError", "__version__"]

__version__ = "0.1.0"

inside_envoy = False
"""Whether this is the interpreter that the bridge has started: set by `interpreter`, which no launcher imports."""

_HOMES = {
    "AiovoyError": ".launcher.errors",
    "Config": ".launcher.config",
    "ConfigError": ".launcher.errors",
    "Server": ".launcher.server",
    "StartupError": ".launcher.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
