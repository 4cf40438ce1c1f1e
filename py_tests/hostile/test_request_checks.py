"""What Envoy lets in although RFC 9110, 9112 or 9113 has it refused: no application is called for it."""

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, note, read, routes
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.http1 import Http1Connection, Http1Exchange
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Server, unlike_uvicorn

pytestmark = unlike_uvicorn("it has its own parsers")


async def called(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "called")
    await read(receive)
    await answer(send, [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"])


app = routes(called)

HEADS = {
    "two hosts": (b"GET /called?KEY HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two equal hosts": (b"GET /called?KEY HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "hosts in a list": (b"GET /called?KEY HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "host with a space": (b"GET /called?KEY HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "host with a path": (b"GET /called?KEY HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "host with a user": (b"GET /called?KEY HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
    "host with a name for a port": (b"GET /called?KEY HTTP/1.1\r\nHost: a:http\r\n\r\n", 400),
    "host with too high a port": (b"GET /called?KEY HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    "ipv6 host without brackets": (b"GET /called?KEY HTTP/1.1\r\nHost: ::1\r\n\r\n", 400),
    "connect": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
    "chunked in http/1.0": (
        b"POST /called?KEY HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
}


@pytest.mark.parametrize("name", HEADS)
async def test_http1_request_is_refused_and_its_connection_closed(server: Server, key: str, name: str) -> None:
    head, status = HEADS[name]
    follower = b"GET /called?%s HTTP/1.1\r\nHost: a\r\n\r\n" % key.encode()
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(head.replace(b"KEY", key.encode()) + follower)
        response = await Http1Exchange(connection).response()
        assert response.status == status
        assert response.header(b"connection") == b"close"
        with pytest.raises(ResponseCut):
            await Http1Exchange(connection).any_head()
    assert await server.notes(key) == []


HTTP2 = {
    "hosts in a list": ("GET", [(b"host", b"a,b")], 400),
    "value with a space before": ("GET", [(b"x-a", b" 1")], 400),
    "value with a tab behind": ("GET", [(b"x-a", b"1\t")], 400),
}


@pytest.mark.parametrize("name", HTTP2)
async def test_http2_request_is_refused_and_its_connection_kept(server: Server, key: str, name: str) -> None:
    method, headers, status = HTTP2[name]
    async with await Http2Connection.open(server.port) as connection:
        response = await connection.request(method, f"/called?{key}", headers=headers)
        assert response.status == status
        assert (await connection.get("/called")).status == 200
    assert await server.notes(key) == []


@pytest.mark.parametrize("host", ["a", "a:", "a:8000", "127.0.0.1", "[::1]", "[::1]:80", "x_y.z~", "xn--4gbwdl"])
async def test_host_is_let_in(server: Server, connect: Connect, host: str) -> None:
    connection = await connect(server)
    response = await connection.get("/called", [(b"host", host.encode())])
    assert response.json() == [host]


@pytest.mark.parametrize("host", ["", "%41"])
async def test_host_is_let_in_on_http_1(server: Server, host: str) -> None:
    async with await Http1Connection.open(server.port) as connection:
        assert (await connection.get("/called", [(b"host", host.encode())])).json() == [host]


async def test_request_trailers_do_no_harm(server: Server, connect: Connect, key: str) -> None:
    """ASGI has no place for them."""
    connection = await connect(server)
    exchange = await connection.start("POST", f"/called?{key}", upload=True)
    await exchange.send(b"body")
    await exchange.send_trailers([(b"checksum", b"1"), (b"x-a", b"2")])
    assert (await exchange.response()).status == 200
    assert (await connection.get(f"/called?{key}")).status == 200
    assert await server.notes(key) == ["called", "called"]
