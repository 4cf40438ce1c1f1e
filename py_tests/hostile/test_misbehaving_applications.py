"""Applications that break the rules in every way: what the client gets, what the log says, and that
the connection, the other requests and the server go on."""

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from py_tests.harness.apps import Message, Receive, Scope, Send, answer, body, lifespan, read, start
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Connection, ResponseCut
from py_tests.harness.folders import TESTS
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Server, unlike_uvicorn

pytestmark = unlike_uvicorn("it lets much of this pass, and ends at some")

ERROR = "exception in ASGI application"
SHORT = "returned without"


@dataclass(frozen=True)
class Case:
    """An application, what the client gets of it, and what the log says: without words, nothing of an
    error.

    The client gets "500", "200 body", "cut", or "200 body, cut": all that HTTP/1.1 can tell of is there,
    but the application has not ended it.
    """

    app: Callable[..., Any]
    expected: str
    log: str = ""
    method: str = "GET"


CASES: dict[str, Case] = {}


def case(expected: str, log: str = "", method: str = "GET") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters a function into the table, under its name."""

    def enter(app: Callable[..., Any]) -> Callable[..., Any]:
        CASES[app.__name__.replace("_", " ")] = Case(app, expected, log, method)
        return app

    return enter


def sends(expected: str, log: str, *messages: Any, method: str = "GET") -> Case:
    """An application that sends these, and receives nothing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return Case(app, expected, log, method)


def wrong(*messages: Any, method: str = "GET") -> Case:
    """`send` raises before anything has left."""
    return sends("500", ERROR, *messages, method=method)


def cut(*messages: Any) -> Case:
    """`send` raises when the response has begun."""
    return sends("cut", ERROR, *messages)


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PIECE: Message = {"type": "http.response.body", "body": b"piece", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"last"}
EMPTY: Message = {"type": "http.response.body"}
TRAILERS: Message = {"type": "http.response.trailers", "headers": []}
HINT: Message = {"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]}
FILE = TESTS / "harness" / "deadline.py"
PATH: Message = {"type": "http.response.pathsend", "path": str(FILE)}
ZERO: Message = {"type": "http.response.zerocopysend"}


def status(value: Any) -> Message:
    return {**START, "status": value}


def headers(*fields: Any) -> Message:
    return {**START, "headers": list(fields)}


def length(value: bytes) -> Message:
    return headers((b"content-length", value))


# --- Order ---

CASES |= {
    "order: nothing": sends("500", SHORT),
    "order: body first": wrong(LAST),
    "order: trailers first": wrong(TRAILERS),
    "order: file first": wrong(PATH),
    "order: start only": sends("500", SHORT, START),
    "order: start twice": wrong(START, START),
    "order: start twice, then body": wrong(START, START, LAST),
    "order: start amid the body": cut(START, PIECE, START),
    "order: start after the end": sends("200 last", "", START, LAST, START),
    "order: body after the end": sends("200 last", "", START, LAST, LAST, PIECE),
    "order: whole response twice": sends("200 last", "", START, LAST, START, LAST),
    "order: no last piece": sends("cut", SHORT, START, PIECE),
    "order: unasked trailers": wrong(START, TRAILERS),
    "order: unasked trailers amid the body": cut(START, PIECE, TRAILERS),
    "order: unasked trailers after the end": sends("200 last", "", START, LAST, TRAILERS),
    "order: trailers before the end": cut({**START, "trailers": True}, PIECE, TRAILERS),
    "order: no trailers": sends("cut", SHORT, {**START, "trailers": True}, LAST),
    "order: body for trailers": cut({**START, "trailers": True}, LAST, LAST),
    "order: start for trailers": cut({**START, "trailers": True}, LAST, START),
    "order: trailers after trailers": sends("200 last", "", {**START, "trailers": True}, LAST, TRAILERS, TRAILERS),
    "order: hint after the end": sends("200 last", "", START, LAST, HINT),
    "order: hint amid the body": sends("200 piecelast", "", START, PIECE, HINT, LAST),
    "order: file after body": cut(START, PIECE, PATH),
    "order: body after file": sends(f"200 {FILE.read_text()}", "", START, PATH, LAST),
}

# --- Types ---

CASES |= {
    "type: none": wrong(None),
    "type: text": wrong("http.response.start"),
    "type: pairs": wrong(list(START.items())),
    "type: no key": wrong({}),
    "type: number": wrong({**START, "type": 1}),
    "type: bytes": wrong({**START, "type": b"http.response.start"}),
    "type: lone surrogate": wrong({**START, "type": "\udcff"}),
    "type: unknown": wrong({"type": "http.response.finish"}),
    "type: unknown amid the body": cut(START, PIECE, {"type": "http.response.finish"}),
    "type: unknown after the end": sends("200 last", ERROR, START, LAST, {"type": "http.response.finish"}),
    "type: push": wrong(START, {"type": "http.response.push", "path": "/", "headers": []}),
    "type: debug": wrong({"type": "http.response.debug", "info": {}}),
    "type: websocket": wrong({"type": "websocket.accept"}),
    "type: lifespan": wrong({"type": "lifespan.startup.complete"}),
    "type: request": wrong({"type": "http.request", "body": b"", "more_body": False}),
    "type: disconnect": wrong({"type": "http.disconnect"}),
}

# --- Heads ---

CASES |= {
    "status: none": wrong({"type": "http.response.start"}, LAST),
    **{f"status: {value!r}": wrong(status(value), LAST) for value in (None, "200", b"200", 200.5, True, [200])},
    **{f"status: {value}": wrong(status(value), LAST) for value in (0, -1, 99, 100, 101, 103, 199, 1000, 2**70)},
    "status: 600": sends("600 last", "", status(600), LAST),
    "status: 999": sends("999 last", "", status(999), LAST),
    "headers: none": wrong({**START, "headers": None}, LAST),
    "headers: number": wrong({**START, "headers": 1}, LAST),
    "headers: text": wrong({**START, "headers": "a: b"}, LAST),
    "headers: dict": wrong({**START, "headers": {"a": "b"}}, LAST),
    "headers: triple": wrong(headers((b"a", b"b", b"c")), LAST),
    "headers: single": wrong(headers((b"a",)), LAST),
    "headers: name text": wrong(headers(("a", b"b")), LAST),
    "headers: value text": wrong(headers((b"a", "b")), LAST),
    "headers: value number": wrong(headers((b"a", 1)), LAST),
    "headers: value none": wrong(headers((b"a", None)), LAST),
    **{
        f"headers: name {name!r}": wrong(headers((name, b"")), LAST)
        for name in (b"", b" ", b"a b", b"a:", b":status", b":path", b"a\r\nb", b"a\n", b"a\0", b"\xe4", b"a(b)")
    },
    **{
        f"headers: value {value!r}": wrong(headers((b"a", value)), LAST)
        for value in (b"\r\n", b"1\r\nset-cookie: a=1", b"1\r\n\r\nHTTP/1.1 200 OK", b"1\n2", b"1\r2", b"\0")
    },
    "headers: upper case": sends("200 last", "", headers((b"X-Upper", b"1")), LAST),
    "headers: hop by hop": sends(
        "200 last",
        "",
        headers(
            (b"connection", b"keep-alive, upgrade"),
            (b"keep-alive", b"timeout=9"),
            (b"proxy-connection", b"close"),
            (b"te", b"trailers"),
            (b"transfer-encoding", b"gzip"),
            (b"upgrade", b"h2c"),
        ),
        LAST,
    ),
    "headers: chunked": sends("200 last", "", headers((b"transfer-encoding", b"chunked")), LAST),
    "headers: chunked by hand": sends(
        "200 4\r\nlast\r\n0\r\n\r\n",
        "",
        headers((b"transfer-encoding", b"chunked")),
        {**LAST, "body": b"4\r\nlast\r\n0\r\n\r\n"},
    ),
    "headers: value of 50 kB": sends("200 last", "", headers((b"a", b"1" * 50_000)), LAST),
    "headers: 500 of them": sends("200 last", "", headers(*[(b"a", b"1")] * 500), LAST),
}

# --- Bodies ---

CASES |= {
    "body: none": wrong(START, {**LAST, "body": None}),
    "body: text": wrong(START, {**LAST, "body": "last"}),
    "body: number": wrong(START, {**LAST, "body": 4}),
    "body: list": wrong(START, {**LAST, "body": [b"last"]}),
    "body: text amid the body": cut(START, PIECE, {**LAST, "body": "last"}),
    "body: more_body text": wrong(START, {**LAST, "more_body": "no"}),
    "body: more_body none": wrong(START, {**LAST, "more_body": None}),
    "length: short": sends("500", ERROR, length(b"5"), LAST),
    "length: short in pieces": cut(length(b"10"), PIECE, LAST),
    "length: nothing": sends("500", ERROR, length(b"5"), EMPTY),
    "length: long": wrong(length(b"3"), LAST),
    "length: long in pieces": cut(length(b"8"), PIECE, LAST),
    "length: long by another response": sends(
        "200 piece, cut", ERROR, length(b"5"), PIECE, {**LAST, "body": b"HTTP/1.1 200 OK\r\n\r\n"}
    ),
    "length: 0 and a body": wrong(length(b"0"), LAST),
    "length: twice the same": sends(
        "200 last", "", headers((b"content-length", b"4"), (b"Content-Length", b"4")), LAST
    ),
    "length: twice": wrong(headers((b"content-length", b"4"), (b"content-length", b"5")), LAST),
    **{
        f"length: {value!r}": wrong(length(value), LAST)
        for value in (b"", b"-4", b"+4", b"4.0", b"0x4", b"4, 4", b"four", b"\xb2", b"99999999999999999999", b"4 4")
    },
    "length: on HEAD": sends("200 ", "", length(b"1000"), LAST, method="HEAD"),
    "length: on 204": sends("204 ", "", {**length(b"4"), "status": 204}, LAST),
    "length: on 304": sends("304 ", "", {**length(b"1000"), "status": 304}, LAST),
    "body: on HEAD": sends("200 ", "", START, PIECE, LAST, method="HEAD"),
    "body: on 204": sends("204 ", "", status(204), PIECE, LAST),
    "body: on 205": sends("205 ", "", status(205), EMPTY),
    "body: on 304": sends("304 ", "", status(304), PIECE, LAST),
    "body: on HEAD, no last piece": sends("200 , cut", SHORT, START, PIECE, method="HEAD"),
}

# --- Extensions ---

CASES |= {
    "trailers: flag text": wrong({**START, "trailers": "yes"}, LAST),
    "trailers: pseudo-header": cut({**START, "trailers": True}, LAST, {**TRAILERS, "headers": [(b":status", b"200")]}),
    "trailers: line end": cut({**START, "trailers": True}, LAST, {**TRAILERS, "headers": [(b"a", b"1\r\nb: 2")]}),
    "trailers: content-length": cut(
        {**START, "trailers": True}, LAST, {**TRAILERS, "headers": [(b"content-length", b"4")]}
    ),
    "trailers: text": cut({**START, "trailers": True}, LAST, {**TRAILERS, "headers": [("a", "b")]}),
    "hint: no links": wrong({"type": "http.response.early_hint"}, START, LAST),
    "hint: text": wrong({**HINT, "links": ["</a>"]}, START, LAST),
    "hint: line end": wrong({**HINT, "links": [b"</a>\r\nb: 1"]}, START, LAST),
    "path: none": wrong(START, {"type": "http.response.pathsend"}),
    "path: bytes": wrong(START, {**PATH, "path": os.fsencode(FILE)}),
    "path: relative": wrong(START, {**PATH, "path": "py_tests/conftest.py"}),
    "path: missing": wrong(START, {**PATH, "path": "/nonexistent"}),
    "path: folder": wrong(START, {**PATH, "path": "/tmp"}),
    "path: nul": wrong(START, {**PATH, "path": "/tmp/\0"}),
    "path: twice": sends(f"200 {FILE.read_text()}", "", START, PATH, PATH),
    "file: none": wrong(START, ZERO),
    "file: text": wrong(START, {**ZERO, "file": str(FILE)}),
    "file: closed": wrong(START, {**ZERO, "file": 10**6}),
    "file: negative": wrong(START, {**ZERO, "file": -1}),
}


@case("200 ")
async def file_beyond_its_end(scope: Scope, receive: Receive, send: Send) -> None:
    with FILE.open("rb") as file:
        await start(send)
        await send({**ZERO, "file": file.fileno(), "offset": 10**9, "count": 5})


@case("500", ERROR)
async def file_shorter_than_its_length(scope: Scope, receive: Receive, send: Send) -> None:
    with FILE.open("rb") as file:
        await start(send, headers=[(b"content-length", b"10")])
        await send({**ZERO, "file": file.fileno(), "count": 5})


@case("500", ERROR)
async def file_with_negative_offset(scope: Scope, receive: Receive, send: Send) -> None:
    with FILE.open("rb") as file:
        await start(send)
        await send({**ZERO, "file": file.fileno(), "offset": -1})


@case("500", ERROR)
async def file_that_is_a_pipe_without_writer(scope: Scope, receive: Receive, send: Send) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    try:
        await start(send, headers=[(b"content-length", b"5")])
        await send({**ZERO, "file": reading, "count": 5})
    finally:
        os.close(reading)


# --- Exceptions at every point ---


class Unusual(BaseException):
    pass


class Sulky(Exception):
    def __str__(self) -> str:
        raise LookupError("no comment")


def raise_deep() -> None:
    raise_deep()


async def raise_in_a_group() -> None:
    async def fail() -> None:
        raise LookupError("on purpose")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        group.create_task(fail())


EXCEPTIONS: dict[str, BaseException | Callable[[], Any]] = {
    "LookupError": LookupError("on purpose"),
    "OSError": BrokenPipeError("on purpose"),
    "TimeoutError": TimeoutError("on purpose"),
    "MemoryError": MemoryError("on purpose"),
    "StopIteration": StopIteration("on purpose"),
    "StopAsyncIteration": StopAsyncIteration("on purpose"),
    "CancelledError": asyncio.CancelledError("on purpose"),
    "SystemExit": SystemExit("on purpose"),
    "KeyboardInterrupt": KeyboardInterrupt("on purpose"),
    "GeneratorExit": GeneratorExit("on purpose"),
    "BaseException": Unusual("on purpose"),
    "group": raise_in_a_group,
    "base group": BaseExceptionGroup("on purpose", [Unusual(), SystemExit(1)]),
    "recursion": raise_deep,
    "unprintable": Sulky(),
    "surrogate": LookupError("\udcff"),
}

POINTS: dict[str, tuple[list[Message], str]] = {
    "before the start": ([], "500"),
    "after the start": ([START], "500"),
    "amid the body": ([START, PIECE], "cut"),
    "amid the trailers": ([{**START, "trailers": True}, PIECE, LAST], "cut"),
    "after the end": ([START, LAST], "200 last"),
}


def raising(what: BaseException | Callable[[], Any], messages: Iterable[Message]) -> Callable[..., Any]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if isinstance(what, BaseException):
            raise what
        if asyncio.iscoroutine(raised := what()):
            await raised

    return app


for (point, (messages, expected)), (name, what) in itertools.product(POINTS.items(), EXCEPTIONS.items()):
    if point == "amid the trailers" and name not in ("LookupError", "CancelledError", "SystemExit"):
        continue  # as amid the body
    CASES[f"{name} {point}"] = Case(raising(what, messages), expected, ERROR)


@case("500", ERROR)
async def raises_after_reading(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    raise LookupError("on purpose")


@case("500", ERROR)
def raises_before_there_is_a_coroutine(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("on purpose")


@case("500", ERROR)
def exits_before_there_is_a_coroutine(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit(3)


@case("200 answered", "LookupError: on purpose")
async def raises_in_a_task(scope: Scope, receive: Receive, send: Send) -> None:
    async def fail() -> None:
        raise LookupError("on purpose")

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    await answer(send, b"answered")


@case("200 answered", "ZeroDivisionError")
async def raises_in_a_callback(scope: Scope, receive: Receive, send: Send) -> None:
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    await answer(send, b"answered")


@case("500", ERROR)
async def cancels_its_own_task(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


@case("200 answered")
async def survives_its_own_cancellation(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    task.uncancel()
    await answer(send, b"answered")


# --- What is no coroutine ---


@case("500", ERROR)
def returns_none(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@case("500", ERROR)
def returns_a_number(scope: Scope, receive: Receive, send: Send) -> int:
    return 42


@case("500", ERROR)
def returns_a_function(scope: Scope, receive: Receive, send: Send) -> Any:
    return answer


@case("500", ERROR)
def returns_a_generator(scope: Scope, receive: Receive, send: Send) -> Any:
    return (piece for piece in [1])


@case("500", ERROR)
async def returns_an_asynchronous_generator(scope: Scope, receive: Receive, send: Send) -> Any:
    await start(send)
    yield b"piece"


@case("200 answered")
def returns_a_task(scope: Scope, receive: Receive, send: Send) -> Any:
    return asyncio.ensure_future(answer(send, b"answered"))


@case("500", ERROR)
def returns_a_used_coroutine(scope: Scope, receive: Receive, send: Send) -> Any:
    used = asyncio.sleep(0)
    used.close()
    return used


@case("500", ERROR)
async def awaits_what_asyncio_does_not_know(scope: Scope, receive: Receive, send: Send) -> None:
    class Odd:
        def __await__(self) -> Any:
            yield 42

    await Odd()


@case("200 answered")
async def returns_a_value(scope: Scope, receive: Receive, send: Send) -> Any:
    await answer(send, b"answered")
    return {"status": 500}


# --- Odd ways with receive, send and scope ---


@case("200 answered")
async def receives_without_end(scope: Scope, receive: Receive, send: Send) -> None:
    """After the end each `receive` gives a disconnect."""
    await answer(send, b"answered")
    types = {(await receive())["type"] for _ in range(100)}
    assert types == {"http.request", "http.disconnect"} or types == {"http.disconnect"}, types


@case("200 2")
async def receives_twice_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    both = asyncio.gather(receive(), receive())
    await asyncio.sleep(0)
    await start(send)
    await body(send, b"2")
    assert {message["type"] for message in await both} == {"http.request", "http.disconnect"}


@case("200 answered")
async def gives_up_receiving(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    for _ in range(10):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(receive(), 0.001)
    await answer(send, b"answered")


@case("200 0123456789")
async def sends_from_many_tasks(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await asyncio.gather(*(body(send, str(number).encode(), more=True) for number in range(10)))
    await body(send)


@case("500", SHORT)
async def sends_from_a_task_after_its_return(scope: Scope, receive: Receive, send: Send) -> None:
    async def late() -> None:
        await asyncio.sleep(0.01)
        with pytest.raises(OSError):  # noqa: PT011
            await answer(send, b"late")

    _kept.append(asyncio.create_task(late()))


_kept: list[asyncio.Task[None]] = []


@case("200 done")
async def sends_without_awaiting(scope: Scope, receive: Receive, send: Any) -> None:
    send(START)
    send({**LAST, "body": b"done"})


@case("200 done")
async def sends_from_a_thread(scope: Scope, receive: Receive, send: Send) -> None:
    loop = asyncio.get_running_loop()

    def work() -> None:
        for message in (START, {**LAST, "body": b"done"}):
            asyncio.run_coroutine_threadsafe(send(message), loop).result()

    await asyncio.to_thread(work)


@case("200 done")
async def sends_by_hand_in_a_thread(scope: Scope, receive: Receive, send: Any) -> None:
    """Wrong, since nothing of asyncio is for threads; it must do no harm."""
    thread = threading.Thread(target=lambda: (send(START), send({**LAST, "body": b"done"})))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)


@case("200 answered")
async def blocks_the_loop(scope: Scope, receive: Receive, send: Send) -> None:
    time.sleep(0.1)
    await answer(send, b"answered")


@case("200 answered")
async def spoils_the_scope(scope: Scope, receive: Receive, send: Send) -> None:
    scope["headers"].clear()
    scope["state"] = None
    scope["type"] = scope["path"] = 42
    scope.clear()
    scope[1] = scope  # type: ignore[index]
    await answer(send, b"answered")


@case("200 answered")
async def spoils_the_messages(scope: Scope, receive: Receive, send: Send) -> None:
    (await receive()).clear()
    message = dict(START)
    await send(message)
    message.clear()
    await send({**LAST, "body": b"answered"})


@case("200 answered")
async def spoils_the_body_after_sending(scope: Scope, receive: Receive, send: Send) -> None:
    data = bytearray(b"answered")
    await start(send)
    await body(send, data, more=True)  # type: ignore[arg-type]
    data[:] = b"spoiled!"
    await body(send)


@case("500", ERROR)
async def gives_headers_that_raise(scope: Scope, receive: Receive, send: Send) -> None:
    def fields() -> Iterable[tuple[bytes, bytes]]:
        yield b"a", b"1"
        raise LookupError("on purpose")

    await start(send, headers=fields)  # type: ignore[arg-type]
    await send({**START, "headers": fields()})


@case("200 last")
async def gives_headers_that_send(scope: Scope, receive: Receive, send: Any) -> None:
    """Sends while `send` reads its message."""

    def fields() -> Iterable[tuple[bytes, bytes]]:
        send(START)
        yield b"a", b"1"

    with contextlib.suppress(RuntimeError):
        await send({**START, "headers": fields()})
    await send(LAST)


@case("200 answered")
async def throws_into_its_receive(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    waiting: Any = receive().__await__()
    next(waiting)
    with contextlib.suppress(LookupError):
        waiting.throw(LookupError("on purpose"))
    waiting.close()
    await answer(send, b"answered")


@case("200 answered")
async def leaves_a_thread_behind(scope: Scope, receive: Receive, send: Send) -> None:
    threading.Thread(target=time.sleep, args=(0.05,)).start()
    await answer(send, b"answered")


@case("200 answered")
async def stays_after_its_response(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"answered")
    await asyncio.sleep(0.1)


# --- The tests ---


def app(scope: Scope, receive: Receive, send: Send) -> Any:
    """Calls the case that the path names, and gives what that gives."""
    if scope["type"] == "lifespan":
        return lifespan(scope, receive, send)
    name = scope["path"][1:]
    if name == "tasks":
        return answer(send, len(asyncio.all_tasks()))
    return CASES[name].app(scope, receive, send)


async def tasks(server: Server) -> int:
    number: int = (await server.get("/tasks")).json()
    return number


async def outcome(connection: Connection, name: str) -> str:
    try:
        response = await connection.request(CASES[name].method, "/" + quote(name), headers=[(b"te", b"trailers")])
    except ResponseCut:
        return "cut"
    return "500" if response.status == 500 else f"{response.status} {response.body.decode()}"


@pytest.mark.protocols("http/1.1", "http/2", "http/3")
@pytest.mark.parametrize("name", CASES)
async def test_application(server: Server, connect: Connect, name: str) -> None:
    before = await tasks(server)
    connection = await connect(server)
    expected = CASES[name].expected
    cut = expected.endswith("cut")
    if expected.endswith(", cut"):
        expected = expected.removesuffix(", cut") if connection.protocol == "http/1.1" else "cut"
    assert await outcome(connection, name) == expected
    if words := CASES[name].log:
        await eventually(lambda: words in server.fresh_log)
    else:
        assert "[error]" not in server.fresh_log
        assert "Traceback" not in server.fresh_log
    if cut and connection.protocol == "http/1.1":
        await connection.ended()
    else:
        # The connection has neither more nor less than this response.
        assert await outcome(connection, "returns a value") == "200 answered"
        assert not isinstance(connection, Http1Connection) or connection.buffer == b""

    async def no_more_tasks() -> bool:
        return await tasks(server) <= before

    await eventually(no_more_tasks)
