"""Fixtures of the end-to-end suite: a running server, and connections to it."""

import contextlib
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from py_tests.harness.certificates import Pair
from py_tests.harness.conformance import Conformance, protocol_of
from py_tests.harness.deadline import DEADLINE
from py_tests.harness.exchange import Connection
from py_tests.harness.http3 import Http3Connection
from py_tests.harness.protocols import CLIENTS, HTTP3, Connect, http3_options, is_spoken, protocols
from py_tests.harness.serving import (
    AIOVOY,
    DIRECT,
    RECENT,
    RESPONSE_PATH,
    UNDER_TEST,
    Serve,
    Server,
    serve,
)
from py_tests.harness.wire import Tls


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The certificate of servers that nothing else is wanted of."""
    return Pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test file's `app`, started once for the file."""
    tests = [item for item in request.session.items if item.path == request.path]
    http3 = any(protocol_of(item) == HTTP3 for item in tests)
    options = http3_options(request.getfixturevalue("pair")) if http3 else {}
    with serve(f"{request.module.__name__}:app", **options) as server:
        yield server


@pytest.fixture(name="serve")
def serve_fixture(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Starts servers for one test: `serve(app, timeout_graceful_shutdown=1)`."""
    http3 = "protocol" in request.fixturenames and request.getfixturevalue("protocol") == HTTP3
    common = http3_options(request.getfixturevalue("pair")) if http3 else {}
    with contextlib.ExitStack() as servers:
        yield lambda app, **options: servers.enter_context(serve(app, **{**common, **options}))


@pytest.fixture
def protocol(request: pytest.FixtureRequest) -> str:
    """Tests that use it run once for each protocol; for which ones, `pytest_generate_tests` says."""
    protocol: str = request.param
    return protocol


@pytest.fixture
async def connect(protocol: str) -> AsyncIterator[Connect]:
    """Opens connections that speak `protocol`: `connect(server)`, or `connect(server, Tls())` under TLS."""
    async with contextlib.AsyncExitStack() as connections:

        async def open_connection(server: Server, tls: Tls | None = None) -> Connection:
            connection: Connection
            if protocol == HTTP3:
                connection = await Http3Connection.open(server.ssl_port, tls or Tls())
            else:
                connection = await CLIENTS[protocol].open(server.ssl_port if tls else server.port, tls)
            return await connections.enter_async_context(connection)

        yield open_connection


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "protocol" in metafunc.fixturenames:
        metafunc.parametrize("protocol", protocols(metafunc.definition), indirect=True)


@pytest.fixture
async def client(server: Server, protocol: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that people use, for what needs cookies, forms and files; it speaks `protocol`."""
    http2 = protocol == "http/2"
    options: dict[str, Any] = {"http1": not http2, "http2": http2, "trust_env": False, "timeout": DEADLINE}
    async with httpx.AsyncClient(base_url=server.url, **options) as client:
        yield client


@pytest.fixture
def key() -> str:
    """A query string of the test's own, under which its application writes notes."""
    return uuid.uuid4().hex


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", type=int, default=1, help="of each test take one of so many cases, and one at least")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if foreign := [item for item in items if not is_spoken(item)]:
        config.hook.pytest_deselected(items=foreign)
        items[:] = [item for item in items if is_spoken(item)]
    step = config.getoption("--every")
    if step == 1:
        return
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    # The first case of one test, the second of the next: so each protocol has its share.
    kept = {item for at, cases in enumerate(tests.values()) for item in cases[at % min(step, len(cases)) :: step]}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_configure(config: pytest.Config) -> None:
    # Under nohup servers would ignore it as well: what is handled here is not ignored there.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    config.addinivalue_line("markers", "protocols(*names): the protocols that a test runs with")
    config.addinivalue_line("markers", "conforms(*lines, on=()): the lines of conformance.py that a test is about")
    if (UNDER_TEST, RESPONSE_PATH) == (AIOVOY, DIRECT):
        config.pluginmanager.register(Conformance(config))


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
