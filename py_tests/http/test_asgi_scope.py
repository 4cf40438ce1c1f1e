"""The HTTP scope: what an application is told of a request."""

from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, routes, shown
from py_tests.harness.exchange import Connection, ResponseCut
from py_tests.harness.http1 import Http1Connection, Http1Exchange
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, every_protocol
from py_tests.harness.serving import ENVOY, FRONT, OWN, UNDER_TEST, UVICORN, Serve, Server, unlike_uvicorn
from py_tests.harness.wire import Tls

conforms = pytest.mark.conforms
VERSIONS = {"http/1.0": "1.0", "http/1.1": "1.1", "http/2": "2", "http/3": "3"}


async def scope(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, shown(scope))


async def scope_types(scope: Scope, receive: Receive, send: Send) -> None:
    assert type(scope) is dict
    await answer(send, {key: type(value).__name__ for key, value in scope.items()})


def port_of(server: Server, connection: Connection) -> int:
    """The port that the connection was opened to."""
    return server.ssl_port if connection.protocol == HTTP3 else server.port


@conforms("http.scope.type", "http.scope.http_version", "http.scope.client", "http.scope.server", "core.versions")
@every_protocol
async def test_scope_has_the_specified_keys(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    seen = (await connection.get("/scope")).json()
    assert seen["type"] == "http"
    assert seen["asgi"]["version"] == "3.0"
    assert seen["method"] == "GET"
    assert seen["scheme"] == ("https" if connection.protocol == HTTP3 else "http")
    assert seen["path"] == "/scope"
    assert seen["raw_path"] == {"bytes": "/scope"}
    assert seen["query_string"] == {"bytes": ""}
    assert seen["root_path"] == ""
    assert seen["http_version"] == VERSIONS[connection.protocol]
    assert seen["client"] == ["127.0.0.1", connection.local_port]
    assert seen["server"] == ["127.0.0.1", port_of(server, connection)]
    assert seen["state"] == {}


@conforms("http.scope.scheme")
@unlike_uvicorn("it speaks either on its port")
async def test_scheme_is_https_under_tls_only(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    scheme = (await connection.get("/scope")).json()["scheme"]
    assert scheme == ("https" if connection.protocol == HTTP3 else "http")
    if FRONT == ENVOY:
        assert (await (await connect(server, Tls())).get("/scope")).json()["scheme"] == "https"


@conforms("core.versions")
async def test_spec_version_makes_frameworks_watch_for_the_disconnect(server: Server, connect: Connect) -> None:
    # From 2.4 on Starlette waits for `send` to raise, which an idle stream does not call: see test_disconnect.
    seen = (await (await connect(server)).get("/scope")).json()
    assert seen["asgi"] == {"version": "3.0", "spec_version": "2.3"}


@conforms("http.scope.type")
@every_protocol
async def test_scope_values_are_of_the_specified_types(server: Server, connect: Connect) -> None:
    types = (await (await connect(server)).get("/scope_types")).json()
    for key in ["type", "http_version", "method", "scheme", "path", "root_path"]:
        assert types[key] == "str", key
    for key in ["raw_path", "query_string"]:
        assert types[key] == "bytes", key
    for key in ["asgi", "state"]:
        assert types[key] == "dict", key
    for key in ["client", "server"]:
        assert types[key] in ("list", "tuple"), key
    # An iterable for the specification; but middleware appends to it.
    assert types["headers"] == "list"
    assert types.get("extensions", "dict") == "dict"


@conforms("http.scope.method")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_scope_has_the_method(server: Server, connect: Connect, method: str) -> None:
    assert (await (await connect(server)).request(method, "/scope")).json()["method"] == method


@conforms("http.scope.path", "http.scope.raw_path", "http.scope.query_string")
@every_protocol
@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/scope/plain", "/scope/plain", "/scope/plain", ""),
        ("/scope/a%20b", "/scope/a b", "/scope/a%20b", ""),
        ("/scope/%C3%A9t%C3%A9", "/scope/été", "/scope/%C3%A9t%C3%A9", ""),
        ("/scope/%e6%97%a5", "/scope/日", "/scope/%e6%97%a5", ""),
        ("/scope/a%2Fb", "/scope/a/b", "/scope/a%2Fb", ""),
        ("/scope/a%3Fb", "/scope/a?b", "/scope/a%3Fb", ""),
        ("/scope/a%25b", "/scope/a%b", "/scope/a%25b", ""),
        ("/scope/a+b", "/scope/a+b", "/scope/a+b", ""),
        ("/scope//double", "/scope//double", "/scope//double", ""),
        ("/scope/a/../b", "/scope/a/../b", "/scope/a/../b", ""),
        ("/scope/;x=1,y&z", "/scope/;x=1,y&z", "/scope/;x=1,y&z", ""),
        ("/scope/", "/scope/", "/scope/", ""),
        ("/scope?", "/scope", "/scope", ""),
        ("/scope?a=1&b=%20+c", "/scope", "/scope", "a=1&b=%20+c"),
        ("/scope?a=?&b=/", "/scope", "/scope", "a=?&b=/"),
    ],
)
async def test_path_is_decoded_and_raw_path_and_query_are_not(
    server: Server, connect: Connect, target: str, path: str, raw_path: str, query: str
) -> None:
    seen = (await (await connect(server)).get(target)).json()
    assert seen["path"] == path
    assert seen["raw_path"] == {"bytes": raw_path}
    assert seen["query_string"] == {"bytes": query}


@conforms("http.scope.path", "http.scope.raw_path")
@pytest.mark.parametrize(
    ("raw_path", "path"),
    [
        ("/scope/%FF", "/scope/\ufffd"),
        ("/scope/a%C3b", "/scope/a\ufffdb"),
        ("/scope/%ED%A0%80", "/scope/\ufffd\ufffd\ufffd"),
    ],
)
async def test_path_that_is_not_utf8_has_replacement_characters(
    server: Server, connect: Connect, raw_path: str, path: str
) -> None:
    seen = (await (await connect(server)).get(raw_path)).json()
    assert seen["raw_path"] == {"bytes": raw_path}
    assert seen["path"] == path


def headers_of(scope: Any) -> list[tuple[bytes, bytes]]:
    """The headers in a scope that came as JSON."""
    return [(name["bytes"].encode("latin-1"), value["bytes"].encode("latin-1")) for name, value in scope["headers"]]


@conforms("http.scope.headers")
@every_protocol
async def test_headers_keep_their_order_and_repeats(server: Server, connect: Connect) -> None:
    sent = [
        (b"host", b"example.org"),
        (b"x-second", b"2"),
        (b"x-first", b"1"),
        (b"x-second", b"two"),
        (b"accept", b"text/html"),
        (b"x-empty", b""),
        (b"x-second", b"zwei"),
    ]
    connection = await connect(server)
    if (FRONT, connection.protocol) == (OWN, HTTP2):
        # It puts repeats together.
        names = [name for name, _ in sent]
        sent.sort(key=lambda field: names.index(field[0]))
    assert headers_of((await connection.get("/scope", sent)).json()) == sent


@conforms("http.scope.headers", "http.scope.header_names")
async def test_no_header_is_added_to_those_of_the_client(server: Server, connect: Connect) -> None:
    # Proxies are full of them: x-forwarded-proto, x-request-id, x-envoy-internal, via.
    connection = await connect(server)
    seen = headers_of((await connection.get("/scope", [(b"host", b"example.org")])).json())
    assert seen == [(b"host", b"example.org")]


@conforms("http.scope.header_names")
async def test_header_names_are_lower_case(server: Server, connect: Connect) -> None:
    # On HTTP/2 and 3 they cannot be anything else.
    sent = [(b"HOST", b"example.org"), (b"X-MiXed", b"MiXed")]
    seen = headers_of((await (await connect(server)).get("/scope", sent)).json())
    assert seen == [(b"host", b"example.org"), (b"x-mixed", b"MiXed")]


@conforms("http.scope.host")
async def test_host_is_the_first_header_wherever_the_client_put_it(server: Server, connect: Connect) -> None:
    sent = [(b"x-early", b"1"), (b"host", b"example.org:99"), (b"x-late", b"2")]
    seen = headers_of((await (await connect(server)).get("/scope", sent)).json())
    if UNDER_TEST != UVICORN:  # which keeps its place; the specification speaks of HTTP/2 only
        assert seen[0] == (b"host", b"example.org:99")
    assert sorted(seen) == sorted(sent)


@conforms("http.scope.host")
@pytest.mark.protocols(HTTP2, HTTP3)
@pytest.mark.parametrize("other", [b"example.org", b"example.net"])
async def test_authority_replaces_another_host(server: Server, connect: Connect, other: bytes) -> None:
    sent = [(b"host", b"example.org"), (b"x-between", b"1"), (b"host", other)]
    try:
        response = await (await connect(server)).get("/scope", sent)
    except ResponseCut:
        status = 400
    else:
        status = response.status
    # To refuse it is the other right answer: RFC 9113, section 8.3.1.
    if status != 400:
        assert headers_of(response.json()) == [(b"host", b"example.org"), (b"x-between", b"1")]


@conforms("http.scope.headers")
async def test_repeats_of_common_headers_lose_no_value(server: Server, connect: Connect) -> None:
    # A proxy may join such fields with a comma (RFC 9110, section 5.3).
    names = [b"accept", b"x-forwarded-for", b"cache-control", b"via"]
    sent = [(name, value) for name in names for value in (b"one", b"two")]
    seen = headers_of((await (await connect(server)).get("/scope", sent)).json())
    for name in names:
        values = b",".join(value for key, value in seen if key == name)
        assert [value.strip() for value in values.split(b",")] == [b"one", b"two"], name


@conforms("http.scope.cookies")
async def test_cookies_are_joined_with_semicolons_only(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    sent = [(b"cookie", b"a=1"), (b"x-between", b"1"), (b"cookie", b"b=2, still b"), (b"cookie", b"c=3")]
    seen = headers_of((await connection.get("/scope", sent)).json())
    cookies = [value for name, value in seen if name == b"cookie"]
    assert b"; ".join(cookies) == b"a=1; b=2, still b; c=3"
    # There clients split them (RFC 9113, section 8.2.3), and applications expect one.
    if connection.protocol in (HTTP2, HTTP3):
        assert len(cookies) == 1


# Envoy's HTTP/3 refuses them.
@pytest.mark.protocols(HTTP1, HTTP2)
async def test_header_values_keep_bytes_beyond_ascii(server: Server, connect: Connect) -> None:
    sent = [(b"host", b"example.org"), (b"x-latin", b"\xe9t\xe9"), (b"x-utf8", "été".encode())]
    assert headers_of((await (await connect(server)).get("/scope", sent)).json()) == sent


async def test_large_headers_arrive_whole(server: Server, connect: Connect) -> None:
    sent = [(b"host", b"example.org"), *((b"x-%d" % n, b"%d" % n * 1000) for n in range(10, 20))]
    assert headers_of((await (await connect(server)).get("/scope", sent)).json()) == sent


@pytest.mark.conforms("http.scope.headers", on=["http/1.0"])
async def test_http_1_0_needs_no_host(server: Server) -> None:
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(b"GET /scope HTTP/1.0\r\nX-One: 1\r\n\r\n")
        response = await Http1Exchange(connection).response()
        assert headers_of(response.json()) == [(b"x-one", b"1")]
        await connection.ended()


async def scribble(scope: Scope, receive: Receive, send: Send) -> None:
    untouched = not any("mine" in part for part in (scope, scope["state"], scope["asgi"]))
    scope["state"]["mine"] = scope["asgi"]["mine"] = scope["mine"] = True
    scope["headers"].append((b"mine", b"yes"))
    scope.update(method="MINE", query_string=b"mine", client=None, server=None)
    await answer(send, untouched)


@conforms("core.scope")
async def test_each_request_has_a_scope_of_its_own(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert [(await connection.get("/scribble")).json() for _ in range(3)] == [True] * 3
    seen = (await connection.get("/scope")).json()
    assert (b"mine", b"yes") not in headers_of(seen)
    assert (seen["method"], seen["query_string"], seen["client"]) == (
        "GET",
        {"bytes": ""},
        ["127.0.0.1", connection.local_port],
    )
    assert seen["server"] == ["127.0.0.1", port_of(server, connection)]


async def test_scope_has_nothing_of_the_request_before(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    await connection.request("POST", "/scope?one=1", headers=[(b"one", b"1")], body=b"one")
    seen = (await connection.get("/scope")).json()
    assert (seen["method"], seen["query_string"], seen["path"]) == ("GET", {"bytes": ""}, "/scope")
    assert b"one" not in dict(headers_of(seen))


async def test_each_request_has_its_own_path(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    paths = [f"/scope/{number}{end}" for number in range(100) for end in ("", "%20", "?a", "/" * 128)]
    for path in paths + paths[::-1]:
        seen = (await connection.get(path)).json()
        raw = path.partition("?")[0]
        assert (seen["path"], seen["raw_path"]) == (raw.replace("%20", " "), {"bytes": raw})


async def bare_scope(scope_: Scope, receive: Receive, send: Send) -> None:
    await scope(scope_, receive, send)


@conforms("http.scope.root_path")
async def test_root_path_is_given_as_uvicorn_gives_it(serve: Serve, connect: Connect) -> None:
    server = serve(bare_scope, root_path="/prefix", lifespan="off")
    seen = (await (await connect(server)).get("/a%20b?q")).json()
    assert seen["root_path"] == "/prefix"
    assert seen["path"] == "/prefix/a b"
    assert seen["raw_path"] == {"bytes": "/prefix/a%20b"}
    assert seen["query_string"] == {"bytes": "q"}


async def test_long_targets_arrive_whole(server: Server, connect: Connect) -> None:
    path, query = "/scope/" + "a/" * 2000, "q=" + "b" * 4000
    seen = (await (await connect(server)).get(f"{path}?{query}")).json()
    assert seen["path"] == path
    assert seen["query_string"] == {"bytes": query}


app = routes(scope, scope_types, scribble)
