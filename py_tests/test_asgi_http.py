"""HTTP scopes, requests and responses: what an application sees and what its client gets."""

import asyncio
import contextlib
import functools
import hashlib
import random
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from apps import (
    Message,
    Receive,
    Scope,
    Send,
    answer,
    body,
    note,
    notes_of,
    read,
    routes,
    start,
)
from conftest import Connect, Serve, unlike_uvicorn
from exchange import ResponseCut
from http1 import Http1Connection, Http1Exchange
from http2 import Http2Connection
from serving import UNDER_TEST, UVICORN, Server

MEGABYTE = 1024 * 1024


def shown(value: Any) -> Any:
    """`value` as JSON can tell it; bytes become {"bytes": ...}, so that types stay visible."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return value


# --- The scope ---


async def scope(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, shown(scope))


async def scope_types(scope: Scope, receive: Receive, send: Send) -> None:
    assert type(scope) is dict
    await answer(send, {key: type(value).__name__ for key, value in scope.items()})


async def test_scope_has_the_specified_keys(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    seen = (await connection.get("/scope")).json()
    assert seen["type"] == "http"
    assert seen["asgi"]["version"] == "3.0"
    assert seen["method"] == "GET"
    assert seen["scheme"] == "http"
    assert seen["path"] == "/scope"
    assert seen["raw_path"] == {"bytes": "/scope"}
    assert seen["query_string"] == {"bytes": ""}
    assert seen["root_path"] == ""
    assert seen["http_version"] == {"http/1.1": "1.1", "http/2": "2"}[connection.protocol]
    assert seen["client"] == ["127.0.0.1", connection.local_port]
    assert seen["server"] == ["127.0.0.1", server.port]
    assert seen["state"] == {}


async def test_spec_version_says_that_send_raises_after_a_disconnect(server: Server, connect: Connect) -> None:
    # Frameworks choose by it how they watch for disconnects: from 2.4 on send raises OSError.
    seen = (await (await connect(server)).get("/scope")).json()
    major, minor = map(int, seen["asgi"]["spec_version"].split("."))
    if UNDER_TEST != UVICORN:  # which still says 2.3
        assert (major, minor) >= (2, 4)


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
    assert "tls" not in types


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_scope_has_the_method(server: Server, connect: Connect, method: str) -> None:
    assert (await (await connect(server)).request(method, "/scope")).json()["method"] == method


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


async def test_path_that_is_not_utf8_reaches_the_application(server: Server, connect: Connect) -> None:
    seen = (await (await connect(server)).get("/scope/%FF")).json()
    assert seen["raw_path"] == {"bytes": "/scope/%FF"}
    assert seen["path"].startswith("/scope/")


def headers_of(scope: Any) -> list[tuple[bytes, bytes]]:
    """The headers in a scope that came as JSON."""
    return [(name["bytes"].encode("latin-1"), value["bytes"].encode("latin-1")) for name, value in scope["headers"]]


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
    assert headers_of((await connection.get("/scope", sent)).json()) == sent


async def test_no_header_is_added_to_those_of_the_client(server: Server, connect: Connect) -> None:
    # Proxies are full of them: x-forwarded-proto, x-request-id, x-envoy-internal, via.
    connection = await connect(server)
    seen = headers_of((await connection.get("/scope", [(b"host", b"example.org")])).json())
    assert seen == [(b"host", b"example.org")]


async def test_header_names_are_lower_case(server: Server) -> None:
    # On HTTP/2 they cannot be anything else.
    async with await Http1Connection.open(server.port) as connection:
        sent = [(b"HOST", b"example.org"), (b"X-MiXed", b"MiXed")]
        seen = headers_of((await connection.get("/scope", sent)).json())
    assert seen == [(b"host", b"example.org"), (b"x-mixed", b"MiXed")]


async def test_host_is_the_first_header_wherever_the_client_put_it(server: Server, connect: Connect) -> None:
    sent = [(b"x-early", b"1"), (b"host", b"example.org:99"), (b"x-late", b"2")]
    seen = headers_of((await (await connect(server)).get("/scope", sent)).json())
    if UNDER_TEST != UVICORN:  # which keeps its place; the specification speaks of HTTP/2 only
        assert seen[0] == (b"host", b"example.org:99")
    assert sorted(seen) == sorted(sent)


async def test_repeats_of_common_headers_lose_no_value(server: Server, connect: Connect) -> None:
    # A proxy may join such fields with a comma (RFC 9110, section 5.3).
    names = [b"accept", b"x-forwarded-for", b"cache-control", b"via"]
    sent = [(name, value) for name in names for value in (b"one", b"two")]
    seen = headers_of((await (await connect(server)).get("/scope", sent)).json())
    for name in names:
        values = b",".join(value for key, value in seen if key == name)
        assert [value.strip() for value in values.split(b",")] == [b"one", b"two"], name


async def test_cookies_are_joined_with_semicolons_only(server: Server, connect: Connect) -> None:
    sent = [(b"cookie", b"a=1"), (b"cookie", b"b=2, still b")]
    seen = headers_of((await (await connect(server)).get("/scope", sent)).json())
    cookies = b"; ".join(value for name, value in seen if name == b"cookie")
    assert cookies == b"a=1; b=2, still b"


async def test_header_values_keep_bytes_beyond_ascii(server: Server, connect: Connect) -> None:
    sent = [(b"host", b"example.org"), (b"x-latin", b"\xe9t\xe9"), (b"x-utf8", "été".encode())]
    assert headers_of((await (await connect(server)).get("/scope", sent)).json()) == sent


async def test_large_headers_arrive_whole(server: Server, connect: Connect) -> None:
    sent = [(b"host", b"example.org"), *((b"x-%d" % n, b"%d" % n * 1000) for n in range(10, 20))]
    assert headers_of((await (await connect(server)).get("/scope", sent)).json()) == sent


async def test_http_1_0_is_answered_and_named(server: Server) -> None:
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(b"GET /scope HTTP/1.0\r\nHost: example.org\r\n\r\n")
        assert (await Http1Exchange(connection).response()).json()["http_version"] == "1.0"
        await connection.ended()


async def scribble(scope: Scope, receive: Receive, send: Send) -> None:
    untouched = "mine" not in scope["state"] and "mine" not in scope
    scope["state"]["mine"] = scope["mine"] = True
    scope["headers"].append((b"mine", b"yes"))
    await answer(send, untouched)


async def test_each_request_has_a_scope_of_its_own(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert [(await connection.get("/scribble")).json() for _ in range(3)] == [True] * 3
    assert (b"mine", b"yes") not in headers_of((await connection.get("/scope")).json())


async def bare_scope(scope_: Scope, receive: Receive, send: Send) -> None:
    await scope(scope_, receive, send)


async def test_root_path_is_given_as_uvicorn_gives_it(serve: Serve, connect: Connect) -> None:
    server = serve(bare_scope, root_path="/prefix", lifespan="off")
    seen = (await (await connect(server)).get("/a%20b?q")).json()
    assert seen["root_path"] == "/prefix"
    assert seen["path"] == "/prefix/a b"
    assert seen["raw_path"] == {"bytes": "/prefix/a%20b"}
    assert seen["query_string"] == {"bytes": "q"}


# --- Request bodies ---


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, await read(receive))


async def messages(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells the messages of the request body as they came."""
    got: list[Message] = [await receive()]
    while got[-1].get("more_body"):
        got.append(await receive())
    types = {f"{key}: {type(value).__name__}" for message in got for key, value in message.items()}
    size = sum(len(message["body"]) for message in got)
    await answer(send, {"types": sorted(types), "size": size, "last": shown(got[-1])})


async def digest(scope: Scope, receive: Receive, send: Send) -> None:
    data = await read(receive)
    await answer(send, [len(data), hashlib.sha256(data).hexdigest()])


async def test_request_without_a_body_is_one_empty_message(server: Server, connect: Connect) -> None:
    seen = (await (await connect(server)).get("/messages")).json()
    assert seen["last"] == {"type": "http.request", "body": {"bytes": ""}, "more_body": False}
    assert seen["types"] == ["body: bytes", "more_body: bool", "type: str"]


async def test_small_body_arrives(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.post("/echo", b"a few bytes \x00\xff\r\n")).body == (b"a few bytes \x00\xff\r\n")


async def test_empty_body_with_content_length_zero(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    answered = await connection.post("/messages", b"", [(b"content-length", b"0")])
    assert answered.json()["size"] == 0


async def test_body_in_pieces_arrives_in_order(server: Server, connect: Connect) -> None:
    # On HTTP/1.1 it is chunked, and the chunks' framing must not be seen.
    exchange = await (await connect(server)).start("POST", "/echo", upload=True)
    for number in range(100):
        await exchange.send(b"piece %d;" % number)
    await exchange.send(b"", end=True)
    expected = b"".join(b"piece %d;" % number for number in range(100))
    assert (await exchange.response()).body == expected


async def test_end_of_a_body_may_come_alone(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("POST", "/messages", upload=True)
    await exchange.send(b"all of it")
    await exchange.send(b"", end=True)
    seen = (await exchange.response()).json()
    assert seen["size"] == 9
    assert seen["last"]["more_body"] is False
    assert seen["types"] == ["body: bytes", "more_body: bool", "type: str"]


async def each_piece(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers each piece of the body as it comes."""
    await start(send)
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await body(send, message["body"], more)


async def test_body_and_response_may_flow_at_once(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("POST", "/each_piece", upload=True)
    for number in range(10):
        await exchange.send(b"%d" % number)
        if number == 0:
            assert await exchange.head() == 200
        assert await exchange.chunk() == b"%d" % number
    await exchange.send(b"", end=True)
    assert await exchange.chunk() == b""


@pytest.mark.parametrize("size", [100_000, 10 * MEGABYTE])
async def test_large_bodies_arrive_whole(server: Server, connect: Connect, size: int) -> None:
    data = (b"%0.8d" % size) * (size // 8)
    expected = [len(data), hashlib.sha256(data).hexdigest()]
    connection = await connect(server)
    assert (await connection.post("/digest", data)).json() == expected


async def test_10_mb_go_both_ways(server: Server, connect: Connect) -> None:
    data = bytes(range(256)) * (10 * MEGABYTE // 256)
    assert (await (await connect(server)).post("/echo", data)).body == data


async def test_trailers_of_a_chunked_body_are_not_taken_for_body(server: Server) -> None:
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(
            b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            b"3;extension=1\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n"
        )
        assert (await Http1Exchange(connection).response()).body == b"abc"
        assert (await connection.post("/echo", b"next")).body == b"next"


@unlike_uvicorn("uvicorn has no HTTP/2")
async def test_trailers_of_an_http_2_request_end_its_body(server: Server) -> None:
    async with await Http2Connection.open(server.port) as connection:
        exchange = await connection.start("POST", "/echo", upload=True)
        await exchange.send(b"abc")
        await exchange.trailers([(b"x-trailer", b"1")])
        assert (await exchange.response()).body == b"abc"


# Around the sizes at which windows, buffers and frames end.
EDGES = [near + off for near in (16 * 1024, 64 * 1024, 256 * 1024, MEGABYTE) for off in (-1, 0, 1)]


async def test_no_size_of_body_is_special(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for size in EDGES:
        data = (b"%07d," % size) * (size // 8 + 1)
        assert (await connection.post("/echo", data[:size])).body == data[:size], size


async def test_no_size_of_piece_is_special(server: Server, connect: Connect) -> None:
    for size in EDGES:
        # A server may close an HTTP/1.1 connection whose response began before the request's end.
        exchange = await (await connect(server)).start("POST", "/each_piece", upload=True)
        sending = asyncio.create_task(exchange.send(b"x" * size))
        assert await exchange.head() == 200
        received = 0
        while received < size:
            received += len(await exchange.chunk())
        await sending
        await exchange.send(b"end", end=True)
        assert await exchange.rest() == b"end", size


async def test_bodies_of_many_requests_at_once_do_not_mix(server: Server, connect: Connect) -> None:
    choice = random.Random(1)

    async def client(number: int) -> None:
        for _ in range(8):
            connection = await connect(server)
            size = choice.choice([0, 1, 100, 5_000, 70_000, 300_000])
            data = choice.randbytes(size)
            path = choice.choice(["/echo", "/each_piece"])
            assert (await connection.post(path, data)).body == data

    await asyncio.gather(*(client(number) for number in range(24)))


async def test_500_connections_are_served_at_once(server: Server, connect: Connect) -> None:
    connections = [await connect(server) for _ in range(500)]
    answers = await asyncio.gather(*(connection.get("/plain") for connection in connections))
    assert [answer.body for answer in answers] == [b"plain"] * 500


async def test_long_targets_arrive_whole(server: Server, connect: Connect) -> None:
    path, query = "/scope/" + "a/" * 2000, "q=" + "b" * 4000
    seen = (await (await connect(server)).get(f"{path}?{query}")).json()
    assert seen["path"] == path
    assert seen["query_string"] == {"bytes": query}


async def test_expect_100_continue_is_answered(server: Server) -> None:
    async with await Http1Connection.open(server.port) as connection:
        exchange = await connection.start(
            "POST",
            "/echo",
            headers=[(b"content-length", b"5"), (b"expect", b"100-continue")],
            upload=True,
        )
        await connection.until(b"HTTP/1.1 100 Continue\r\n\r\n")
        await exchange.send(b"hello", end=True)
        assert (await exchange.response()).body == b"hello"


async def unread(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"not interested")


async def test_response_may_come_before_the_body_is_read(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.post("/unread", b"x" * MEGABYTE)).body == b"not interested"


async def test_unread_body_is_not_taken_for_the_next_request(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    smuggled = b"GET /scope HTTP/1.1\r\nhost: a\r\n\r\n"
    assert (await connection.post("/unread", smuggled)).body == b"not interested"
    # Closing the connection is the other right answer.
    with contextlib.suppress(ResponseCut, ConnectionError):
        assert (await connection.post("/echo", b"second")).body == b"second"


# --- Responses ---


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain", headers=[(b"content-type", b"text/plain")])


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


async def test_response_headers_keep_order_and_repeats(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).get("/many_headers")
    assert response.values(b"set-cookie") == [b"a=1; Path=/", b"b=2, with a comma"]
    assert response.values(b"x-repeated") == [b"one", b"two"]
    assert response.header(b"x-empty") == b""
    assert response.header(b"x-bytes") == b"\xe9"
    names = [name for name, _ in response.headers]
    own = [name for name in names if name.startswith((b"x-", b"set-"))]
    assert own == [b"set-cookie", b"x-before", b"set-cookie", b"x-empty", b"x-bytes"] + ([b"x-repeated"] * 2)


async def test_server_header_of_the_application_stays(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).get("/many_headers")
    assert b"of the application" in response.values(b"server")


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


async def test_upper_case_names_do_no_harm(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/upper_case")
    assert response.body == b"upper"
    assert response.header(b"x-upper") == b"Value"
    if connection.protocol == "http/2":
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


async def test_transfer_encoding_of_the_application_is_ignored(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/own_framing")
    assert response.body == b"not a chunk at all"
    assert response.header(b"x-own") == b"1"
    assert (await connection.get("/plain")).body == b"plain"


async def hop_by_hop(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"connection", b"keep-alive"), (b"keep-alive", b"timeout=5"), (b"x-own", b"1")]
    await answer(send, b"hop", headers=headers)


async def test_connection_headers_of_the_application_do_no_harm(server: Server, connect: Connect) -> None:
    # RFC 9113, section 8.2.2 forbids them on HTTP/2; the client's library refuses them.
    connection = await connect(server)
    response = await connection.get("/hop_by_hop")
    assert response.body == b"hop"
    assert response.header(b"x-own") == b"1"


async def close_please(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"bye", headers=[(b"connection", b"close")])


async def test_application_may_close_an_http_1_connection(server: Server) -> None:
    async with await Http1Connection.open(server.port) as connection:
        assert (await connection.get("/close_please")).header(b"connection") == b"close"
        # Not when it has been idle for the time-out, which is five seconds.
        await connection.ended(within=4)


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


@pytest.mark.parametrize("code", [204, 304])
async def test_204_and_304_have_no_body(server: Server, connect: Connect, code: int) -> None:
    connection = await connect(server)
    response = await connection.get(f"/status/{code}")
    assert (response.status, response.body) == (code, b"")
    assert response.header(b"transfer-encoding") is None
    assert response.header(b"content-length") in (None, b"0")
    assert (await connection.get("/plain")).body == b"plain"


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


# --- After the response ---


async def after(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    await answer(send, b"done")
    note(scope, await receive())
    note(scope, await receive())


async def test_receive_gives_disconnect_once_the_response_ended(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/after?{key}")).body == b"done"
    disconnect = {"type": "http.disconnect"}
    assert await server.noted(key, disconnect) == [disconnect] * 2
    assert (await connection.get("/plain")).body == b"plain"


async def afterthoughts(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"done", headers=[(b"content-length", b"4")])
    try:
        await body(send, b"an afterthought")
        await body(send)
        await start(send, 500)
    except Exception as error:
        note(scope, repr(error))
    else:
        note(scope, "ignored")


@unlike_uvicorn("uvicorn raises")
async def test_messages_after_the_response_ended_are_ignored(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/afterthoughts?{key}")).body == b"done"
    assert (await connection.get("/plain")).body == b"plain"
    assert await server.noted(key, "ignored") == ["ignored"]


async def works_on(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"done")
    await asyncio.sleep(0)
    note(scope, "worked on")


async def test_application_may_go_on_after_its_response(server: Server, connect: Connect, key: str) -> None:
    assert (await (await connect(server)).get(f"/works_on?{key}")).body == b"done"
    await server.noted(key, "worked on")


# --- Connections ---


async def test_one_connection_serves_many_requests(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for number in range(50):
        data = b"%d" % number * number
        assert (await connection.post("/echo", data)).body == data
    client = (await connection.get("/scope")).json()["client"]
    assert client == ["127.0.0.1", connection.local_port]


async def meet(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers once ten requests have come together."""
    note(scope, "here")
    while len(notes_of(scope)) < 10:
        await asyncio.sleep(0)
    await answer(send, scope["path"].encode())


async def test_requests_run_concurrently(server: Server, connect: Connect, key: str) -> None:
    connections = [await connect(server) for _ in range(10)]
    requests = [connection.get(f"/meet/{number}?{key}") for number, connection in enumerate(connections)]
    answers = await asyncio.gather(*requests)
    assert [response.body for response in answers] == [b"/meet/%d" % n for n in range(10)]


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    async with await Http1Connection.open(server.port) as connection:
        paths = [b"/plain", b"/streamed", b"/with_length", b"/status/204", b"/scope", b"/plain"]
        await connection.write(
            b"".join(b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % path for path in paths)
            + b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nlast"
        )
        answers = [await Http1Exchange(connection).response() for _ in range(7)]
    assert answers[0].body == b"plain"
    assert answers[1].body.endswith(b"98,99,")
    assert answers[2].body == b"12345"
    assert answers[3].status == 204
    assert answers[4].json()["path"] == "/scope"
    assert answers[5].body == b"plain"
    assert answers[6].body == b"last"


@unlike_uvicorn("uvicorn has no HTTP/2")
async def test_http_2_multiplexes_streams(server: Server, key: str) -> None:
    async with await Http2Connection.open(server.port) as connection:
        requests = [connection.get(f"/meet/{number}?{key}") for number in range(10)]
        answers = await asyncio.gather(*requests)
        assert [response.body for response in answers] == [b"/meet/%d" % n for n in range(10)]


@unlike_uvicorn("uvicorn has no HTTP/2")
async def test_100_streams_of_one_connection_do_not_mix(server: Server) -> None:
    async with await Http2Connection.open(server.port) as connection:
        bodies = [b"%d;" % number * 5_000 for number in range(100)]
        answers = await asyncio.gather(*(connection.post("/echo", data) for data in bodies))
        assert [response.body for response in answers] == bodies
        await asyncio.gather(*(connection.get("/large_streamed") for _ in range(4)))


@unlike_uvicorn("uvicorn has no HTTP/2")
async def test_both_protocols_share_the_port(server: Server) -> None:
    async with (
        await Http1Connection.open(server.port) as one,
        await Http2Connection.open(server.port) as two,
    ):
        first, second = await asyncio.gather(one.get("/scope"), two.get("/scope"))
    assert (first.json()["http_version"], second.json()["http_version"]) == ("1.1", "2")


# --- Kinds of applications ---


class Asgi2:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        await answer(send, b"ASGI 2 class " + await read(receive))


def asgi2_function(scope: Scope) -> Any:
    assert scope["type"] == "http"

    async def instance(receive: Receive, send: Send) -> None:
        await answer(send, b"ASGI 2 function " + await read(receive))

    return instance


class Callable3:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"object " + await read(receive))

    async def method(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"method " + await read(receive))


async def greets(greeting: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, greeting + await read(receive))


callable3 = Callable3()
partial = functools.partial(greets, b"partial ")


taken_for_asgi2 = unlike_uvicorn("uvicorn takes it for ASGI 2")


@pytest.mark.parametrize(
    ("app", "greeting"),
    [
        ("Asgi2", b"ASGI 2 class"),
        ("asgi2_function", b"ASGI 2 function"),
        ("callable3", b"object"),
        pytest.param("callable3.method", b"method", marks=taken_for_asgi2),
        pytest.param("partial", b"partial", marks=taken_for_asgi2),
    ],
)
async def test_application_may_be(serve: Serve, app: str, greeting: bytes) -> None:
    server = serve(f"{__name__}:{app}")
    async with await Http1Connection.open(server.port) as connection:
        response = await connection.post("/", b"and body")
    assert response.body == greeting + b" and body"


def factory() -> Callable3:
    print("factory called")
    return Callable3()


async def test_factory_makes_the_application_once(serve: Serve) -> None:
    server = serve(factory, factory=True, env={"PYTHONUNBUFFERED": "1"})
    async with await Http1Connection.open(server.port) as connection:
        for _ in range(3):
            assert (await connection.post("/", b"x")).body == b"object x"
    assert server.output.count("factory called") == 1


app = routes(
    scope,
    scope_types,
    scribble,
    echo,
    messages,
    digest,
    each_piece,
    unread,
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
    after,
    afterthoughts,
    works_on,
    meet,
)
