"""Extensions to HTTP: which ones are advertised, trailers and early hints."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import Message, Receive, Scope, Send, answer, body, file_exists, gate, note, read, routes
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.http1 import Http1Connection, Http1Exchange
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, every_protocol
from py_tests.harness.serving import Server, unlike_uvicorn

pytestmark = unlike_uvicorn("it has none of them")
conforms = pytest.mark.conforms

Fields = list[tuple[bytes, bytes]]

# On HTTP/1.1 it concerns the connection, and has to be named there (RFC 9110, section 10.1.4).
TE = [(b"te", b"trailers"), (b"connection", b"te")]


def te(protocol: str) -> Fields:
    return TE[:1] if protocol in (HTTP2, HTTP3) else TE


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


# --- What is advertised ---


async def extensions(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, scope["extensions"])


FILES: dict[str, Any] = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}


@conforms("core.extensions", "push", "debug", "tls.absent")
@pytest.mark.protocols(HTTP1, HTTP2)
async def test_extensions_are_advertised(server: Server, connect: Connect) -> None:
    seen = (await (await connect(server)).get("/extensions")).json()
    assert seen == {"http.response.trailers": {}, "http.response.early_hint": {}, **FILES}


@conforms("core.extensions", "push", "debug")
@pytest.mark.protocols(HTTP3)
async def test_extensions_are_advertised_on_http_3(server: Server, connect: Connect) -> None:
    seen = (await (await connect(server)).get("/extensions")).json()
    assert set(seen) == {"http.response.trailers", "http.response.early_hint", *FILES, "tls"}


@conforms("trailers.te", "early_hint.late", "push", "debug", "tls.absent")
@pytest.mark.protocols("http/1.0")
async def test_http_1_0_has_no_trailers_and_no_early_hints(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/extensions")).json() == FILES


async def changes_extensions(scope: Scope, receive: Receive, send: Send) -> None:
    untouched = "mine" not in scope["extensions"]
    scope["extensions"]["mine"] = {}
    await answer(send, untouched)


@conforms("core.scope")
async def test_each_request_has_extensions_of_its_own(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert [(await connection.get("/changes_extensions")).json() for _ in range(2)] == [True, True]


async def unadvertised(scope: Scope, receive: Receive, send: Send) -> None:
    messages: list[Message] = [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.push", "path": "/plain", "headers": []},
    ]
    for message in messages:
        try:
            await send(message)
        except Exception as error:
            note(scope, isinstance(error, OSError))
    await answer(send, b"answered")


@conforms("push", "debug")
async def test_messages_of_other_extensions_raise(server: Server, connect: Connect, key: str) -> None:
    assert (await (await connect(server)).get(f"/unadvertised?{key}")).body == b"answered"
    assert await server.notes(key) == [False, False]


# --- Trailers ---


async def start(send: Send, *headers: tuple[bytes, bytes], trailers: Any = True) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers), "trailers": trailers})


async def end(send: Send, *fields: tuple[bytes, bytes], **keys: Any) -> None:
    await send({"type": "http.response.trailers", "headers": list(fields), **keys})


async def checked(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, (b"trailer", b"x-sum, x-more"))
    await body(send, b"in ", more=True)
    await body(send, b"pieces")
    await end(send, (b"x-sum", b"42"), (b"x-more", b"1"), (b"x-more", b"2"), (b"x-empty", b""))


SUM = [(b"x-sum", b"42"), (b"x-more", b"1"), (b"x-more", b"2"), (b"x-empty", b"")]


@conforms("trailers.sent")
async def test_trailers_follow_the_body(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for _ in range(3):
        response = await connection.get("/checked", te(connection.protocol))
        assert (response.status, response.body, response.trailers) == (200, b"in pieces", SUM)
        assert response.header(b"trailer") == b"x-sum, x-more"
    assert (await connection.get("/plain")).body == b"plain"


async def one_piece(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"whole")
    await end(send, (b"x-sum", b"42"))


async def no_piece(scope: Scope, receive: Receive, send: Send) -> None:
    """As gRPC answers an error: head and trailers."""
    await start(send)
    await body(send)
    await end(send, (b"x-sum", b"42"))


async def no_field(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"whole")
    await end(send)


@conforms("trailers.sent")
@pytest.mark.parametrize(
    ("app", "data", "trailers"),
    [(one_piece, b"whole", SUM[:1]), (no_piece, b"", SUM[:1]), (no_field, b"whole", [])],
)
async def test_trailers_follow_any_body(
    server: Server, connect: Connect, app: Any, data: bytes, trailers: Fields
) -> None:
    connection = await connect(server)
    response = await connection.get(f"/{app.__name__}", te(connection.protocol))
    assert (response.status, response.body, response.trailers) == (200, data, trailers)
    assert (await connection.get("/plain")).body == b"plain"


async def in_parts(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"body")
    await end(send, (b"x-one", b"1"), more_trailers=True)
    await end(send, more_trailers=True)
    await end(send, (b"x-two", b"2"), more_trailers=False)
    await end(send, (b"x-three", b"3"))


@conforms("trailers.more")
async def test_trailers_may_come_in_several_messages(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/in_parts", te(connection.protocol))
    assert (response.body, response.trailers) == (b"body", [(b"x-one", b"1"), (b"x-two", b"2")])
    assert (await connection.get("/plain")).body == b"plain"


@conforms("trailers.te")
@every_protocol
@pytest.mark.parametrize("path", ["/checked", "/one_piece", "/no_piece", "/in_parts"])
async def test_clients_that_have_not_asked_get_no_trailers(server: Server, connect: Connect, path: str) -> None:
    connection = await connect(server)
    response = await connection.get(path)
    assert (response.status, response.trailers) == (200, [])
    assert response.body in (b"in pieces", b"whole", b"", b"body")
    if connection.protocol != "http/1.0":
        assert (await connection.get("/plain")).body == b"plain"


@conforms("trailers.te")
@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ([b"trailers"], True),
        ([b"Trailers"], True),
        ([b"gzip, trailers"], True),
        ([b"trailers,gzip;q=0.5"], True),
        ([b"gzip", b"trailers"], True),
        ([b"gzip"], False),
        ([b"xtrailers"], False),
        ([b"trailers-too"], False),
        ([b""], False),
    ],
)
async def test_te_is_a_list(server: Server, connect: Connect, values: list[bytes], asked: bool) -> None:
    headers = [*((b"te", value) for value in values), TE[1]]
    response = await (await connect(server)).get("/checked", headers)
    assert (response.body, response.trailers) == (b"in pieces", SUM if asked else [])


async def with_length(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, (b"content-length", b"4"))
    await body(send, b"body")
    await end(send, (b"x-sum", b"42"))


@conforms("trailers.sent")
async def test_trailers_after_a_body_of_known_length(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/with_length", te(connection.protocol))
    assert response.body == b"body"
    # HTTP/1.1 has room for trailers after chunks only.
    if connection.protocol != HTTP1:
        assert (response.header(b"content-length"), response.trailers) == (b"4", SUM[:1])
    assert (await connection.get("/plain")).body == b"plain"


@conforms("trailers.sent")
async def test_no_trailers_without_a_body_to_follow(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.request("HEAD", "/checked", headers=te(connection.protocol))
    assert (response.status, response.body) == (200, b"")
    assert (await connection.get("/plain")).body == b"plain"


async def late_trailers(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    waiting = asyncio.create_task(receive())
    await start(send)
    await body(send, b"body")
    await file_exists(gate(scope))
    note(scope, waiting.done())
    await end(send, (b"x-sum", b"42"))
    note(scope, (await waiting)["type"])


@conforms("trailers.wait")
async def test_response_ends_with_its_trailers(server: Server, connect: Connect, key: str, tmp_path: Path) -> None:
    path = tmp_path / "gate"
    connection = await connect(server)
    headers = [(b"x-gate", bytes(path)), *te(connection.protocol)]
    exchange = await connection.start("GET", f"/late_trailers?{key}", headers=headers)
    assert await exchange.head() == 200
    assert await exchange.chunk() == b"body"
    assert exchange.silent()
    path.touch()
    assert await exchange.rest() == b""
    assert exchange.trailers == SUM[:1]
    assert await server.noted(key, "http.disconnect") == [False, "http.disconnect"]


async def no_trailers(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"body")


async def raises_before_trailers(scope: Scope, receive: Receive, send: Send) -> None:
    await no_trailers(scope, receive, send)
    raise LookupError("instead of trailers")


@conforms("trailers.wait")
@pytest.mark.parametrize("app", [no_trailers, raises_before_trailers])
async def test_response_without_the_trailers_it_promised_is_cut(server: Server, connect: Connect, app: Any) -> None:
    connection = await connect(server)
    try:
        status = (await connection.get(f"/{app.__name__}", te(connection.protocol))).status
    except ResponseCut:
        status = 500
    assert status == 500
    assert (await server.get("/plain")).body == b"plain"


async def unpromised(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, trailers=False)
    await body(send, b"body")
    await end(send, (b"x-sum", b"42"))


@conforms("trailers.wait")
async def test_trailers_that_the_start_did_not_promise_are_ignored(server: Server, connect: Connect) -> None:
    # The response is complete before they come.
    connection = await connect(server)
    response = await connection.get("/unpromised", te(connection.protocol))
    assert (response.body, response.trailers) == (b"body", [])
    assert (await connection.get("/plain")).body == b"plain"


WRONG_TRAILERS: dict[str, Any] = {
    "pseudo-header": {"headers": [(b":status", b"200")]},
    "line end in a name": {"headers": [(b"x\r\ny", b"1")]},
    "line end in a value": {"headers": [(b"x", b"1\r\ny: 2")]},
    "nul": {"headers": [(b"x", b"1\x00")]},
    "empty name": {"headers": [(b"", b"1")]},
    "text": {"headers": [("x", "1")]},
    "no pairs": {"headers": [b"x"]},
}


async def wrong_trailers(scope: Scope, receive: Receive, send: Send) -> None:
    keys = WRONG_TRAILERS[(await read(receive)).decode()]
    await start(send)
    await body(send, b"body")
    try:
        await send({"type": "http.response.trailers", **keys})
    except Exception as error:
        note(scope, isinstance(error, OSError))
    await end(send, (b"x-good", b"1"))


@conforms("trailers.names")
@pytest.mark.parametrize("name", WRONG_TRAILERS)
async def test_wrong_trailers_raise(server: Server, connect: Connect, key: str, name: str) -> None:
    connection = await connect(server)
    response = await connection.post(f"/wrong_trailers?{key}", name.encode(), te(connection.protocol))
    assert (response.body, response.trailers) == (b"body", [(b"x-good", b"1")])
    assert await server.notes(key) == [False]


async def upper_case(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"body")
    await end(send, (b"X-Upper", b"Value"))


@conforms("trailers.names")
async def test_names_of_trailers_are_lowered(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/upper_case", te(connection.protocol))
    assert response.trailers == [(b"x-upper", b"Value")]


async def too_early(scope: Scope, receive: Receive, send: Send) -> None:
    for before in ["nothing", "start", "body"]:
        try:
            await end(send, (b"x-early", b"1"))
        except Exception as error:
            note(scope, [before, isinstance(error, OSError)])
        if before == "nothing":
            await start(send)
        elif before == "start":
            await body(send, b"first, ", more=True)
    await body(send, b"last")
    await end(send, (b"x-sum", b"42"))


@conforms("trailers.wait")
async def test_trailers_before_the_end_of_the_body_raise(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    response = await connection.get(f"/too_early?{key}", te(connection.protocol))
    assert (response.body, response.trailers) == (b"first, last", SUM[:1])
    assert await server.notes(key) == [["nothing", False], ["start", False], ["body", False]]


# --- Early hints ---


async def hint(send: Send, *links: bytes) -> None:
    await send({"type": "http.response.early_hint", "links": links})


def links_of(head: tuple[int, Fields]) -> list[bytes]:
    status, fields = head
    assert status == 103
    return [link.strip() for name, value in fields if name == b"link" for link in value.split(b",")]


CSS, JS = b"</style.css>; rel=preload; as=style", b"</script.js>; rel=preload; as=script"


async def hints(scope: Scope, receive: Receive, send: Send) -> None:
    """Goes on only when the client has what has been sent so far."""
    await start(send, (b"content-type", b"text/html"), trailers=False)
    await hint(send, CSS, JS)
    await receive()
    await hint(send, JS)
    await hint(send)
    await receive()
    await answer_body(send)


async def answer_body(send: Send) -> None:
    await body(send, b"first, ", more=True)
    await hint(send, CSS)
    await body(send, b"last")


@conforms("early_hint.sent", "early_hint.late")
async def test_early_hints_come_before_the_response(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    exchange = await connection.start("POST", "/hints", upload=True)
    assert links_of(await exchange.any_head()) == [CSS, JS]
    await exchange.send(b"go on")
    assert links_of(await exchange.any_head()) == [JS]
    await exchange.send(b"go on", end=True)
    response = await exchange.response()
    assert (response.status, response.body) == (200, b"first, last")
    assert response.header(b"content-type") == b"text/html"
    assert response.header(b"link") is None
    # An early hint without links may be left out.
    assert [links for head in response.interim if (links := links_of(head))] == []


async def hint_in_any_form(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, trailers=False)
    await send({"type": "http.response.early_hint", "links": [CSS]})
    await send({"type": "http.response.early_hint", "links": iter([JS])})
    await body(send, b"body")


@conforms("early_hint.sent")
async def test_links_may_be_any_iterable(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).get("/hint_in_any_form")
    assert [links_of(head) for head in response.interim] == [[CSS], [JS]]
    assert response.body == b"body"


@pytest.mark.protocols("http/1.0")
@conforms("early_hint.late")
@pytest.mark.parametrize("path", ["/hint_in_any_form", "/hints_late"])
async def test_http_1_0_gets_no_early_hints(server: Server, connect: Connect, path: str) -> None:
    response = await (await connect(server)).get(path)
    assert (response.status, response.interim) == (200, [])


async def hints_late(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, trailers=False)
    await answer_body(send)
    await hint(send, CSS)
    note(scope, "ignored")


@conforms("early_hint.late")
async def test_early_hints_after_the_head_are_ignored(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    response = await connection.get(f"/hints_late?{key}")
    assert (response.body, response.interim) == (b"first, last", [])
    assert (await connection.get("/plain")).body == b"plain"
    assert await server.noted(key, "ignored") == ["ignored"]


async def wrong_hints(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, trailers=False)
    for links in [None, 1, ["</text>"], [b"</a>\r\nset-cookie: a=1"], [b"</a>\x00"], [None]]:
        try:
            await send({"type": "http.response.early_hint", "links": links})
        except Exception as error:
            note(scope, isinstance(error, OSError))
    try:
        await send({"type": "http.response.early_hint"})
    except Exception as error:
        note(scope, isinstance(error, OSError))
    await body(send, b"answered")


@conforms("early_hint.sent", "http.response.values")
async def test_wrong_early_hints_raise(server: Server, connect: Connect, key: str) -> None:
    response = await (await connect(server)).get(f"/wrong_hints?{key}")
    assert (response.body, response.interim) == (b"answered", [])
    assert await server.notes(key) == [False] * 7


async def fails_after_hint(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, trailers=False)
    await hint(send, CSS)
    raise LookupError("after the hint")


@conforms("early_hint.sent")
async def test_error_after_an_early_hint_is_a_500(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    response = await connection.get("/fails_after_hint")
    assert (response.status, [links_of(head) for head in response.interim]) == (500, [[CSS]])


async def test_early_hints_go_to_pipelined_requests_in_order(server: Server) -> None:
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(b"GET /hint_in_any_form HTTP/1.1\r\nhost: a\r\n\r\n" * 3)
        for _ in range(3):
            response = await Http1Exchange(connection).response()
            assert [links_of(head) for head in response.interim] == [[CSS], [JS]]


app = routes(
    plain,
    extensions,
    changes_extensions,
    unadvertised,
    checked,
    one_piece,
    no_piece,
    no_field,
    in_parts,
    with_length,
    late_trailers,
    no_trailers,
    raises_before_trailers,
    unpromised,
    wrong_trailers,
    upper_case,
    too_early,
    hints,
    hint_in_any_form,
    hints_late,
    wrong_hints,
    fails_after_hint,
)
