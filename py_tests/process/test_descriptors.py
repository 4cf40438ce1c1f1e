"""File descriptors: a server that may have only few of them."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiovoy.launcher.bootstrap import OWN_DESCRIPTORS
from py_tests.harness.apps import Receive, Scope, Send, answer, routes
from py_tests.harness.certificates import Pair
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.folders import ROOT
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.serving import AIOVOY, RECENT, Server, command, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")


async def file(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, Path(__file__).read_bytes())


async def subprocess(scope: Scope, receive: Receive, send: Send) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe, stderr=pipe)
    output, _ = await process.communicate(b"through cat")
    await answer(send, output)


app = routes(file, subprocess)


@contextlib.contextmanager
def serve_with(descriptors: int, **options: Any) -> Iterator[Server]:
    words = command(f"{__name__}:app", lifespan="off", **options)
    server = Server(["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *words], AIOVOY, ROOT, {})
    RECENT.append(server)
    try:
        server.wait_until_started()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_connections_leave_descriptors_for_the_application(loop: str) -> None:
    # The first connection stays until the last has been tried.
    with serve_with(72, loop=loop, timeout_keep_alive=600) as server:
        served = []
        async with contextlib.AsyncExitStack() as connections:
            for _ in range(100):
                connection = await connections.enter_async_context(await Http1Connection.open(server.port))
                try:
                    assert (await connection.get("/file")).body == Path(__file__).read_bytes()
                except (ResponseCut, ConnectionError):
                    continue  # beyond the limit: closed
                served.append(connection)
            assert len(served) == (72 - OWN_DESCRIPTORS) * 3 // 4
            for path, expected in [("/subprocess", b"through cat"), ("/file", Path(__file__).read_bytes())]:
                responses = await asyncio.gather(*(one.get(path) for one in served[:2]))
                assert [response.body for response in responses] == [expected] * 2
        assert "Too many open files" not in server.log


@of_envoy("it has none of Envoy's")
async def test_descriptors_of_the_server_itself(tmp_path: Path) -> None:
    """What is left out of account for connections is what a server with all its parts holds."""
    pair = Pair(tmp_path)
    options = {**pair.options, "ssl_port": 0, "http3": True, "access_log": True}
    with serve_with(1024, **options) as server:
        (envoy,) = psutil.Process(server.pid).children()
        assert envoy.num_fds() <= OWN_DESCRIPTORS
