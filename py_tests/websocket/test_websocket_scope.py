"""The scope of a WebSocket: what an application is told of the handshake."""

import asyncio
import json
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, routes, shown
from py_tests.harness.exchange import Connection, Headers
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import ENVOY, FRONT, OWN, UNDER_TEST, UVICORN, Serve, Server, of_envoy
from py_tests.harness.wire import Tls
from py_tests.harness.ws_apps import accept, say
from py_tests.harness.ws_client import dial

conforms = pytest.mark.conforms
pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)

VERSIONS = {HTTP1: "1.1", HTTP2: "2", HTTP3: "3"}


async def scope(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await say(send, json.dumps(shown({key: value for key, value in scope.items() if key != "state"})))


async def seen(connection: Connection, path: str = "/scope", headers: Headers = (), subprotocols: str = "") -> Any:
    """The scope as JSON shows it."""
    return json.loads(await (await dial(connection, path, headers, subprotocols=subprotocols)).receive())


@conforms("websocket.scope.type", "websocket.scope.http_version", "websocket.scope.addresses")
async def test_scope_has_the_specified_keys(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    told = await seen(connection, "/scope/a%20b?x=%20")
    assert told["type"] == "websocket"
    assert told["asgi"]["version"] == "3.0"
    assert told["http_version"] == VERSIONS[connection.protocol]
    assert told["client"] == ["127.0.0.1", connection.local_port]
    port = server.ssl_port if connection.protocol == HTTP3 else server.port
    assert told["server"] == ["127.0.0.1", port]
    assert told["subprotocols"] == []
    assert "method" not in told


@conforms("websocket.scope.type")
async def test_spec_version_says_that_send_raises_after_the_end(server: Server, connect: Connect) -> None:
    major, minor = map(int, (await seen(await connect(server)))["asgi"]["spec_version"].split("."))
    assert (major, minor) >= ((2, 3) if UNDER_TEST == UVICORN else (2, 4))


async def types(scope: Scope, receive: Receive, send: Send) -> None:
    assert type(scope) is dict
    pairs = all(
        type(name) is bytes and type(value) is bytes and name == name.lower() for name, value in scope["headers"]
    )
    names = {key: type(value).__name__ for key, value in scope.items()}
    await accept(receive, send)
    await say(send, json.dumps({**names, "pairs": pairs, "subprotocol": type(scope["subprotocols"][0]).__name__}))


@conforms("websocket.scope.type")
async def test_values_are_of_the_specified_types(server: Server, connect: Connect) -> None:
    told = await seen(await connect(server), "/types", [(b"X-Upper", b"1")], "a")
    for key in ["type", "http_version", "scheme", "path", "root_path", "subprotocol"]:
        assert told[key] == "str", key
    for key in ["raw_path", "query_string"]:
        assert told[key] == "bytes", key
    for key in ["asgi", "state", "extensions"]:
        assert told.get(key, "dict") == "dict", key
    for key in ["headers", "subprotocols"]:
        assert told[key] == "list", key
    for key in ["client", "server"]:
        assert told[key] in ("list", "tuple"), key
    assert told["pairs"] is True


@conforms("websocket.scope.scheme")
async def test_scheme_is_wss_under_tls_only(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await seen(connection))["scheme"] == ("wss" if connection.protocol == HTTP3 else "ws")
    if FRONT == ENVOY:
        assert (await seen(await connect(server, Tls())))["scheme"] == "wss"


@conforms("websocket.scope.scheme", "websocket.scope.addresses")
@pytest.mark.parametrize(("proto", "scheme"), [(b"https", "wss"), (b"wss", "wss"), (b"http", "ws"), (b"ws", "ws")])
async def test_trusted_proxy_tells_scheme_and_client(
    server: Server, connect: Connect, proto: bytes, scheme: str
) -> None:
    headers = [(b"x-forwarded-proto", proto), (b"x-forwarded-for", b"192.0.2.1, 192.0.2.2")]
    told = await seen(await connect(server), headers=headers)
    assert (told["scheme"], told["client"]) == (scheme, ["192.0.2.2", 0])


@conforms("websocket.scope.path")
@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/scope", "/scope", "/scope", ""),
        ("/scope/a%20b", "/scope/a b", "/scope/a%20b", ""),
        ("/scope/%C3%A9", "/scope/é", "/scope/%C3%A9", ""),
        ("/scope/a%2Fb//../c", "/scope/a/b//../c", "/scope/a%2Fb//../c", ""),
        ("/scope?", "/scope", "/scope", ""),
        ("/scope?a=1&b=%20+c", "/scope", "/scope", "a=1&b=%20+c"),
    ],
)
async def test_path_and_query(
    server: Server, connect: Connect, target: str, path: str, raw_path: str, query: str
) -> None:
    told = await seen(await connect(server), target)
    expected = (path, {"bytes": raw_path}, {"bytes": query}, "")
    assert (told["path"], told["raw_path"], told["query_string"], told["root_path"]) == expected


async def rooted(scope: Scope, receive: Receive, send: Send) -> None:
    """At any path."""
    if scope["type"] == "websocket":
        await accept(receive, send)
        await say(send, json.dumps(shown({key: scope[key] for key in ["root_path", "path", "raw_path"]})))


@conforms("websocket.scope.path")
async def test_root_path(serve: Serve, connect: Connect) -> None:
    told = await seen(await connect(serve(rooted, root_path="/api")), "/chat")
    assert told == {"root_path": "/api", "path": "/api/chat", "raw_path": {"bytes": "/api/chat"}}


@conforms("websocket.scope.headers")
async def test_headers_keep_their_order_and_repeats(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    sent = [
        (b"host", b"example.org"),
        (b"origin", b"https://example.org"),
        (b"accept-language", b"en"),
        (b"X-Same", b"1"),
        (b"x-other", b""),
        (b"x-same", b"2"),
    ]
    if connection.protocol == HTTP1:
        sent.remove((b"host", b"example.org"))
    headers = [(name["bytes"], value["bytes"]) for name, value in (await seen(connection, headers=sent))["headers"]]
    assert headers[0][0] == "host"
    assert [name for name, _ in headers].count("host") == 1
    if connection.protocol != HTTP1:
        assert headers[0][1] == "example.org"
    ours = [pair for pair in headers if pair[0] in ("origin", "accept-language", "x-same", "x-other")]
    expected = [(name.decode().lower(), value.decode()) for name, value in sent if name != b"host"]
    if (FRONT, connection.protocol) == (OWN, HTTP2):
        # It puts repeats together.
        names = [name for name, _ in expected]
        expected.sort(key=lambda field: names.index(field[0]))
    assert ours == expected
    assert ("sec-websocket-version", "13") in headers
    assert not [name for name, _ in headers if name.startswith(":")]


@conforms("websocket.scope.subprotocols")
@pytest.mark.parametrize(
    ("lines", "offered"),
    [
        ([b"chat"], ["chat"]),
        ([b"v2.chat, v1.chat"], ["v2.chat", "v1.chat"]),
        ([b"b , a", b"c"], ["b", "a", "c"]),
        ([b"Chat,chat"], ["Chat", "chat"]),
        ([b""], []),
    ],
)
async def test_subprotocols_come_in_the_clients_order(
    server: Server, connect: Connect, lines: list[bytes], offered: list[str]
) -> None:
    headers = [(b"sec-websocket-protocol", line) for line in lines]
    assert (await seen(await connect(server), headers=headers))["subprotocols"] == offered


@conforms("websocket.scope.extensions")
async def test_extensions_are_those_of_websockets(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    extensions = (await seen(connection))["extensions"]
    assert extensions["websocket.http.response"] == {}
    assert not [name for name in extensions if name.startswith("http.")]
    assert ("tls" in extensions) == (connection.protocol == HTTP3)


@conforms("websocket.scope.extensions")
@of_envoy("it has no TLS")
async def test_tls_is_described(server: Server, connect: Connect) -> None:
    tls = (await seen(await connect(server, Tls())))["extensions"]["tls"]
    assert (tls["tls_version"], tls["client_cert_chain"]) == (0x0304, [])


class Shared:
    """What only one loop and one lifespan have."""


async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
    """HTTP and WebSocket see the state that the lifespan left; each has a dict of its own."""
    if scope["type"] == "lifespan":
        scope["state"].update(shared=Shared(), loop=asyncio.get_running_loop(), list=[])
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    state = scope["state"]
    told = {"keys": sorted(state), "shared": id(state["shared"]), "list": list(state["list"])}
    assert state["loop"] is asyncio.get_running_loop()
    state["own"] = 1
    state["list"].append(scope["type"])
    if scope["type"] == "http":
        await answer(send, told)
    else:
        await accept(receive, send)
        await say(send, json.dumps(told))


@conforms("websocket.scope.state")
async def test_state_is_the_lifespans_as_http_requests_have_it(serve: Serve, connect: Connect) -> None:
    server = serve(with_state)
    connection = await connect(server)
    first = (await connection.get("/")).json()
    second = await seen(connection, "/")
    third = (await server.get("/")).json()
    assert first["keys"] == second["keys"] == third["keys"] == ["list", "loop", "shared"]
    assert first["shared"] == second["shared"] == third["shared"]
    assert third["list"] == ["http", "websocket"]


app = routes(scope, types)
