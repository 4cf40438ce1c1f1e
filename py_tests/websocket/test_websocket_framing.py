"""Frames over real connections: fragments, control frames, what is answered by which close code, and sizes.

The parser's own tests, which go further, are in src/websocket.
"""

import asyncio
from dataclasses import dataclass

import pytest

from py_tests.harness.apps import Receive, Scope, Send, routes
from py_tests.harness.deadline import eventually
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Serve, Server
from py_tests.harness.ws_apps import accept, echo, listen, say
from py_tests.harness.ws_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    Frame,
    WebSocket,
    close_frame,
    complaints,
    dial,
    frame,
    framed,
)

conforms = pytest.mark.conforms
pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)


@dataclass(frozen=True)
class Row:
    """What a client sends, what comes back when the application echoes, what the client ends with, and
    the close code that it gets for that."""

    name: str
    sent: tuple[bytes, ...] = ()
    answers: tuple[object, ...] = ()
    end: tuple[bytes, ...] = (close_frame(1000),)
    code: int = 1000


def wrong(name: str, *end: bytes, code: int = 1002) -> Row:
    """Nothing but an end."""
    return Row(name, end=end, code=code)


def pong(payload: bytes) -> Frame:
    return Frame(PONG, payload)


GOOD = "Hellö 日本語 \U0001f600"
DATA = GOOD.encode()

ROWS = [
    # --- Messages ---
    Row("text", (frame(TEXT, DATA),), (GOOD,)),
    Row("binary", (frame(BINARY, DATA),), (DATA,)),
    Row("empty text", (frame(TEXT),), ("",)),
    Row("empty binary", (frame(BINARY),), (b"",)),
    Row("binary that is not UTF-8", (frame(BINARY, b"\xff\xfe"),), (b"\xff\xfe",)),
    *(
        Row(f"{size} bytes", (frame(BINARY, b"*" * size),), (b"*" * size,))
        for size in [125, 126, 127, 128, 65535, 65536, 131072]
    ),
    # --- Fragments ---
    Row("two fragments", (frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"b")), ("ab",)),
    Row("empty fragments", (frame(TEXT, fin=False), frame(CONTINUATION, fin=False), frame(CONTINUATION)), ("",)),
    Row(
        "many fragments",
        (frame(BINARY, b"0", fin=False), *[frame(CONTINUATION, b"1", fin=False)] * 500, frame(CONTINUATION, b"2")),
        (b"0" + b"1" * 500 + b"2",),
    ),
    Row(
        "characters in fragments",
        (frame(TEXT, fin=False), *(frame(CONTINUATION, bytes([one]), fin=False) for one in DATA), frame(CONTINUATION)),
        (GOOD,),
    ),
    Row(
        "ping between fragments",
        (frame(TEXT, b"a", fin=False), frame(PING, b"p"), frame(CONTINUATION, b"b")),
        (pong(b"p"), "ab"),
    ),
    Row(
        "pong between fragments",
        (frame(TEXT, b"a", fin=False), frame(PONG, b"p"), frame(CONTINUATION, b"b")),
        ("ab",),
    ),
    Row("close between fragments", end=(frame(TEXT, b"a", fin=False), close_frame(1001)), code=1001),
    # --- Pings ---
    Row("ping", (frame(PING),), (pong(b""),)),
    Row("ping with a payload", (frame(PING, b"\x00\xff\xfe"),), (pong(b"\x00\xff\xfe"),)),
    Row("longest ping", (frame(PING, b"*" * 125),), (pong(b"*" * 125),)),
    Row("ten pings", tuple(frame(PING, b"%d" % n) for n in range(10)), tuple(pong(b"%d" % n) for n in range(10))),
    Row("unasked pong", (frame(PONG, b"x"), frame(TEXT, b"a")), ("a",)),
    # --- Closing ---
    Row("close"),
    Row("close without a code", end=(close_frame(None),), code=NO_STATUS),
    Row("close with a reason", end=(close_frame(1000, "é" * 61),)),
    *(
        Row(f"close code {code}", end=(close_frame(code),), code=code)
        for code in [1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]
    ),
    *(
        wrong(f"close code {code}", close_frame(code))
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
    ),
    wrong("half a close code", frame(CLOSE, b"\x03")),
    wrong("close reason not UTF-8", frame(CLOSE, b"\x03\xe8\xff"), code=1007),
    wrong("close reason ends amid a character", frame(CLOSE, b"\x03\xe8\xc3"), code=1007),
    wrong("close too long", framed(0x88, b"\x7e\x00\x7e", b"\x03\xe8" + b"x" * 124)),
    Row("message after close", end=(close_frame(1000), frame(TEXT, b"late"))),
    Row("nonsense after close", end=(close_frame(1000), b"\xff" * 20)),
    # --- What is no frame ---
    *(wrong(f"reserved bits {rsv}", frame(TEXT, b"a", rsv=rsv)) for rsv in range(1, 8)),
    *(wrong(f"reserved bits {rsv} of a ping", frame(PING, rsv=rsv)) for rsv in [1, 2, 4]),
    *(wrong(f"opcode {opcode}", frame(opcode, b"a")) for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]),
    wrong("no mask", frame(TEXT, b"a", mask=None)),
    wrong("no mask on a ping", frame(PING, mask=None)),
    wrong("fragmented ping", frame(PING, b"a", fin=False)),
    wrong("ping too long", framed(0x89, b"\x7e\x00\x7e", b"x" * 126)),
    wrong("length in too many bytes", framed(0x82, b"\x7e\x00\x7d", b"")),
    wrong("length in far too many bytes", framed(0x82, b"\x7f" + (65535).to_bytes(8), b"")),
    wrong("length of 64 bits", framed(0x82, b"\x7f\x80" + bytes(7), b"")),
    wrong("continuation of nothing", frame(CONTINUATION, b"a")),
    wrong("unfinished continuation of nothing", frame(CONTINUATION, b"a", fin=False)),
    wrong("text amid fragments", frame(TEXT, b"a", fin=False), frame(TEXT, b"b")),
    Row("good one before", (frame(TEXT, b"a"),), ("a",), (frame(3),), 1002),
    # --- Text that is none ---
    wrong("not UTF-8", frame(TEXT, b"a\xff"), code=1007),
    wrong("surrogate", frame(TEXT, b"\xed\xa0\x80"), code=1007),
    wrong("overlong", frame(TEXT, b"\xc0\xaf"), code=1007),
    wrong("above U+10FFFF", frame(TEXT, b"\xf4\x90\x80\x80"), code=1007),
    wrong("end amid a character", frame(TEXT, b"\xe6\x97"), code=1007),
    wrong("not UTF-8 at once", frame(TEXT, b"\xce\xba\xff", fin=False), code=1007),
    wrong("broken by a fragment", frame(TEXT, b"\xe6", fin=False), frame(CONTINUATION, b"a", fin=False), code=1007),
]


@conforms("websocket.frames")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_frames(server: Server, connect: Connect, key: str, row: Row) -> None:
    socket = await dial(await connect(server), f"/echo?{key}")
    for data in row.sent:
        await socket.write(data)
    for answer in row.answers:
        assert (await socket.frame() if isinstance(answer, Frame) else await socket.receive()) == answer
    # In one piece: the server may close before the last of it has left.
    await socket.write(b"".join(row.end))
    code, _ = await socket.closed()
    assert code == row.code
    await socket.ended()
    [told] = await eventually(lambda: server.notes(key))
    assert told["code"] == code
    assert complaints(server) == []


async def test_frames_may_come_split_anywhere(server: Server, connect: Connect) -> None:
    """Every byte by itself."""
    socket = await dial(await connect(server), "/echo")
    messages: list[str | bytes] = [GOOD, b"", b"x" * 130, "last"]
    script = b"".join(
        [
            frame(TEXT, DATA[:3], fin=False),
            frame(PING, b"ping"),
            frame(CONTINUATION, DATA[3:]),
            frame(BINARY),
            frame(BINARY, b"x" * 130),
            frame(TEXT, b"last"),
        ]
    )
    for at in range(len(script)):
        await socket.write(script[at : at + 1])
        if at % 7 == 0:
            await asyncio.sleep(0.001)  # so that not all of them are joined on the way
    assert await socket.frame() == pong(b"ping")
    assert [await socket.receive() for _ in messages] == messages
    assert await socket.close() == (1000, "")


async def test_frames_may_come_split_in_two_at_any_byte(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/echo")
    script = frame(TEXT, DATA, fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"!" * 126)
    for at in range(1, len(script)):
        await socket.write(script[:at])
        await asyncio.sleep(0)
        await socket.write(script[at:])
        assert await socket.frame() == pong(b"p")
        assert await socket.receive() == GOOD + "!" * 126


MEGABYTE = 1024 * 1024


async def exchange(socket: WebSocket, data: bytes | str) -> bytes | str:
    """Sends while it receives, as the echo of so much does not fit into buffers."""
    sending = asyncio.create_task(socket.send(data))
    received: bytes | str = await socket.receive()
    await sending
    return received


async def test_message_of_the_largest_size(server: Server, connect: Connect, protocol: str) -> None:
    size = (4 if protocol == HTTP3 else 16) * MEGABYTE  # the client of HTTP/3 is slow
    socket = await dial(await connect(server), "/echo")
    data = bytes(range(256)) * (size // 256)
    assert await exchange(socket, data) == data
    text = "é" * (MEGABYTE // 2)
    assert await exchange(socket, text) == text


async def test_message_that_is_too_big_is_1009(serve: Serve, connect: Connect, key: str) -> None:
    server = serve(f"{__name__}:app", ws_max_size=1000)
    for parts in [
        [frame(BINARY, b"x" * 1001)],
        [framed(0x82, b"\x7e" + (1001).to_bytes(2), b"")],  # it says so before it comes
        [framed(0x82, b"\x7f" + (2**62).to_bytes(8), b"")],
        [frame(BINARY, b"x" * 1000, fin=False), frame(CONTINUATION, b"x", fin=False)],
        [frame(TEXT, b"x", fin=False), *[frame(CONTINUATION, b"x" * 100, fin=False)] * 10],
    ]:
        socket = await dial(await connect(server), f"/listen?{key}")
        await socket.send(b"x" * 1000)
        await socket.write(b"".join(parts))
        assert (await socket.closed())[0] == 1009
        await socket.ended()

    async def told() -> bool:
        codes = [message.get("code") for message in await server.notes(key)]
        return codes.count(1009) == 5

    await eventually(told)


async def test_largest_size_bounds_what_comes_not_what_goes(serve: Serve, connect: Connect) -> None:
    server = serve(f"{__name__}:app", ws_max_size=1000)
    socket = await dial(await connect(server), "/sends_much")
    assert await socket.receive() == b"x" * MEGABYTE


async def sends_much(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await say(send, b"x" * MEGABYTE)
    await receive()


app = routes(echo, listen, sends_much)
