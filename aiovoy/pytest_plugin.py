"""pytest fixtures that serve an application, in sync and async tests alike.

def test_hello(aiovoy_server):
    server = aiovoy_server("main:app", lifespan="on")
    assert httpx.get(server.url).text == "hello"

`module:attribute` is served by a real Envoy, which imports it in a process of its own. An application object is served
in the process of the tests, in a thread and without Envoy: what tests replace in it is replaced.

What `aiovoy_server` starts ends with the test, what `aiovoy_session_server` starts with the last one.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from .launcher.workers.supervisor import Supervisor
    from .upstream.thread import ThreadServer


class RunningServer(Protocol):
    """A server that accepts connections."""

    @property
    def url(self) -> str: ...
    @property
    def urls(self) -> list[str]: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def ssl_port(self) -> int | None: ...
    @property
    def pid(self) -> int:
        """Where the application runs."""

    def stop(self) -> int:
        """Stops gracefully, before the test ends, and waits for that. Returns the exit status."""


class StartServer(Protocol):
    """`start(app, **settings)`: the arguments are those of `aiovoy.Server`."""

    def __call__(self, app: object, **settings: Any) -> RunningServer: ...


@pytest.fixture
def aiovoy_server() -> Iterator[StartServer]:
    """Starts servers, which are stopped when the test ends.

    They are on free ports, unless a `port` is given, or a `Config` has another one than the default.
    """
    with _servers() as start:
        yield start


@pytest.fixture(scope="session")
def aiovoy_session_server() -> Iterator[StartServer]:
    """Starts servers likewise, for fixtures that many tests share; they are stopped when the session ends."""
    with _servers() as start:
        yield start


@contextmanager
def _servers() -> Iterator[StartServer]:
    with ExitStack() as servers:

        def start(app: object, **settings: Any) -> RunningServer:
            server = _server(app, settings)
            servers.callback(server.stop)
            server.ready.result()
            return server

        yield start


def _server(app: object, settings: dict[str, Any]) -> "Supervisor | ThreadServer":
    # Every run of pytest imports this module, whether it has a use for it or not.
    from .launcher.config import Config
    from .launcher.workers.supervisor import Supervisor
    from .upstream.thread import ThreadServer

    if not isinstance(app, Config) or app.port == Config.port:
        settings = {"port": 0, **settings}
    if not isinstance(app, str | Config):
        return ThreadServer(app, **settings)
    outputs = {name: settings.pop(name, None) for name in ("stdout", "stderr")}
    return Supervisor(Config.of(app, **settings), **outputs)
