"""Responses: what an application sends, and what its client gets."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from http import HTTPStatus

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, routes, start
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, every_protocol
from py_tests.harness.serving import FRONT, OWN, RESPONSE_PATH, ROUTER, Serve, Server, unlike_uvicorn

MEGABYTE = 1024 * 1024

conforms = pytest.mark.conforms


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain", headers=[(b"content-type", b"text/plain")])


@conforms("http.response.order")
async def test_whole_response_arrives(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).get("/plain")
    assert (response.status, response.body) == (200, b"plain")
    assert response.header(b"content-type") == b"text/plain"


async def many_headers(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [
        (b"set-cookie", b"a=1; Path=/"),
        (b"x-before", b"between"),
        (b"set-cookie", b"b=2, with a comma"),
        (b"x-empty", b""),
        (b"x-bytes", b"\xe9"),
        (b"x-repeated", b"one"),
        (b"x-repeated", b"two"),
        (b"server", b"of the application"),
    ]
    await answer(send, b"headers", headers=headers)


@conforms("http.response.headers", "http.response.set_cookie")
async def test_response_headers_keep_order_and_repeats(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/many_headers")
    assert response.values(b"set-cookie") == [b"a=1; Path=/", b"b=2, with a comma"]
    assert response.values(b"x-repeated") == [b"one", b"two"]
    assert response.header(b"x-empty") == b""
    assert response.header(b"x-bytes") == b"\xe9"
    names = [name for name, _ in response.headers]
    own = [name for name in names if name.startswith((b"x-", b"set-"))]
    sent = [b"set-cookie", b"x-before", b"set-cookie", b"x-empty", b"x-bytes", b"x-repeated", b"x-repeated"]
    # Envoy's HTTP/3 puts repeats together, and so does its codec behind the router, and HTTP/2 without it.
    together = connection.protocol == HTTP3 or RESPONSE_PATH == ROUTER or (FRONT, connection.protocol) == (OWN, HTTP2)
    assert own == (sorted(sent, key=sent.index) if together else sent)


async def test_server_header_of_the_application_stays(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).get("/many_headers")
    assert b"of the application" in response.values(b"server")


@conforms("http.response.framing")
@every_protocol
async def test_nothing_is_added_but_what_http_wants(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).get("/plain")
    names = {name.lower() for name, _ in response.headers}
    own = {b"date", b"server", b"content-length", b"transfer-encoding", b"connection"}
    assert names - own == {b"content-type"}
    assert b"envoy" not in b"".join(response.values(b"server")).lower()


async def list_headers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [[b"x-list", b"as the spec"]]})
    await body(send)


async def generated_headers(scope: Scope, receive: Receive, send: Send) -> None:
    def headers() -> Iterator[tuple[bytes, bytes]]:
        yield b"x-generated", b"by a generator"

    iterable: Iterable[tuple[bytes, bytes]] = headers()
    await send({"type": "http.response.start", "status": 200, "headers": iterable})
    await body(send)


async def no_headers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


async def test_headers_may_be_any_iterable_of_pairs(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.get("/list_headers")).header(b"x-list") == b"as the spec"
    assert (await connection.get("/generated_headers")).header(b"x-generated")


async def test_headers_body_and_more_body_have_defaults(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).get("/no_headers")
    assert (response.status, response.body) == (200, b"")


async def upper_case(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"upper", headers=[(b"X-Upper", b"Value"), (b"Content-Length", b"5")])


@conforms("http.response.names")
async def test_upper_case_names_do_no_harm(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/upper_case")
    assert response.body == b"upper"
    assert response.header(b"x-upper") == b"Value"
    if connection.protocol != HTTP1:
        assert all(name == name.lower() for name, _ in response.headers)


async def numerous_headers(scope: Scope, receive: Receive, send: Send) -> None:
    cookies = [(b"set-cookie", b"c%d=%s" % (number, b"x" * 100)) for number in range(150)]
    await answer(send, b"", headers=[*cookies, (b"x-long", b"y" * 20_000)])


async def test_many_and_long_response_headers_arrive(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).get("/numerous_headers")
    assert [cookie.split(b"=")[0] for cookie in response.values(b"set-cookie")] == [
        b"c%d" % number for number in range(150)
    ]
    assert response.header(b"x-long") == b"y" * 20_000


class Bytes(bytes):
    pass


async def subclasses(scope: Scope, receive: Receive, send: Send) -> None:
    """As frameworks have them: http.HTTPStatus, dict and bytes of their own."""
    head = OrderedDict(
        type="http.response.start", status=HTTPStatus.ACCEPTED, headers=((Bytes(b"x-sub"), Bytes(b"1")),)
    )
    await send(head)
    await send(defaultdict(dict, type="http.response.body", body=Bytes(b"sub"), more_body=False))


async def test_messages_may_have_values_of_subclasses(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).get("/subclasses")
    assert (response.status, response.body) == (202, b"sub")
    assert response.header(b"x-sub") == b"1"


async def extra_keys(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "x-extra": object()})
    await send({"type": "http.response.body", "body": b"extra", "more_body": False, "x": None})


@conforms("core.extra_keys")
async def test_extra_keys_in_messages_are_tolerated(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/extra_keys")).body == b"extra"


async def streamed(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    for number in range(100):
        await body(send, b"%d," % number, more=True)
    await body(send)


async def test_streamed_response_arrives_in_order(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    expected = b"".join(b"%d," % number for number in range(100))
    assert [(await connection.get("/streamed")).body for _ in range(3)] == [expected] * 3


async def step_by_step(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a piece for each piece that it receives, so that nothing can wait to be joined."""
    await start(send)
    await body(send, b"first", more=True)
    while (await receive()).get("more_body"):
        await body(send, b"next", more=True)
    await body(send, b"last")


@conforms("http.response.pieces", "http.response.held")
async def test_each_piece_leaves_when_it_is_sent(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("POST", "/step_by_step", upload=True)
    assert await exchange.head() == 200
    assert await exchange.chunk() == b"first"
    for _ in range(3):
        await exchange.send(b"go on")
        assert await exchange.chunk() == b"next"
    await exchange.send(b"", end=True)
    assert await exchange.chunk() == b"last"
    assert await exchange.chunk() == b""


async def empty_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    for piece in [b"", b"a", b"", b"", b"b", b""]:
        await body(send, piece, more=True)
    await body(send)


@conforms("http.response.pieces")
async def test_empty_pieces_do_not_end_the_response(server: Server, connect: Connect) -> None:
    # On HTTP/1.1 an empty chunk would be the last one.
    connection = await connect(server)
    assert (await connection.get("/empty_pieces")).body == b"ab"
    assert (await connection.get("/plain")).body == b"plain"


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"0123456789" * MEGABYTE)


async def large_streamed(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    for _ in range(160):
        await body(send, b"0123456789abcdef" * 4096, more=True)
    await body(send)


async def test_large_responses_arrive_whole(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.get("/large")).body == b"0123456789" * MEGABYTE
    streamed = (await connection.get("/large_streamed")).body
    assert streamed == b"0123456789abcdef" * (4096 * 160)


async def memory(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await send({"type": "http.response.body", "body": memoryview(b"memory"), "more_body": True})
    await send({"type": "http.response.body", "body": bytearray(b"view")})


async def test_body_may_be_any_bytes_like(server: Server, connect: Connect) -> None:
    # bytes for the specification; but Starlette passes a memoryview on.
    assert (await (await connect(server)).get("/memory")).body == b"memoryview"


async def with_length(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"12345", headers=[(b"content-length", b"5")])


async def streamed_with_length(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, headers=[(b"content-length", b"10")])
    await body(send, b"12345", more=True)
    await body(send, b"67890")


@conforms("http.response.length")
async def test_content_length_of_the_application_is_kept(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for path, expected in [("/with_length", b"12345"), ("/streamed_with_length", b"1234567890")]:
        response = await connection.get(path)
        assert response.body == expected
        assert response.header(b"content-length") == b"%d" % len(expected)
        assert response.header(b"transfer-encoding") is None


async def own_framing(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, headers=[(b"transfer-encoding", b"chunked"), (b"x-own", b"1")])
    await body(send, b"not a chunk", more=True)
    await body(send, b" at all")


@conforms("http.response.framing")
async def test_transfer_encoding_of_the_application_is_ignored(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/own_framing")
    assert response.body == b"not a chunk at all"
    assert response.header(b"x-own") == b"1"
    assert (await connection.get("/plain")).body == b"plain"


async def hop_by_hop(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"connection", b"keep-alive"), (b"keep-alive", b"timeout=5"), (b"x-own", b"1")]
    await answer(send, b"hop", headers=headers)


@conforms("http.response.framing")
async def test_connection_headers_of_the_application_do_no_harm(server: Server, connect: Connect) -> None:
    # RFC 9113, section 8.2.2 forbids them on HTTP/2; the client's library refuses them.
    connection = await connect(server)
    response = await connection.get("/hop_by_hop")
    assert response.body == b"hop"
    assert response.header(b"x-own") == b"1"
    if connection.protocol != HTTP1:
        assert not {b"connection", b"keep-alive"} & {name for name, _ in response.headers}
    assert (await connection.get("/plain")).body == b"plain"


async def close_please(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"bye", headers=[(b"connection", b"close")])


async def test_application_may_close_an_http_1_connection(serve: Serve) -> None:
    server = serve(f"{__name__}:app", timeout_keep_alive=60)
    async with await Http1Connection.open(server.port) as connection:
        assert (await connection.get("/close_please")).header(b"connection") == b"close"
        # Not when it has been idle for the time-out.
        await connection.ended()


@conforms("http.response.no_body")
@pytest.mark.parametrize("path", ["/plain", "/with_length", "/streamed", "/streamed_with_length"])
async def test_head_has_the_headers_and_no_body(server: Server, connect: Connect, path: str) -> None:
    connection = await connect(server)
    response = await connection.request("HEAD", path)
    assert (response.status, response.body) == (200, b"")
    if "with_length" in path:
        assert response.header(b"content-length") in (b"5", b"10")
    # A byte of body would be taken for the next response.
    assert (await connection.get("/plain")).body == b"plain"


async def status(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"", status=int(scope["path"].split("/")[2]))


async def status_with_body(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"body", status=int(scope["path"].split("/")[2]))


@pytest.mark.parametrize("code", [200, 201, 202, 203, 206, 299, 301, 302, 307, 400, 404, 418, 429, 499, 500, 503, 599])
async def test_status_arrives(server: Server, connect: Connect, code: int) -> None:
    response = await (await connect(server)).get(f"/status_with_body/{code}")
    assert (response.status, response.body) == (code, b"body")


@conforms("http.response.no_body")
@pytest.mark.parametrize("code", [204, 304])
async def test_204_and_304_have_no_body(server: Server, connect: Connect, code: int) -> None:
    connection = await connect(server)
    response = await connection.get(f"/status/{code}")
    assert (response.status, response.body) == (code, b"")
    assert response.header(b"transfer-encoding") is None
    assert response.header(b"content-length") in (None, b"0")
    assert (await connection.get("/plain")).body == b"plain"


@conforms("http.response.no_body")
@pytest.mark.parametrize("code", [204, 304])
@unlike_uvicorn("uvicorn sends the body")
async def test_body_of_204_and_304_is_not_sent(server: Server, connect: Connect, code: int) -> None:
    connection = await connect(server)
    response = await connection.get(f"/status_with_body/{code}")
    assert (response.status, response.body) == (code, b"")
    assert (await connection.get("/plain")).body == b"plain"


async def not_modified(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"", status=304, headers=[(b"content-length", b"1234"), (b"etag", b'"x"')])


@unlike_uvicorn("uvicorn wants as much body as the length says")
async def test_304_may_tell_the_length_of_what_it_stands_for(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/not_modified")
    assert (response.status, response.header(b"etag")) == (304, b'"x"')
    assert (await connection.get("/plain")).body == b"plain"


# --- HTTP/1.0 ---


@pytest.mark.protocols("http/1.0")
@conforms("http.response.framing")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/streamed", b"".join(b"%d," % number for number in range(100))),
        ("/empty_pieces", b"ab"),
        ("/own_framing", b"not a chunk at all"),
        ("/no_headers", b""),
    ],
)
async def test_body_ends_with_an_http_1_0_connection(server: Server, connect: Connect, path: str, body: bytes) -> None:
    # The client fails when it sees chunks.
    connection = await connect(server)
    assert (await connection.get(path)).body == body
    await connection.ended()


@pytest.mark.protocols("http/1.0")
@conforms("http.response.length")
@pytest.mark.parametrize("path", ["/with_length", "/streamed_with_length"])
async def test_content_length_is_kept_on_http_1_0(server: Server, connect: Connect, path: str) -> None:
    response = await (await connect(server)).get(path)
    assert response.header(b"content-length") == b"%d" % len(response.body)
    assert response.header(b"transfer-encoding") is None


@pytest.mark.protocols("http/1.0")
@conforms("http.response.no_body")
@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/with_length"), ("HEAD", "/streamed"), ("GET", "/status_with_body/304")]
)
async def test_no_body_on_http_1_0(server: Server, connect: Connect, method: str, path: str) -> None:
    connection = await connect(server)
    response = await connection.request(method, path)
    assert response.body == b""
    await connection.ended()
    # The client has not looked for a body: there must be none.
    assert connection.buffer == b""  # type: ignore[attr-defined]


async def keep_alive(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"kept", headers=[(b"content-length", b"4"), (b"connection", b"keep-alive")])


@pytest.mark.protocols("http/1.0")
async def test_http_1_0_may_be_kept_alive(server: Server, connect: Connect) -> None:
    """RFC 9112, section C.2.2; the server may close all the same."""
    connection = await connect(server)
    response = await connection.get("/keep_alive", [(b"connection", b"keep-alive")])
    assert response.body == b"kept"
    if response.header(b"connection") == b"keep-alive":
        assert (await connection.get("/plain")).body == b"plain"
    else:
        await connection.ended()


app = routes(
    plain,
    many_headers,
    list_headers,
    generated_headers,
    no_headers,
    numerous_headers,
    subclasses,
    upper_case,
    extra_keys,
    streamed,
    step_by_step,
    empty_pieces,
    large,
    large_streamed,
    memory,
    with_length,
    streamed_with_length,
    own_framing,
    hop_by_hop,
    close_please,
    status,
    status_with_body,
    not_modified,
    keep_alive,
)
