"""Messages to and fro once a WebSocket is open, its end from either side, and what asyncio's tools do to it."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, file_exists, gate, note, routes
from py_tests.harness.deadline import eventually
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Serve, Server, unlike_uvicorn
from py_tests.harness.ws_apps import CONNECT, accept, close, disconnect, echo, hear, listen, say
from py_tests.harness.ws_client import (
    CLOSE,
    NO_STATUS,
    VANISHED,
    answered,
    begin,
    close_frame,
    complaints,
    dial,
    fields,
)

conforms = pytest.mark.conforms
pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)


# --- Messages ---


@conforms("websocket.receive")
async def test_message_is_received_as_bytes_or_text(server: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(server), f"/listen?{key}")
    sent: list[str | bytes] = ["text", b"bytes", "", b"", "été\0日\U0001f600"]
    for data in sent:
        await socket.send(data)
    await socket.close()
    # The closing handshake does not wait for the application.
    noted = await server.noted(key, disconnect(1000))
    received = [{one: value for one, value in message.items() if value is not None} for message in noted]
    assert received[:-1] == [
        {"type": "websocket.receive", "text": "text"},
        {"type": "websocket.receive", "bytes": {"bytes": "bytes"}},
        {"type": "websocket.receive", "text": ""},
        {"type": "websocket.receive", "bytes": {"bytes": ""}},
        {"type": "websocket.receive", "text": "été\0日\U0001f600"},
    ]


@conforms("websocket.send")
async def test_message_is_sent_as_bytes_or_text(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/echo")
    sent: list[str | bytes] = ["text", b"bytes", "", b"", "été\0日\U0001f600", b"\xff\0" * 100]
    for data in sent:
        await socket.send(data)
        received = await socket.receive()
        assert (received, type(received)) == (data, type(data))


async def sends_with_none(scope: Scope, receive: Receive, send: Send) -> None:
    """As frameworks do: the other key is there, and None."""
    await accept(receive, send, subprotocol=None, headers=[])
    await send({"type": "websocket.send", "text": "text", "bytes": None})
    await send({"type": "websocket.send", "bytes": b"bytes", "text": None, "x-unknown": 1})
    await send({"type": "websocket.close", "code": 1000, "reason": None})


@conforms("websocket.send", "core.extra_keys")
async def test_other_key_may_be_none(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/sends_with_none")
    assert [await socket.receive(), await socket.receive()] == ["text", b"bytes"]
    assert await socket.closed() == (1000, "")


async def sends_numbers(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    for number in range(5000):
        await say(send, str(number))
    await close(send)


async def test_messages_keep_their_order(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/sends_numbers")
    assert [await socket.receive() for _ in range(5000)] == [str(number) for number in range(5000)]
    assert await socket.closed() == (1000, "")


# --- The client closes ---


@conforms("websocket.disconnect")
@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1001, "going away"), (3000, ""), (4999, "été" * 24), (None, "")],
)
async def test_clients_close_is_told_and_answered(
    server: Server, connect: Connect, key: str, code: int | None, reason: str
) -> None:
    socket = await dial(await connect(server), f"/echo?{key}")
    await socket.send("hello")
    assert await socket.receive() == "hello"
    answer, _ = await socket.close(code, reason)
    assert answer == (code or NO_STATUS)
    told = disconnect(code or NO_STATUS, reason)
    assert await server.noted(key, told) == [told]
    assert complaints(server) == []


async def test_stream_ends_with_the_closing_handshake(server: Server, connect: Connect) -> None:
    """Clients wait for that: RFC 6455, section 7.1.1."""
    socket = await dial(await connect(server), "/echo")
    async with asyncio.timeout(5):  # half of what a client gets that does not close
        assert await socket.close() == (1000, "")


async def receives_late(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    note(scope, "open")
    await file_exists(gate(scope))
    while (message := await receive())["type"] == "websocket.receive":
        note(scope, message.get("text"))
    note(scope, message)
    note(scope, await receive())
    note(scope, "end")


@conforms("websocket.disconnect.last")
async def test_messages_before_the_close_come_first(server: Server, connect: Connect, key: str, tmp_path: Path) -> None:
    path = tmp_path / "gate"
    socket = await dial(await connect(server), f"/receives_late?{key}", [(b"x-gate", str(path).encode())])
    for number in range(10):
        await socket.send(str(number))
    await socket.close(1000, "bye")  # which does not wait for the application
    path.touch()
    noted = await server.noted(key, "end")
    # Who asks again is told again.
    assert noted == ["open", *map(str, range(10)), disconnect(1000, "bye"), disconnect(1000, "bye"), "end"]


async def sends_until_it_raises(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    note(scope, "open")
    try:
        while True:
            await say(send, "x" * 1000)
            await asyncio.sleep(0)
    except Exception as error:
        note(scope, {"OSError": isinstance(error, OSError)})
        note(scope, await receive())
        raise


@conforms("websocket.closed", "core.closed")
@unlike_uvicorn("it raises an exception of its own class, and logs it")
async def test_send_after_the_clients_close_raises_an_os_error(server: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(server), f"/sends_until_it_raises?{key}")
    await socket.receive()
    await socket.write(close_frame(1001))
    while (await socket.frame()).opcode != CLOSE:
        pass
    noted = await server.noted(key, disconnect(1001))
    assert noted == ["open", {"OSError": True}, disconnect(1001)]
    assert complaints(server) == []  # though the application let the error out


# --- The client goes without a word ---


@conforms("websocket.disconnect.gone")
@pytest.mark.parametrize("way", ["leave", "half_close", "close", "abort"])
async def test_client_that_goes_is_1006(server: Server, connect: Connect, key: str, way: str) -> None:
    socket = await dial(await connect(server), f"/echo?{key}")
    await socket.send("hello")
    assert await socket.receive() == "hello"
    await getattr(socket if way in ("leave", "half_close") else socket.connection, way)()
    assert await server.noted(key, disconnect(VANISHED)) == [disconnect(VANISHED)]
    assert complaints(server) == []


@conforms("websocket.disconnect.gone", "websocket.disconnect.last")
async def test_messages_before_a_half_close_are_received(server: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(server), f"/listen?{key}")
    for number in range(100):
        await socket.send(str(number))
    await socket.half_close()
    noted = await server.noted(key, disconnect(VANISHED))
    assert [message.get("text") for message in noted[:-1]] == [str(number) for number in range(100)]


@pytest.mark.protocols(HTTP2, HTTP3)
async def test_handshake_that_ends_the_clients_side_is_a_half_close(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("CONNECT", f"/listen?{key}", headers=fields(connection))
    socket = await answered(connection, exchange)
    assert await server.noted(key, disconnect(VANISHED)) == [disconnect(VANISHED)]
    await socket.ended()


@conforms("websocket.closed")
@unlike_uvicorn("it raises an exception of its own class, and logs it")
@pytest.mark.parametrize("way", ["leave", "half_close", "close", "abort"])
async def test_send_to_a_client_that_has_gone_raises_an_os_error(
    server: Server, connect: Connect, key: str, way: str
) -> None:
    socket = await dial(await connect(server), f"/sends_until_it_raises?{key}")
    await socket.receive()
    await getattr(socket if way in ("leave", "half_close") else socket.connection, way)()
    noted = await server.noted(key, disconnect(VANISHED))
    assert noted == ["open", {"OSError": True}, disconnect(VANISHED)]
    assert complaints(server) == []


async def waits_to_accept(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, await receive())
    note(scope, await receive())
    try:
        await send({"type": "websocket.accept"})
    except OSError:
        note(scope, "OSError")
        raise


@conforms("websocket.disconnect.gone")
@unlike_uvicorn("it raises an exception of its own class")
async def test_client_that_goes_amid_the_handshake(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    exchange = await begin(connection, f"/waits_to_accept?{key}")
    await server.noted(key, CONNECT)
    await exchange.leave()
    assert await server.noted(key, "OSError") == [CONNECT, disconnect(VANISHED), "OSError"]
    assert complaints(server) == []


# --- The application closes ---


async def closes(scope: Scope, receive: Receive, send: Send) -> None:
    """By the code and reason in the message; then it receives."""
    await accept(receive, send)
    code, _, reason = str(await hear(receive)).partition(" ")
    given: dict[str, Any] = {"code": int(code)} if code else {}
    if reason:
        given["reason"] = reason
    await send({"type": "websocket.close", **given})
    note(scope, await receive())
    try:
        await say(send, "more")
    except OSError:
        note(scope, "OSError")
        raise


@conforms("websocket.close", "websocket.closed")
@unlike_uvicorn("its send raises another error, and is logged")
@pytest.mark.parametrize(
    ("given", "code", "reason"),
    [
        ("", 1000, ""),
        ("1001", 1001, ""),
        ("1011 I am sorry", 1011, "I am sorry"),
        ("3000", 3000, ""),
        ("4999 " + "é" * 61, 4999, "é" * 61),
    ],
)
async def test_application_closes(
    server: Server, connect: Connect, key: str, given: str, code: int, reason: str
) -> None:
    socket = await dial(await connect(server), f"/closes?{key}")
    await socket.send(given)
    assert await socket.closed() == (code, reason)
    await socket.write(close_frame(code))
    await socket.ended()
    assert await server.noted(key, "OSError") == [disconnect(code, reason), "OSError"]
    assert complaints(server) == []


async def test_what_comes_after_our_close_frame_is_dropped(server: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(server), f"/closes?{key}")
    await socket.send("1000")
    assert await socket.closed() == (1000, "")
    await socket.send("late")
    await socket.write(close_frame(1000))
    await socket.ended()
    assert "late" not in str(await server.noted(key, disconnect(1000)))


async def test_both_close_at_once(server: Server, connect: Connect) -> None:
    """Whoever was first, the client gets one close frame and then the end."""
    socket = await dial(await connect(server), "/closes")
    await socket.send("1001")
    await socket.write(close_frame(4000))
    assert (await socket.closed())[0] in (1001, 4000)
    await socket.ended()
    assert complaints(server) == []


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await say(send, "last")


@conforms("websocket.return")
async def test_application_that_returns_closes(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/returns")
    assert await socket.receive() == "last"
    assert await socket.closed() == (1000, "")
    assert complaints(server) == []


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await hear(receive)
    raise ValueError("I have had enough")


@conforms("websocket.raise", "core.exception")
async def test_application_that_raises_closes_with_1011(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    socket, other = await dial(connection, "/raises"), await dial(await connect(server), "/echo")
    await socket.send("hello")
    assert await socket.closed() == (1011, "")
    await eventually(lambda: "ValueError: I have had enough" in server.fresh_log)
    assert server.fresh_log.count("Traceback") == 1
    await other.send("and I?")
    assert await other.receive() == "and I?"


# --- Many at once ---


async def test_many_websockets_at_once(server: Server, connect: Connect, protocol: str) -> None:
    """On HTTP/2 and 3 they share one connection, and requests with them."""
    connections = [await connect(server) for _ in range(50 if protocol == HTTP1 else 1)]
    sockets = [await dial(connections[number % len(connections)], "/echo") for number in range(50)]
    for round_ in range(5):
        for number, socket in enumerate(sockets):
            await socket.send(f"{number} in round {round_}")
        for number, socket in enumerate(sockets):
            assert await socket.receive() == f"{number} in round {round_}"
    assert (await (connections[0] if protocol != HTTP1 else await connect(server)).get("/notes")).status == 200
    for socket in sockets[::2]:
        await socket.close()
    for number, socket in enumerate(sockets):
        if number % 2:
            await socket.send("still here")
            assert await socket.receive() == "still here"


async def talks_both_ways(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends while it waits to receive, from several tasks."""
    await accept(receive, send)

    async def count(name: str) -> None:
        for number in range(200):
            await say(send, f"{name}{number}")
            await asyncio.sleep(0)

    async def answers() -> None:
        while (message := await receive())["type"] == "websocket.receive":
            await say(send, "heard " + message["text"])

    listening = asyncio.create_task(answers())
    await asyncio.gather(*(count(name) for name in "abc"))
    await say(send, "done")
    await listening


async def test_send_while_receive_waits(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/talks_both_ways")
    await socket.send("hello")
    received: list[str] = []
    while not {"done", "heard hello"} <= set(received):
        received.append(await socket.receive())
    for name in "abc":
        assert [one for one in received if one[0] == name and one[1:].isdigit()] == [f"{name}{n}" for n in range(200)]
    assert await socket.close() == (1000, "")


async def cancels_receive(scope: Scope, receive: Receive, send: Send) -> None:
    """Never waits long, and answers each message with how often it lost patience before."""
    await accept(receive, send)
    tries = 0
    while True:
        try:
            async with asyncio.timeout(0.001):
                message = await receive()
        except TimeoutError:
            tries += 1
            continue
        if message["type"] != "websocket.receive":
            break
        await say(send, f"{message['text']} {tries}")
        tries = 0


async def test_cancelled_receive_loses_no_message(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/cancels_receive")
    tries = 0
    for number in range(300):
        await socket.send(str(number))
        if number % 3 == 0:
            await asyncio.sleep(0.002)
        text, _, tried = (await socket.receive()).partition(" ")
        assert text == str(number)
        tries += int(tried)
    assert tries > 0


async def two_receive(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    pair = await asyncio.gather(receive(), receive())
    await say(send, " ".join(sorted(message["text"] for message in pair)))
    note(scope, [message["type"] for message in await asyncio.gather(receive(), receive())])


async def test_two_tasks_that_receive_get_a_message_each(server: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(server), f"/two_receive?{key}")
    await socket.send("a")
    await socket.send("b")
    assert await socket.receive() == "a b"
    await socket.close()
    await server.noted(key, ["websocket.disconnect", "websocket.disconnect"])


async def outlived(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns, and leaves a task that still uses the WebSocket."""
    await accept(receive, send)
    tasks.add(asyncio.create_task(uses(scope, receive, send)))
    await asyncio.sleep(0)


async def uses(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, (await receive())["type"])
    with contextlib.suppress(OSError):
        await say(send, "too late")
        note(scope, "sent")
    note(scope, "end")


tasks: set[asyncio.Task[None]] = set()


async def test_task_that_outlives_the_application_is_told_of_the_end(
    server: Server, connect: Connect, key: str
) -> None:
    socket = await dial(await connect(server), f"/outlived?{key}")
    assert await socket.closed() == (1000, "")
    assert await server.noted(key, "end") == ["websocket.disconnect", "end"]


class TwoCallables:
    """The form of ASGI 2."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        if self.scope["type"] == "websocket":
            await echo(self.scope, receive, send)


@conforms("core.asgi2")
async def test_application_of_two_callables(serve: Serve, connect: Connect) -> None:
    socket = await dial(await connect(serve(TwoCallables)), "/")
    await socket.send("two")
    assert await socket.receive() == "two"


app = routes(
    cancels_receive,
    closes,
    echo,
    listen,
    outlived,
    raises,
    receives_late,
    returns,
    sends_numbers,
    sends_until_it_raises,
    sends_with_none,
    talks_both_ways,
    two_receive,
    waits_to_accept,
)
