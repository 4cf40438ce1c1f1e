"""pytest fixtures that serve an application from a real Envoy, in sync and async tests alike.

def test_hello(aiovoy_server):
    server = aiovoy_server("main:app", lifespan="on")
    assert httpx.get(server.url).text == "hello"

What `aiovoy_server` starts ends with the test, what `aiovoy_session_server` starts with the last one.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from .launcher.config import Config
from .launcher.descriptors import Output
from .launcher.workers.supervisor import Supervisor

StartServer = Callable[..., Supervisor]
"""`start(app, **settings)`: the arguments are those of `aiovoy.Server`.

A started server has `url`, `host`, `port`, `ssl_port`, `pid` and `stop()`.
"""


@pytest.fixture
def aiovoy_server() -> Iterator[StartServer]:
    """Starts servers, on free ports unless told otherwise; they are stopped when the test ends."""
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

        def start(app: object, *, stdout: Output = None, stderr: Output = None, **settings: Any) -> Supervisor:
            config = Config.of(app, **{"port": 0, **settings})
            server = Supervisor(config, stdout=stdout, stderr=stderr)
            servers.callback(server.stop)
            server.ready.result()
            return server

        yield start
