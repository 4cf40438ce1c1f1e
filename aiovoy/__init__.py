"""aiovoy: an application server for Python that lives inside Envoy.

    from aiovoy import Server

    async with Server("main:app") as server:
        await server.wait()

The command `aiovoy` does the same. `importer`, `lifespan` and `interpreter` are for the bridge and run inside Envoy;
all the rest runs in the process that starts Envoy.
"""

from .config import Config
from .errors import AiovoyError, ConfigError, StartupError
from .server import Server

__all__ = ["AiovoyError", "Config", "ConfigError", "Server", "StartupError", "__version__"]

__version__ = "0.1.0"
