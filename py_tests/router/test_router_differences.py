"""What is not the same on the two response paths: a test for each row of the table in docs/router.md."""

import re
from collections.abc import Iterator

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, routes, start
from py_tests.harness.folders import ROOT
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, http3_options
from py_tests.harness.serving import DIRECT, ROUTER, Server, serve, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about Envoy's router")

SIZE = 200_000


async def big(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello", headers=[(b"x-big", b"x" * (9 * 1024 * 1024))])


async def many(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello", headers=[(b"x", b"y")] * 100_001)


async def repeats(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, headers=[(b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"3")])


async def ends_early(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"x" * SIZE)


app = routes(big, ends_early, many, repeats)


@pytest.fixture(scope="module", params=[DIRECT, ROUTER])
def path(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(path: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(f"{__name__}:app", response_path=path, **http3_options(request.getfixturevalue("pair"))) as server:
        yield server


def test_each_row_is_tested() -> None:
    page = (ROOT / "docs" / "router.md").read_text()
    table = page.partition("## What is not the same")[2]
    rows = re.findall(r"^\| (\w+)", table, re.MULTILINE)
    assert rows == ["Response", "Response", "On"]


@pytest.mark.parametrize("kind", ["big", "many"])
async def test_response_head_beyond_envoys_limits(server: Server, path: str, kind: str) -> None:
    async with await Http1Connection.open(server.port) as connection:
        response = await connection.get(f"/{kind}")
    assert response.status in ({200} if path == DIRECT else {502, 503})
    assert (await server.get("/notes")).status == 200


async def test_response_fields_of_one_name_stand_together(server: Server, connect: Connect, path: str) -> None:
    response = await (await connect(server)).get("/repeats")
    own = [value for name, value in response.headers if name.startswith(b"x-")]
    assert own == ([b"1", b"2", b"3"] if path == DIRECT else [b"1", b"3", b"2"])


@pytest.mark.protocols(HTTP1, HTTP2, HTTP3)
async def test_response_that_ends_before_the_upload_is_whole(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("POST", "/ends_early", upload=True)
    await exchange.send(b"hello")
    response = await exchange.response()
    assert (response.status, len(response.body)) == (200, SIZE)
