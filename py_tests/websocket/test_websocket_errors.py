"""Applications that break the rules of WebSocket: what the client gets, and what the log says of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from py_tests.harness.apps import Message, Receive, Scope, Send, lifespan
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Server, unlike_uvicorn
from py_tests.harness.ws_apps import CONNECT, accept, hear, say
from py_tests.harness.ws_client import CLOSE, TEXT, Refused, dial

pytestmark = [
    pytest.mark.protocols(HTTP1, HTTP2, HTTP3),
    pytest.mark.conforms("websocket.order", "denial.order", "core.wrong_message"),
    unlike_uvicorn("it lets some of this pass, and closes with other codes"),
]

ERROR = "exception in ASGI application"
SHORT = "returned without"


@dataclass(frozen=True)
class Case:
    """An application, what the client gets of it, and what the log says: without words, nothing of an error.

    The client gets "500" or another status with the body, "cut", or its messages and the close code:
    "text, 1011".
    """

    app: Callable[..., Any]
    expected: str
    log: str = ""


CASES: dict[str, Case] = {}


def case(expected: str, log: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters a function into the table, under its name."""

    def enter(app: Callable[..., Any]) -> Callable[..., Any]:
        CASES[app.__name__.replace("_", " ")] = Case(app, expected, log)
        return app

    return enter


def sends(expected: str, log: str, *messages: Any) -> Case:
    """An application that sends these, and receives nothing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return Case(app, expected, log)


def refused(*messages: Any) -> Case:
    """`send` raises before the handshake has been answered."""
    return sends("500", ERROR, *messages)


def closed(*messages: Any) -> Case:
    """`send` raises when the WebSocket is open."""
    return sends("1011", ERROR, ACCEPT, *messages)


ACCEPT: Message = {"type": "websocket.accept"}
SEND: Message = {"type": "websocket.send", "text": "text"}
BYTES: Message = {"type": "websocket.send", "bytes": b"bytes"}
END: Message = {"type": "websocket.close"}
START: Message = {"type": "websocket.http.response.start", "status": 401, "headers": []}
PIECE: Message = {"type": "websocket.http.response.body", "body": b"piece", "more_body": True}
LAST: Message = {"type": "websocket.http.response.body", "body": b"last"}
HTTP: Message = {"type": "http.response.start", "status": 200, "headers": []}

# --- Order ---

CASES |= {
    "order: nothing": sends("500", SHORT),
    "order: send first": refused(SEND),
    "order: accept twice": closed(ACCEPT),
    "order: accept after messages": sends("text, 1011", ERROR, ACCEPT, SEND, ACCEPT),
    "order: close after refusal": sends("403", "", END, END),
    "order: accept after refusal": sends("403", "", END, ACCEPT),
    "order: denial after refusal": sends("403", "", END, START, LAST),
    "order: send after close": sends("text, 1000", "", ACCEPT, SEND, END, SEND),
    "order: close twice": sends("1000", "", ACCEPT, END, END),
    "order: denial when open": closed(START),
    "order: denial's body when open": closed(LAST),
    "order: body first": refused(LAST),
    "order: accept after start": refused(START, ACCEPT),
    "order: close after start": refused(START, END),
    "order: send after start": refused(START, SEND),
    "order: start twice": refused(START, START),
    "order: start alone": sends("500", SHORT, START),
    "order: start amid the body": sends("cut", ERROR, START, PIECE, START),
    "order: accept amid the body": sends("cut", ERROR, START, PIECE, ACCEPT),
    "order: no last piece": sends("cut", SHORT, START, PIECE),
    "order: start after the end": sends("401 last", "", START, LAST, START),
    "order: body after the end": sends("401 last", "", START, LAST, LAST),
    "order: accept after the end": sends("401 last", "", START, LAST, ACCEPT),
    "order: whole denial": sends("401 piecelast", "", START, PIECE, LAST),
    "order: http": refused(HTTP),
    "order: http when open": closed(HTTP),
}

# --- Types ---

CASES |= {
    "type: none": refused(None),
    "type: text": refused("websocket.accept"),
    "type: no key": refused({}),
    "type: number": refused({"type": 1}),
    "type: unknown": refused({"type": "websocket.finish"}),
    "type: unknown when open": closed({"type": "websocket.finish"}),
    "type: receive": closed({"type": "websocket.receive", "text": "a"}),
    "accept: subprotocol is bytes": refused({**ACCEPT, "subprotocol": b"chat"}),
    "accept: subprotocol not offered": refused({**ACCEPT, "subprotocol": "other"}),
    "accept: headers are text": refused({**ACCEPT, "headers": [("a", "b")]}),
    "accept: headers are no pairs": refused({**ACCEPT, "headers": [b"ab"]}),
    "accept: headers is a number": refused({**ACCEPT, "headers": 1}),
    "accept: header with a line end": refused({**ACCEPT, "headers": [(b"a", b"b\r\nc: d")]}),
    "accept: header of the server": refused({**ACCEPT, "headers": [(b"sec-websocket-accept", b"x")]}),
    "send: neither": closed({"type": "websocket.send"}),
    "send: both": closed({**SEND, **BYTES}),
    "send: both none": closed({"type": "websocket.send", "text": None, "bytes": None}),
    "send: text is bytes": closed({"type": "websocket.send", "text": b"bytes"}),
    "send: bytes is text": closed({"type": "websocket.send", "bytes": "text"}),
    "send: number": closed({"type": "websocket.send", "text": 1}),
    "send: lone surrogate": closed({"type": "websocket.send", "text": "\ud800"}),
    "close: code is text": closed({**END, "code": "1000"}),
    "close: code not for the wire": closed({**END, "code": 1005}),
    "close: code too small": closed({**END, "code": 999}),
    "close: code too large": closed({**END, "code": 65536}),
    "close: code negative": closed({**END, "code": -1}),
    "close: reason is bytes": closed({**END, "reason": b"bye"}),
    "close: reason too long": closed({**END, "reason": "é" * 62}),
    "denial: no status": refused({"type": "websocket.http.response.start"}),
    "denial: status is text": refused({**START, "status": "401"}),
    "denial: interim status": refused({**START, "status": 101}),
    "denial: header with a line end": refused({**START, "headers": [(b"a", b"b\r\nc: d")]}),
    "denial: body is text": refused(START, {**LAST, "body": "text"}),
}

# --- Raising and catching ---


@case("1000")
async def goes_on_after_an_error(scope: Scope, receive: Receive, send: Send) -> None:
    """What raised has changed nothing."""
    for wrong in [SEND, LAST, {**ACCEPT, "subprotocol": "other"}, {"type": "x"}]:
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            await send(wrong)
    await accept(receive, send)
    for wrong in [ACCEPT, START, LAST, {"type": "websocket.send"}, {**END, "code": 1}]:
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            await send(wrong)
    await send(END)


@case("500", ERROR)
async def raises_after_connect(scope: Scope, receive: Receive, send: Send) -> None:
    assert await receive() == CONNECT
    raise ValueError


@case("text, 1011", ERROR)
async def raises_after_a_message(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await say(send, "text")
    raise ValueError


@case("1000", ERROR)
async def raises_after_closing(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await send(END)
    raise ValueError


@case("403", ERROR)
async def raises_after_refusing(scope: Scope, receive: Receive, send: Send) -> None:
    await send(END)
    raise ValueError


@case("cut", ERROR)
async def raises_amid_a_denial(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(PIECE)
    raise ValueError


@case("1011", ERROR)
async def raises_a_group(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    async with asyncio.TaskGroup() as group:
        group.create_task(hear(receive))
        group.create_task(send({"type": "wrong"}))


@case("1011", ERROR)
async def cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await receive()


@case("500", ERROR)
async def cancels_itself_amid_the_handshake(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await receive()
    await asyncio.sleep(0)


@case("1011", ERROR)
async def raises_an_os_error_of_its_own(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    raise ConnectionError("of a database")


@case("1000")
async def does_not_await_send(scope: Scope, receive: Receive, send: Send) -> None:
    """As on other servers, nothing may come of it; but the server goes on."""
    await accept(receive, send)
    unawaited = send(END)
    await asyncio.sleep(0)
    if hasattr(unawaited, "close"):
        unawaited.close()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["path"] == "/fine":
        await accept(receive, send)
        await say(send, "fine")
    else:
        await CASES[scope["query_string"].decode().replace("_", " ")].app(scope, receive, send)


async def told(connect: Connect, server: Server, query: str) -> str:
    """What the client gets, in the words of the table."""
    got = []
    try:
        socket = await dial(await connect(server), f"/?{query}", subprotocols="chat")
        while (frame := await socket.frame()).opcode != CLOSE:
            assert frame.opcode == TEXT, frame
            got.append(frame.payload)
        got.append(str(frame.payload[0]))
    except Refused as refused:
        body = refused.response.body.decode()
        own = refused.response.status in (403, 500)
        got.append(str(refused.response.status) if own else f"{refused.response.status} {body}")
    except ResponseCut:
        got.append("cut")
    return ", ".join(got)


@pytest.mark.parametrize("name", CASES)
async def test_application(server: Server, connect: Connect, name: str) -> None:
    case = CASES[name]
    assert await told(connect, server, name.replace(" ", "_")) == case.expected
    if case.log:
        await eventually(lambda: case.log in server.fresh_log)
        assert server.fresh_log.count("[error]") == 1
    socket = await dial(await connect(server), "/fine")
    assert await socket.receive() == "fine"
    if not case.log:
        assert "[error]" not in server.fresh_log
