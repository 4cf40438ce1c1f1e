"""pytest fixture `aiovoy_server`: an application behind a real Envoy, in sync and async tests alike.

def test_hello(aiovoy_server):
    server = aiovoy_server("main:app", lifespan="on")
    assert httpx.get(server.url).text == "hello"
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .launcher.config import Config
from .launcher.descriptors import Output
from .launcher.workers.supervisor import Supervisor

StartServer = Callable[..., Supervisor]
"""`aiovoy_server(app, **settings)`: the arguments are those of `aiovoy.Server`."""


@pytest.fixture
def aiovoy_server() -> Iterator[StartServer]:
    """Starts servers, on free ports unless told otherwise; they are stopped when the test ends.

    A started server has `url`, `host`, `port`, `ssl_port`, `pid` and `stop()`.
    """
    with ExitStack() as servers:

        def start(app: object, *, stdout: Output = None, stderr: Output = None, **settings: Any) -> Supervisor:
            config = Config.of(app, **{"port": 0, **settings})
            server = Supervisor(config, stdout=stdout, stderr=stderr)
            servers.callback(server.stop)
            server.ready.result()
            return server

        yield start
