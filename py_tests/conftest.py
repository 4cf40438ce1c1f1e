"""Fixtures of the end-to-end suite: a running server, and connections to it."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from exchange import Connection
from http1 import Http1Connection
from http2 import Http2Connection
from serving import AIOVOY, RECENT, UNDER_TEST, UVICORN, Server, serve

Serve = Callable[..., Server]
Connect = Callable[[Server], Awaitable[Connection]]

PROTOCOLS = ["http/1.1", "http/2"] if UNDER_TEST == AIOVOY else ["http/1.1"]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test file's `app`, started once for the file."""
    with serve(f"{request.module.__name__}:app") as server:
        yield server


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Serve]:
    """Starts servers for one test: `serve(app, timeout_graceful_shutdown=1)`."""
    with contextlib.ExitStack() as servers:
        yield lambda app, **options: servers.enter_context(serve(app, **options))


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """Tests that use it run once for each protocol."""
    protocol: str = request.param
    return protocol


@pytest.fixture
async def connect(protocol: str) -> AsyncIterator[Connect]:
    """Opens connections that speak `protocol`."""
    async with contextlib.AsyncExitStack() as connections:

        async def open_connection(server: Server) -> Connection:
            client = Http1Connection if protocol == "http/1.1" else Http2Connection
            return await connections.enter_async_context(await client.open(server.port))

        yield open_connection


@pytest.fixture
def key() -> str:
    """A query string of the test's own, under which its application writes notes."""
    return uuid.uuid4().hex


def unlike_uvicorn(reason: str) -> pytest.MarkDecorator:
    """For tests of what the specification wants and uvicorn does not do."""
    return pytest.mark.skipif(UNDER_TEST == UVICORN, reason=reason)


def pytest_runtest_setup() -> None:
    RECENT[:] = [server for server in RECENT if server.process.returncode is None]
    for server in RECENT:
        server.mark = len(server.log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Shows the servers' logs with a failure."""
    report = yield
    if report.failed:
        for server in RECENT:
            report.sections.append((f"log of {server.kind}", server.fresh_log[-8000:]))
    return report
