"""Applications at fault: the client gets a 500 or a cut response, the log says why, and the server
lives on."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from py_tests.harness.apps import Message, Receive, Scope, Send, answer, body, note, read, routes, start
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import Connect, every_protocol
from py_tests.harness.serving import UNDER_TEST, UVICORN, Serve, Server, unlike_uvicorn


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


@pytest.fixture(autouse=True)
async def server_lives_on(server: Server) -> Any:
    """After each test of the file, the same server answers as before."""
    yield
    assert (await server.get("/plain")).body == b"plain"
    assert server.process.poll() is None


# --- Nothing was sent: 500 ---


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("raised on purpose")


async def raises_after_reading(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    await asyncio.sleep(0)
    raise LookupError("raised on purpose")


async def raises_a_group(scope: Scope, receive: Receive, send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raises(scope, receive, send))


async def recurses(scope: Scope, receive: Receive, send: Send) -> None:
    async def again() -> None:
        await again()

    try:
        await again()
    except RecursionError as error:
        raise LookupError("raised on purpose") from error


async def cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError("raised on purpose")


async def exits(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit("raised on purpose")


async def interrupts(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0)
    raise KeyboardInterrupt("raised on purpose")


async def exits_generator(scope: Scope, receive: Receive, send: Send) -> None:
    raise GeneratorExit("raised on purpose")


class Unusual(BaseException):
    pass


async def raises_base_exception(scope: Scope, receive: Receive, send: Send) -> None:
    raise Unusual("raised on purpose")


ends_uvicorn = unlike_uvicorn("it ends, or its client waits")


@pytest.mark.conforms("core.exception", "http.response.incomplete")
@pytest.mark.parametrize(
    "app",
    [
        raises,
        raises_after_reading,
        raises_a_group,
        recurses,
        pytest.param(cancels_itself, marks=ends_uvicorn),
        pytest.param(exits, marks=ends_uvicorn),
        pytest.param(interrupts, marks=ends_uvicorn),
        pytest.param(exits_generator, marks=ends_uvicorn),
        pytest.param(raises_base_exception, marks=ends_uvicorn),
    ],
)
@pytest.mark.parametrize("payload", [b"", b"x" * 100_000])
async def test_exception_before_the_response_is_a_500_and_a_traceback(
    server: Server, connect: Connect, app: Any, payload: bytes
) -> None:
    connection = await connect(server)
    response = await connection.post(f"/{app.__name__}", payload)
    assert response.status == 500
    # What went wrong is for the log, not for the client.
    assert b"purpose" not in response.body
    assert b"Traceback" not in response.body
    await eventually(lambda: "raised on purpose" in server.fresh_log)
    assert "Traceback (most recent call last)" in server.fresh_log
    assert f"in {app.__name__}" in server.fresh_log
    assert "test_application_errors.py" in server.fresh_log


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)


async def returns_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@pytest.mark.conforms("http.response.incomplete")
@every_protocol
@pytest.mark.parametrize("app", [returns, returns_at_once])
async def test_return_without_a_response_is_a_500(server: Server, connect: Connect, app: Any) -> None:
    response = await (await connect(server)).post(f"/{app.__name__}", b"body")
    assert response.status == 500
    await eventually(lambda: "response" in server.fresh_log)


async def returns_a_value(scope: Scope, receive: Receive, send: Send) -> Any:
    await answer(send, b"and a value")
    return {"status": 200}


async def test_value_returned_by_the_application_does_no_harm(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/returns_a_value")).body == b"and a value"


async def unprintable(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("a lone surrogate: \udcff")


class Sulky(Exception):
    def __str__(self) -> str:
        raise LookupError("no comment")


async def raises_what_cannot_be_shown(scope: Scope, receive: Receive, send: Send) -> None:
    raise Sulky


@pytest.mark.parametrize("app", [unprintable, raises_what_cannot_be_shown])
async def test_exception_that_cannot_be_printed_is_a_500_all_the_same(
    server: Server, connect: Connect, app: Any
) -> None:
    assert (await (await connect(server)).get(f"/{app.__name__}")).status == 500
    await eventually(lambda: f"in {app.__name__}" in server.fresh_log)


async def starts_and_raises(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, headers=[(b"content-length", b"3")])
    raise LookupError("raised on purpose")


async def starts_and_returns(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)


@pytest.mark.conforms("http.response.incomplete")
@pytest.mark.parametrize("app", [starts_and_raises, starts_and_returns])
async def test_end_after_the_start_message_is_never_a_complete_200(server: Server, connect: Connect, app: Any) -> None:
    # The head may wait for the first body message; if it did, a 500 can still be sent.
    connection = await connect(server)
    try:
        status = (await connection.get(f"/{app.__name__}")).status
    except ResponseCut:
        status = 500
    assert status == 500


# --- Something was sent: the response is cut ---


async def client_has_seen(receive: Receive) -> None:
    """The client says that it has seen what was sent by ending its body."""
    await read(receive)


async def raises_amid_body(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"first piece", more=True)
    await client_has_seen(receive)
    raise LookupError("raised on purpose")


async def returns_amid_body(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"first piece", more=True)
    await client_has_seen(receive)


async def cancelled_amid_body(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"first piece", more=True)
    await client_has_seen(receive)
    raise asyncio.CancelledError


async def raises_amid_length(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, headers=[(b"content-length", b"100")])
    await body(send, b"first piece", more=True)
    await client_has_seen(receive)
    raise LookupError("raised on purpose")


@pytest.mark.conforms("core.exception", "http.response.incomplete")
@pytest.mark.parametrize(
    "app",
    [
        raises_amid_body,
        returns_amid_body,
        pytest.param(cancelled_amid_body, marks=ends_uvicorn),
        raises_amid_length,
    ],
)
async def test_end_amid_the_body_cuts_the_response(server: Server, connect: Connect, app: Any) -> None:
    connection = await connect(server)
    exchange = await connection.start("POST", f"/{app.__name__}", upload=True)
    assert await exchange.head() == 200
    assert await exchange.chunk() == b"first piece"
    await exchange.send(b"", end=True)
    with pytest.raises(ResponseCut) as cut:
        await exchange.chunk()
    if connection.protocol == "http/1.1":
        await connection.ended()
    else:
        assert "RST_STREAM" in cut.value.reason or "RESET_STREAM" in cut.value.reason


async def test_exception_amid_the_body_is_logged(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    with pytest.raises(ResponseCut):
        await connection.post("/raises_amid_body", b"x")
    await eventually(lambda: "LookupError: raised on purpose" in server.fresh_log)
    assert "in raises_amid_body" in server.fresh_log


async def too_short(scope: Scope, receive: Receive, send: Send) -> None:
    with contextlib.suppress(RuntimeError):
        await answer(send, b"12345", headers=[(b"content-length", b"10")])


async def too_short_in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, headers=[(b"content-length", b"10")])
    await body(send, b"123", more=True)
    with contextlib.suppress(RuntimeError):
        await body(send, b"45")


@pytest.mark.conforms("http.response.short")
@every_protocol
@pytest.mark.parametrize("app", [too_short, too_short_in_pieces])
async def test_body_shorter_than_its_length_does_not_leave_the_client_waiting(
    server: Server, connect: Connect, app: Any
) -> None:
    try:
        status = (await (await connect(server)).get(f"/{app.__name__}")).status
    except ResponseCut:
        status = 500
    assert status == 500


async def too_long(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await answer(send, b"12345HTTP/1.1 200 OK\r\n\r\n", headers=[(b"content-length", b"5")])
    except Exception as error:
        note(scope, isinstance(error, OSError))


async def too_long_in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, headers=[(b"content-length", b"5")])
    await body(send, b"12345", more=True)
    try:
        await body(send, b"HTTP/1.1 200 OK\r\n\r\n")
    except Exception as error:
        note(scope, isinstance(error, OSError))


@pytest.mark.conforms("http.response.long")
@every_protocol
@pytest.mark.parametrize("app", [too_long, too_long_in_pieces])
async def test_body_longer_than_its_length_never_leaves(server: Server, connect: Connect, key: str, app: Any) -> None:
    # What is too much could be taken for the next response.
    connection = await connect(server)
    try:
        response = await connection.get(f"/{app.__name__}?{key}")
        received = b"" if response.status == 500 else response.body
    except ResponseCut as cut:
        received = cut.body
    assert b"12345".startswith(received)
    with contextlib.suppress(ResponseCut, ConnectionError):
        assert (await connection.get("/plain")).body == b"plain"
    assert await server.noted(key, False) == [False]


# --- Wrong messages ---

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"", "more_body": True}


def status(value: Any) -> Message:
    return {**START, "status": value}


def headers(value: Any) -> Message:
    return {**START, "headers": value}


# The last message of each is wrong. uvicorn lets those pass whose name ends in "*".
WRONG: dict[str, list[Any]] = {
    "None": [None],
    "text": ["http.response.start"],
    "list": [[START]],
    "no type": [{}],
    "no type but the rest": [{"status": 200, "headers": []}],
    "type None": [{**START, "type": None}],
    "type bytes": [{**START, "type": b"http.response.start"}],
    "unknown type": [{"type": "http.response.finish"}],
    "empty type": [{"type": ""}],
    "type of another protocol": [{"type": "websocket.send", "text": "hello"}],
    "type of lifespan": [{"type": "lifespan.startup.complete"}],
    "type of a received message": [{"type": "http.request", "body": b""}],
    "unknown type amid the body": [START, BODY, {"type": "http.response.finish"}],
    "body before start": [BODY],
    "start twice": [START, START],
    "start after body": [START, BODY, START],
    "no status": [{"type": "http.response.start", "headers": []}],
    "status None": [status(None)],
    "status text": [status("200")],
    "status bytes": [status(b"200")],
    "status float*": [status(200.5)],
    "status zero*": [status(0)],
    "status negative*": [status(-200)],
    "status of two digits*": [status(99)],
    "status informational*": [status(100)],
    "status that switches protocols*": [status(101)],
    "status of four digits*": [status(1000)],
    "status huge*": [status(2**70)],
    "headers None": [headers(None)],
    "headers number": [headers(42)],
    "headers of single values": [headers([b"name"])],
    "headers of three": [headers([(b"name", b"value", b"more")])],
    "header None": [headers([None])],
    "header name text": [headers([("name", b"value")])],
    "header value text": [headers([(b"name", "value")])],
    "header value None": [headers([(b"name", None)])],
    "header value number": [headers([(b"content-length", 5)])],
    "header name empty*": [headers([(b"", b"value")])],
    "header name with space": [headers([(b"na me", b"value")])],
    "header name with colon": [headers([(b"name:", b"value")])],
    "header name with line end": [headers([(b"na\r\nme", b"value")])],
    "header name beyond ascii*": [headers([(b"n\xe4me", b"value")])],
    "header value with line end": [headers([(b"name", b"value\r\nset-cookie: a=1")])],
    "header value with line feed": [headers([(b"name", b"value\nset-cookie: a=1")])],
    "header value with carriage return*": [headers([(b"name", b"value\rset-cookie: a=1")])],
    "header value with nul": [headers([(b"name", b"val\x00ue")])],
    "pseudo-header": [headers([(b":status", b"200")])],
    "content-length that is no number": [headers([(b"content-length", b"five")]), {**BODY}],
    "content-length negative": [headers([(b"content-length", b"-5")]), {**BODY}],
    "content-length list*": [headers([(b"content-length", b"5, 6")]), {**BODY}],
    "content-length twice*": [
        headers([(b"content-length", b"5"), (b"content-length", b"6")]),
        {**BODY},
    ],
    "body text": [START, {**BODY, "body": "text"}],
    "body None*": [START, {**BODY, "body": None}],
    "body number": [START, {**BODY, "body": 42}],
    "body list": [START, {**BODY, "body": [b"piece"]}],
}


async def sends_wrong(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the messages; says what came of it, and answers if nothing has been sent so far."""
    name = (await read(receive)).decode()
    try:
        for message in WRONG[name]:
            await send(message)
    except Exception as error:
        note(scope, {"OSError": isinstance(error, OSError), "text": str(error)})
        raise
    note(scope, "accepted")
    raise LookupError("accepted")


@pytest.mark.conforms("core.wrong_message", "http.response.order", "http.response.names", "http.response.values")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[unlike_uvicorn("it lets this pass")] if "*" in name else []) for name in WRONG],
)
async def test_wrong_message_raises_from_send(server: Server, connect: Connect, key: str, name: str) -> None:
    connection = await connect(server)
    with contextlib.suppress(ResponseCut):
        response = await connection.post(f"/sends_wrong?{key}", name.encode())
        assert response.status == 500
        assert response.header(b"set-cookie") is None
    (noted,) = await server.notes(key)
    assert noted != "accepted"
    # An OSError would mean that the client has left.
    assert not noted["OSError"]
    assert noted["text"]


async def recovers(scope: Scope, receive: Receive, send: Any) -> None:
    """A wrong message does no harm to the ones that follow."""
    for message in [None, {"type": "nonsense"}, BODY, status("200"), headers([("name", "value")])]:
        with contextlib.suppress(Exception):
            await send(message)
    await start(send)
    for message in [None, {"type": "nonsense"}, START, {**BODY, "body": "text"}]:
        with contextlib.suppress(Exception):
            await send(message)
    await body(send, b"recovered")


@unlike_uvicorn("a wrong message counts as sent")
async def test_application_may_go_on_after_a_wrong_message(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/recovers")).body == b"recovered"


async def wrong_calls(scope: Scope, receive: Any, send: Any) -> None:
    calls: list[tuple[Any, list[Any]]] = [(send, []), (send, [START, BODY]), (receive, [1])]
    for function, arguments in calls:
        try:
            await function(*arguments)
        except TypeError:
            note(scope, "TypeError")
    await answer(send, b"")


async def test_wrong_number_of_arguments_is_a_type_error(server: Server, connect: Connect, key: str) -> None:
    assert (await (await connect(server)).get(f"/wrong_calls?{key}")).status == 200
    assert await server.notes(key) == ["TypeError"] * 3


async def error_text(scope: Scope, receive: Receive, send: Send) -> None:
    texts = []
    for message in [{"type": "http.response.body"}, {"type": "http.response.finish"}]:
        try:
            await send(message)
        except Exception as error:
            texts.append(str(error))
    await answer(send, texts)


async def test_error_says_what_was_expected_and_what_came(server: Server, connect: Connect) -> None:
    texts = (await (await connect(server)).get("/error_text")).json()
    assert "http.response.start" in texts[0]
    assert "http.response.body" in texts[0]
    assert "http.response.finish" in texts[1]


# --- Nobody else suffers ---


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"a", more=True)
    await read(receive)
    await body(send, b"z")


BAD = [raises, returns, raises_amid_body, sends_wrong, too_short]
BAD_BASES = [exits, interrupts, cancels_itself]


async def test_other_requests_go_on_while_some_fail(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    waiting = await connection.start("POST", "/waits", upload=True)
    assert await waiting.head() == 200
    for app in BAD if UNDER_TEST == UVICORN else BAD + BAD_BASES:
        async with await Http1Connection.open(server.port) as other:
            with contextlib.suppress(ResponseCut):
                await other.post(f"/{app.__name__}", b"None")
    await waiting.send(b"", end=True)
    assert await waiting.rest() == b"az"


@pytest.mark.conforms("core.exception")
async def test_connection_serves_on_after_a_500(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for _ in range(3):
        assert (await connection.get("/raises")).status == 500
        try:
            assert (await connection.get("/plain")).body == b"plain"
        except (ResponseCut, ConnectionError):
            # HTTP/1.1 may close the connection instead.
            assert connection.protocol == "http/1.1"
            connection = await connect(server)


async def test_many_failing_requests_at_once(server: Server, connect: Connect) -> None:
    connections = [await connect(server) for _ in range(10)]

    async def one(number: int) -> None:
        app = ["raises", "plain", "returns", "plain", "raises_amid_body"][number % 5]
        try:
            response = await connections[number % 10].get(f"/{app}")
        except ResponseCut:
            assert app == "raises_amid_body"
        else:
            assert response.status == (200 if app == "plain" else 500)

    await asyncio.gather(*(one(number) for number in range(10)))


async def background(scope: Scope, receive: Receive, send: Send) -> None:
    """Fails in a task that nobody awaits, and in a callback."""

    async def fail() -> None:
        raise LookupError("nobody awaits this")

    task = asyncio.create_task(fail())
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
    del task
    await answer(send, b"answered")


async def test_failing_background_work_is_logged(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/background")).body == b"answered"
    await eventually(lambda: "ZeroDivisionError" in server.fresh_log)
    await eventually(lambda: "LookupError: nobody awaits this" in server.fresh_log)


class OddCallable:
    """Not a coroutine function, and what it returns cannot be awaited."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Iterator[int]:
        return iter([1])


odd = OddCallable()


@unlike_uvicorn("it takes it for ASGI 2")
async def test_application_that_gives_no_awaitable_is_a_500(serve: Serve, connect: Connect) -> None:
    server = serve(f"{__name__}:odd", lifespan="off")
    for _ in range(2):
        assert (await (await connect(server)).get("/")).status == 500
    await eventually(lambda: "list_iterator" in server.log)


app = routes(
    plain,
    raises,
    raises_after_reading,
    raises_a_group,
    recurses,
    cancels_itself,
    exits,
    interrupts,
    exits_generator,
    raises_base_exception,
    returns,
    returns_at_once,
    returns_a_value,
    unprintable,
    raises_what_cannot_be_shown,
    starts_and_raises,
    starts_and_returns,
    raises_amid_body,
    returns_amid_body,
    cancelled_amid_body,
    raises_amid_length,
    too_short,
    too_short_in_pieces,
    too_long,
    too_long_in_pieces,
    sends_wrong,
    recovers,
    wrong_calls,
    error_text,
    waits,
    background,
)
