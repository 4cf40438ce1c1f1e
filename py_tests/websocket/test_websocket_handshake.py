"""The handshake of a WebSocket: accepted, refused, denied by a response of the application's, or wrong."""

import contextlib
from typing import Any

import pytest

from py_tests.harness.apps import Message, Receive, Scope, Send, answer, file_exists, gate, note, routes
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Connection, Exchange, Response, ResponseCut
from py_tests.harness.http1 import Http1Connection, Http1Exchange
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.http3 import Http3Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import ENVOY, FRONT, OWN, Serve, Server, of_envoy, unlike_uvicorn
from py_tests.harness.wire import Tls
from py_tests.harness.ws_apps import CONNECT, accept, close, disconnect, echo, say
from py_tests.harness.ws_client import ACCEPT, KEY, TEXT, Refused, answered, begin, complaints, dial, fields, frame

conforms = pytest.mark.conforms
pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)


async def refused(connection: Connection, path: str, headers: Any = ()) -> Response:
    with pytest.raises(Refused) as caught:
        await dial(connection, path, headers)
    return caught.value.response


# --- Accepted ---


async def accepts_late(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, await receive())
    await file_exists(gate(scope))
    await send({"type": "websocket.accept"})
    await echo_rest(receive, send)


async def echo_rest(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


@conforms("websocket.connect", "websocket.accept")
async def test_handshake_waits_for_the_application(server: Server, connect: Connect, key: str, tmp_path: Any) -> None:
    connection = await connect(server)
    path = tmp_path / "gate"
    exchange = await begin(connection, f"/accepts_late?{key}", [(b"x-gate", str(path).encode())])
    await server.noted(key, CONNECT)
    assert exchange.silent()
    path.touch()
    socket = await answered(connection, exchange)
    await socket.send("after all")
    assert await socket.receive() == "after all"


@conforms("websocket.accept")
async def test_answer_has_what_the_protocol_asks_for(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/echo")
    http1 = isinstance(socket.connection, Http1Connection)
    assert socket.exchange.status == (101 if http1 else 200)
    assert socket.header(b"sec-websocket-accept") == (ACCEPT if http1 else None)
    assert (socket.header(b"upgrade") or b"").lower() == (b"websocket" if http1 else b"")
    assert (socket.header(b"connection") or b"").lower() == (b"upgrade" if http1 else b"")
    assert socket.header(b"content-length") is None
    assert socket.header(b"transfer-encoding") is None
    assert socket.header(b"sec-websocket-protocol") is None
    assert socket.header(b"sec-websocket-extensions") is None


@conforms("websocket.accept")
@of_envoy("it has no TLS")
async def test_under_tls(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server, Tls()), "/echo")
    await socket.send("secret")
    assert await socket.receive() == "secret"
    assert await socket.close() == (1000, "")


@pytest.mark.protocols(HTTP2, HTTP3)
async def test_extended_connect_is_advertised(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    await connection.get("/notes")
    if isinstance(connection, Http2Connection):
        assert connection.h2.remote_settings[8] == 1
    elif isinstance(connection, Http3Connection):
        http = connection.endpoint.http
        await eventually(lambda: (http.received_settings or {}).get(8) == 1)


async def answers_before_connect(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})
    await say(send, repr(await receive()))


@conforms("websocket.accept")
async def test_application_may_accept_before_it_receives_connect(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/answers_before_connect")
    assert await socket.receive() == repr(CONNECT)


async def chooses(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts the subprotocol that the query names."""
    assert await receive() == CONNECT
    chosen = scope["query_string"].decode().rpartition("=")[2]
    try:
        await send({"type": "websocket.accept", "subprotocol": chosen or None})
    except Exception as error:
        note(scope, str(error))
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
    await echo_rest(receive, send)


@conforms("websocket.accept.subprotocol")
@pytest.mark.parametrize(("chosen", "answer"), [("v2.chat", b"v2.chat"), ("v1.chat", b"v1.chat"), ("", None)])
async def test_subprotocol_is_the_one_chosen(
    server: Server, connect: Connect, key: str, chosen: str, answer: bytes | None
) -> None:
    socket = await dial(await connect(server), f"/chooses?{key}={chosen}", subprotocols="v1.chat, v2.chat")
    assert socket.header(b"sec-websocket-protocol") == answer
    await socket.send("hello")
    assert await socket.receive() == "hello"


@conforms("websocket.accept.subprotocol")
@unlike_uvicorn("it sends what the client has not offered")
@pytest.mark.parametrize("chosen", ["v3.chat", "V1.chat", "v1.chat, v2.chat"])
async def test_subprotocol_that_was_not_offered_raises(server: Server, connect: Connect, key: str, chosen: str) -> None:
    path = f"/chooses?{key}={chosen.replace(' ', '')}"
    socket = await dial(await connect(server), path, subprotocols="v1.chat, v2.chat")
    assert socket.header(b"sec-websocket-protocol") == b"v1.chat"
    [text] = await server.notes(path.partition("?")[2])
    assert "offered" in text


async def adds_headers(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"set-cookie", b"a=1"), (b"x-one", b"1"), (b"set-cookie", b"b=2")]
    await accept(receive, send, headers=headers)
    await echo_rest(receive, send)


@conforms("websocket.accept.headers")
async def test_headers_are_sent(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/adds_headers")
    assert socket.header(b"x-one") == b"1"
    assert [value for name, value in socket.exchange.headers if name.lower() == b"set-cookie"] == [b"a=1", b"b=2"]


async def adds_wrong_headers(scope: Scope, receive: Receive, send: Send) -> None:
    """Tries each, and accepts without."""
    assert await receive() == CONNECT
    for name in [
        b"sec-websocket-protocol",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b":status",
        b"content-length",
        b"new\r\nline",
    ]:
        with contextlib.suppress(Exception):
            await send({"type": "websocket.accept", "headers": [(name, b"1")]})
            note(scope, f"{name!r} was taken")
    with contextlib.suppress(Exception):
        await send({"type": "websocket.accept", "headers": [(b"x", b"1\r\nx-smuggled: 1")]})
        note(scope, "a line end was taken")
    # These are dropped, as in responses.
    await send({"type": "websocket.accept", "headers": [(b"transfer-encoding", b"chunked"), (b"connection", b"close")]})
    await echo_rest(receive, send)


@conforms("websocket.accept.headers")
@unlike_uvicorn("it sends some of them")
async def test_headers_of_the_server_raise(server: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(server), f"/adds_wrong_headers?{key}")
    assert await server.notes(key) == []
    await socket.send("hello")
    assert await socket.receive() == "hello"
    assert socket.header(b"transfer-encoding") is None
    assert socket.header(b"connection") in (None, b"upgrade", b"Upgrade")


async def greets(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await say(send, "welcome")
    await echo_rest(receive, send)


async def test_first_message_may_follow_at_once(server: Server, connect: Connect) -> None:
    assert await (await dial(await connect(server), "/greets")).receive() == "welcome"


async def test_frames_sent_with_the_handshake_are_not_lost(server: Server, connect: Connect) -> None:
    early = b"".join(frame(TEXT, b"%d" % number) for number in range(3))
    socket = await dial(await connect(server), "/echo", early=early)
    await socket.send("3")
    assert [await socket.receive() for _ in range(4)] == ["0", "1", "2", "3"]


async def test_frames_sent_while_the_application_hesitates_are_not_lost(
    server: Server, connect: Connect, key: str, tmp_path: Any
) -> None:
    connection = await connect(server)
    path = tmp_path / "gate"
    exchange = await begin(connection, f"/accepts_late?{key}", [(b"x-gate", str(path).encode())])
    await server.noted(key, CONNECT)
    for number in range(100):
        await exchange.send(frame(TEXT, b"%03d" % number * 100))
    path.touch()
    socket = await answered(connection, exchange)
    assert [await socket.receive() for _ in range(100)] == [f"{number:03}" * 100 for number in range(100)]


# --- Refused ---


async def closes(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await close(send, 4001, "not for the wire")
    note(scope, await receive())


@conforms("websocket.refuse")
async def test_close_before_accept_is_403(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    response = await refused(connection, f"/closes?{key}")
    assert response.status == 403
    assert b"not for the wire" not in response.body
    assert await server.noted(key, disconnect(1006)) == [disconnect(1006)]
    assert complaints(server) == []


async def closes_before_connect(scope: Scope, receive: Receive, send: Send) -> None:
    await close(send)


@conforms("websocket.refuse")
async def test_close_before_connect_is_received(server: Server, connect: Connect) -> None:
    assert (await refused(await connect(server), "/closes_before_connect")).status == 403


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("no WebSocket today")


@conforms("websocket.return")
async def test_application_that_returns_without_answer_is_500(server: Server, connect: Connect) -> None:
    assert (await refused(await connect(server), "/returns")).status == 500
    await eventually(lambda: "returned without" in server.fresh_log)


@conforms("websocket.raise")
async def test_application_that_raises_before_it_answers_is_500(server: Server, connect: Connect) -> None:
    assert (await refused(await connect(server), "/raises")).status == 500
    await eventually(lambda: "ValueError: no WebSocket today" in server.fresh_log)
    assert server.fresh_log.count("Traceback") == 1


async def test_connection_goes_on_after_a_refusal(server: Server, connect: Connect, protocol: str) -> None:
    connection = await connect(server)
    for path in ["/closes", "/raises", "/denies"]:
        await refused(connection, path)
        if protocol == HTTP1:  # whose connections may end with an upgrade refused
            connection = await connect(server)
    socket = await dial(connection, "/echo")
    await socket.send("hello")
    assert await socket.receive() == "hello"


# --- Denied ---

START: Message = {
    "type": "websocket.http.response.start",
    "status": 401,
    "headers": [(b"x-realm", b"a"), (b"set-cookie", b"b=1")],
}


def piece(data: bytes, more: bool = False) -> Message:
    return {"type": "websocket.http.response.body", "body": data, "more_body": more}


async def denies(scope: Scope, receive: Receive, send: Send) -> None:
    assert await receive() == CONNECT
    await send({**START, "headers": [*START["headers"], (b"content-length", b"7")]})
    await send(piece(b"go away"))
    note(scope, await receive())


@conforms("denial.sent", "denial.end")
async def test_denial_is_a_response_of_the_applications(server: Server, connect: Connect, key: str) -> None:
    response = await refused(await connect(server), f"/denies?{key}")
    assert (response.status, response.body) == (401, b"go away")
    assert (response.header(b"x-realm"), response.header(b"set-cookie")) == (b"a", b"b=1")
    assert response.header(b"content-length") == b"7"
    for name in [b"sec-websocket-accept", b"upgrade"]:
        assert response.header(name) is None
    assert await server.noted(key, disconnect(1006)) == [disconnect(1006)]
    assert complaints(server) == []


async def denies_without_body(scope: Scope, receive: Receive, send: Send) -> None:
    await send({**START, "status": 204, "headers": []})
    await send({"type": "websocket.http.response.body"})


@conforms("denial.sent")
async def test_denial_without_a_body(server: Server, connect: Connect) -> None:
    response = await refused(await connect(server), "/denies_without_body")
    assert (response.status, response.body) == (204, b"")


async def denies_slowly(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(piece(b"first,", more=True))
    await file_exists(gate(scope))
    for number in range(100):
        await send(piece(b"%03d," % number * 100, more=True))
    await send(piece(b"last"))


@conforms("denial.pieces")
async def test_denial_in_pieces(server: Server, connect: Connect, tmp_path: Any) -> None:
    path = tmp_path / "gate"
    exchange = await begin(await connect(server), "/denies_slowly", [(b"x-gate", str(path).encode())])
    assert await exchange.head() == 401
    assert await exchange.chunk() == b"first,"
    path.touch()
    assert await exchange.rest() == b"".join(b"%03d," % number * 100 for number in range(100)) + b"last"


# --- Wrong ---

VERSION = (b"sec-websocket-version", b"13")
UPGRADE = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]


async def both(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves HTTP and WebSocket, and tells which."""
    if scope["type"] == "http":
        await answer(send, [scope["method"], "http"])
    else:
        await accept(receive, send)
        await say(send, "websocket")


async def ask(connection: Connection, first: str, *lines: str, body: str = "") -> Exchange:
    """Sends HTTP/1.1 as it is written here, with what else a handshake has."""
    assert isinstance(connection, Http1Connection)
    head = [first, "host: a", *lines, "sec-websocket-version: 13", f"sec-websocket-key: {KEY.decode()}"]
    await connection.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
    return Http1Exchange(connection)


@pytest.mark.parametrize("version", [None, b"8", b"12", b"14", b"13, 8", b"", b"x"])
async def test_unknown_version_is_426_and_names_the_known_one(
    server: Server, connect: Connect, version: bytes | None
) -> None:
    connection = await connect(server)
    headers = [(b"sec-websocket-version", version)] if version is not None else []
    head = [*(field for field in fields(connection) if field != VERSION), *headers]
    http1 = isinstance(connection, Http1Connection)
    exchange = await connection.start("GET" if http1 else "CONNECT", "/both", headers=head, upload=not http1)
    response = await exchange.response()
    assert response.status == 426
    assert response.header(b"sec-websocket-version") == b"13"
    if http1 and FRONT == OWN:
        # RFC 9110, section 15.5.22.
        assert response.header(b"upgrade") == b"websocket"
        assert b"Upgrade" in [value for name, value in response.headers if name == b"connection"]


@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize("keys", [[], [KEY, KEY], [b""], [b"short"], [KEY[:-1]], [b"a" * 24], [b"!" + KEY[1:]]])
async def test_key_is_one_of_16_bytes(server: Server, connect: Connect, keys: list[bytes]) -> None:
    head = [*UPGRADE, VERSION, *((b"sec-websocket-key", key) for key in keys)]
    assert (await (await connect(server)).get("/both", head)).status == 400


@pytest.mark.parametrize(
    "wrong",
    [
        (b"sec-websocket-protocol", b"a b"),
        (b"sec-websocket-protocol", b"a/b"),
        (b"sec-websocket-extensions", b"permessage-deflate; x="),
    ],
)
async def test_malformed_list_is_400(server: Server, connect: Connect, wrong: tuple[bytes, bytes]) -> None:
    assert (await refused(await connect(server), "/both", [wrong])).status == 400


@pytest.mark.protocols(HTTP2, HTTP3)
async def test_key_of_http_1_is_ignored(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/both", [(b"sec-websocket-key", KEY)])
    assert socket.header(b"sec-websocket-accept") is None


@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize(
    "lines",
    [
        ["CONNECTION: keep-alive, UPGRADE", "UPGRADE: WebSocket"],
        ["connection: keep-alive", "connection: upgrade", "upgrade: websocket"],
        ["connection: upgrade", "upgrade: websocket, h2c"],
        ["connection: upgrade", "upgrade: h2c", "upgrade: websocket"],
    ],
)
async def test_upgrade_is_a_list_in_any_case(server: Server, connect: Connect, lines: list[str]) -> None:
    connection = await connect(server)
    socket = await answered(connection, await ask(connection, "GET /both HTTP/1.1", *lines))
    assert await socket.receive() == "websocket"


@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize(
    "lines", [["upgrade: websocket"], ["connection: upgrade"], ["connection: upgrade", "upgrade: h2c"]]
)
async def test_request_that_is_no_handshake_is_http(server: Server, connect: Connect, lines: list[str]) -> None:
    exchange = await ask(await connect(server), "GET /both HTTP/1.1", *lines)
    assert (await exchange.response()).json() == ["GET", "http"]


CHUNKED = "transfer-encoding: chunked"
without_envoy = pytest.mark.skipif(FRONT == ENVOY, reason="it drops the field, and takes what follows for frames")


@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize(
    ("first", "line", "body"),
    [
        ("GET /both HTTP/1.0", "", ""),
        ("POST /both HTTP/1.1", "content-length: 0", ""),
        ("POST /both HTTP/1.1", "content-length: 5", "hello"),
        ("GET /both HTTP/1.1", "content-length: 5", "hello"),
        pytest.param("GET /both HTTP/1.1", CHUNKED, "5\r\nhello\r\n0\r\n\r\n", marks=without_envoy),
        pytest.param("GET /both HTTP/1.1", CHUNKED, "0\r\n\r\n", marks=without_envoy),
    ],
    ids=["HTTP/1.0", "POST", "POST with a body", "body", "chunks", "no chunk"],
)
async def test_handshake_is_a_get_of_http_1_1_without_a_body(
    server: Server, connect: Connect, first: str, line: str, body: str
) -> None:
    lines = ["connection: upgrade", "upgrade: websocket", *([line] if line else [])]
    exchange = await ask(await connect(server), first, *lines, body=body)
    status, _ = await exchange.any_head()
    assert status == 400


async def test_without_websockets_a_handshake_is_a_request(serve: Serve, connect: Connect) -> None:
    connection = await connect(serve(f"{__name__}:app", ws="none"))
    if isinstance(connection, Http1Connection):
        assert (await connection.get("/both", [*UPGRADE, VERSION, (b"sec-websocket-key", KEY)])).json() == [
            "GET",
            "http",
        ]
    else:
        with pytest.raises((Refused, ResponseCut)):
            await dial(connection, "/both")


app = routes(
    both,
    accepts_late,
    adds_headers,
    adds_wrong_headers,
    answers_before_connect,
    chooses,
    closes,
    closes_before_connect,
    denies,
    denies_slowly,
    denies_without_body,
    echo,
    greets,
    raises,
    returns,
)
