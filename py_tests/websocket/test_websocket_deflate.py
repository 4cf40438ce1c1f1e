"""Compressed messages: RFC 7692."""

import random
import zlib
from typing import Any

import pytest
from websockets.asyncio.client import connect as websockets_connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from wsproto.extensions import PerMessageDeflate

from py_tests.harness.apps import Receive, Scope, Send, routes
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Serve, Server
from py_tests.harness.ws_apps import accept, echo, say
from py_tests.harness.ws_client import BINARY, CONTINUATION, TEXT, WebSocket, dial, frame

pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)

RSV1 = 4
MEGABYTE = 1024 * 1024


class Deflate:
    """A client's compressor: what it makes of a message, without the end that is not sent."""

    def __init__(self, bits: int = 15, level: int = 6) -> None:
        self.engine = zlib.compressobj(level, zlib.DEFLATED, -bits)

    def __call__(self, data: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
        compressed = self.engine.compress(data) + self.engine.flush(flush)
        return compressed.removesuffix(b"\0\0\xff\xff")


async def offering(connect: Connect, server: Server, offer: str, path: str = "/echo") -> WebSocket:
    """A WebSocket whose handshake has this offer; frames go and come as they are."""
    return await dial(await connect(server), path, [(b"sec-websocket-extensions", offer.encode())])


# --- Agreeing ---


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits=12"),
        ("permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=9"),
        ("permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover"),
        ("permessage-deflate; client_no_context_takeover", "permessage-deflate; client_no_context_takeover"),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; server_max_window_bits=9; server_max_window_bits=10", None),
        ("x-webkit-deflate-frame, permessage-bzip2", None),
        (
            "permessage-deflate; unknown, permessage-deflate; server_max_window_bits=10, permessage-deflate",
            "permessage-deflate; server_max_window_bits=10",
        ),
    ],
)
async def test_first_offer_that_is_understood_is_agreed_to(
    server: Server, connect: Connect, offer: str, answer: str | None
) -> None:
    socket = await offering(connect, server, offer)
    assert socket.agreed == (answer and answer.encode())
    await socket.write(frame(TEXT, b"as it is"))  # is legal in any case
    assert await socket.receive() == "as it is"


async def test_offers_may_come_in_several_fields(server: Server, connect: Connect) -> None:
    offers = [b"permessage-deflate; unknown", b"permessage-deflate; server_max_window_bits=11"]
    headers = [(b"sec-websocket-extensions", offer) for offer in offers]
    socket = await dial(await connect(server), "/echo", headers)
    assert socket.agreed == b"permessage-deflate; server_max_window_bits=11"


async def test_compression_can_be_switched_off(serve: Serve, connect: Connect) -> None:
    server = serve(f"{__name__}:app", ws_per_message_deflate="false")
    socket = await offering(connect, server, "permessage-deflate")
    assert socket.agreed is None
    await socket.write(frame(TEXT, Deflate()(b"x" * 100), rsv=RSV1))
    assert (await socket.closed())[0] == 1002


async def test_compressed_without_an_agreement_is_1002(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/echo")
    await socket.write(frame(TEXT, Deflate()(b"x" * 100), rsv=RSV1))
    assert (await socket.closed())[0] == 1002


# --- To and fro ---


def messages(seed: int) -> list[str | bytes]:
    """Of all sizes; some compress well, some refer to others, some don't compress."""
    choice = random.Random(seed)
    words = [choice.randbytes(choice.randrange(1, 12)).hex() for _ in range(300)]
    found: list[str | bytes] = ["", b"", "a", "x" * 200_000, choice.randbytes(70_000)]
    for _ in range(60):
        text = " ".join(choice.choices(words, k=choice.randrange(1, 400)))
        found.append(text if choice.random() < 0.5 else text.encode())
    return found


PARAMETERS: list[dict[str, Any]] = [
    {},
    {"client_no_context_takeover": True},
    {"server_no_context_takeover": True},
    {"client_no_context_takeover": True, "server_no_context_takeover": True},
    {"client_max_window_bits": 9, "server_max_window_bits": 9},
    {"client_max_window_bits": 15, "server_max_window_bits": 15},
    {"server_max_window_bits": 10, "server_no_context_takeover": True},
]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
async def test_round_trips(server: Server, connect: Connect, parameters: dict[str, Any]) -> None:
    socket = await dial(await connect(server), "/echo", deflate=PerMessageDeflate(**parameters))
    assert socket.agreed is not None
    for data in messages(seed=len(str(parameters))):
        await socket.send(data)
        assert await socket.receive() == data
    assert await socket.close() == (1000, "")


@pytest.mark.protocols(HTTP1)
@pytest.mark.parametrize(
    "parameters",
    [
        *PARAMETERS[:4],
        {"client_max_window_bits": 9, "server_max_window_bits": 9},
        {"client_max_window_bits": True, "server_max_window_bits": 15},
        {"client_max_window_bits": 12, "server_max_window_bits": 12},
    ],
    ids=str,
)
async def test_round_trips_with_websockets(server: Server, protocol: str, parameters: dict[str, Any]) -> None:
    factory = ClientPerMessageDeflateFactory(**parameters)
    url = f"ws://127.0.0.1:{server.port}/echo"
    async with websockets_connect(url, extensions=[factory], compression=None, max_size=None, proxy=None) as socket:
        assert [extension.name for extension in socket.protocol.extensions] == ["permessage-deflate"]
        for data in messages(seed=1):
            await socket.send(data)
            assert await socket.recv() == data


async def raw_frame(socket: WebSocket) -> tuple[bool, bytes]:
    """The next frame as it came, if nothing follows it: whether it is compressed, and its payload."""
    data = await socket.exchange.chunk()
    while len(data) < 4 or len(data) < sum(extent(data)):
        data += await socket.exchange.chunk()
    head, size = extent(data)
    assert len(data) == head + size
    return bool(data[0] & 0x40), data[head:]


def extent(data: bytes) -> tuple[int, int]:
    """The lengths of head and payload."""
    return (4, int.from_bytes(data[2:4])) if data[1] == 126 else (2, data[1])


async def test_what_is_sent_is_smaller(server: Server, connect: Connect) -> None:
    for offer, refers_back in [("permessage-deflate", True), ("permessage-deflate; server_no_context_takeover", False)]:
        socket = await dial(await connect(server), "/echo", [(b"sec-websocket-extensions", offer.encode())])
        text = "".join(f"line {number}\n" for number in range(150)).encode()
        lengths = []
        inflate = zlib.decompressobj(-15)
        for _ in range(2):
            await socket.write(frame(TEXT, text))
            compressed, data = await raw_frame(socket)
            assert compressed
            assert inflate.decompress(data + b"\0\0\xff\xff") == text
            lengths.append(len(data))
        assert lengths[0] < len(text) / 2
        assert (lengths[1] < lengths[0] / 2) == refers_back


# --- How the client may compress ---


@pytest.mark.parametrize("level", [0, 1, 9])
async def test_any_way_to_deflate_is_understood(server: Server, connect: Connect, level: int) -> None:
    socket = await offering(connect, server, "permessage-deflate", "/listen_short")
    deflate = Deflate(level=level)
    for number in range(5):
        text = f"message {number} " * 50
        await socket.write(frame(TEXT, deflate(text.encode()), rsv=RSV1))
        assert await socket.receive() == str(len(text))


async def listen_short(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers each message with its length, which is too short to be compressed."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await say(send, str(len(message.get("text") or message.get("bytes") or "")))


async def test_fragments_of_a_compressed_message(server: Server, connect: Connect) -> None:
    socket = await offering(connect, server, "permessage-deflate", "/listen_short")
    data = Deflate()(bytes(range(256)) * 40)
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    await socket.write(frame(BINARY, pieces[0], fin=False, rsv=RSV1))
    for piece in pieces[1:]:
        await socket.write(frame(CONTINUATION, piece, fin=False))
    await socket.write(frame(CONTINUATION))
    assert await socket.receive() == "10240"


async def test_message_of_several_deflate_streams(server: Server, connect: Connect) -> None:
    """A final block may end one, and another may follow (RFC 7692, section 7.2.3.4)."""
    socket = await offering(connect, server, "permessage-deflate", "/listen_short")
    first = Deflate()(b"x" * 1000, zlib.Z_FINISH)
    await socket.write(frame(BINARY, first + b"\0", rsv=RSV1))
    assert await socket.receive() == "1000"
    await socket.write(frame(BINARY, first + Deflate()(b"y" * 500), rsv=RSV1))
    assert await socket.receive() == "1500"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([frame(TEXT, b"\xff\xff\xff\xff", rsv=RSV1)], 1007),
        ([frame(TEXT, Deflate()(b"a" * 500)[:-3], rsv=RSV1)], 1007),
        ([frame(TEXT, Deflate()(b"a\xffb" * 99), rsv=RSV1)], 1007),
        ([frame(TEXT, b"a", fin=False), frame(CONTINUATION, Deflate()(b"x" * 99), rsv=RSV1)], 1002),
        ([frame(TEXT, Deflate()(b"x" * 99), fin=False, rsv=RSV1), frame(CONTINUATION, b"a", rsv=RSV1)], 1002),
        ([frame(9, b"ping", rsv=RSV1)], 1002),
        ([frame(8, b"\x03\xe8", rsv=RSV1)], 1002),
        ([frame(TEXT, b"x", rsv=RSV1 | 2)], 1002),
    ],
)
async def test_what_is_not_deflate_is_refused(server: Server, connect: Connect, sent: list[bytes], code: int) -> None:
    socket = await offering(connect, server, "permessage-deflate")
    await socket.write(b"".join(sent))
    assert (await socket.closed())[0] == code
    await socket.ended()


async def test_bomb_is_1009_and_costs_no_memory(serve: Serve, connect: Connect) -> None:
    """A frame that would inflate to 512 MiB."""
    server = serve(f"{__name__}:app", ws_max_size=MEGABYTE)
    deflate = Deflate(level=9)
    bomb = b"".join(deflate.engine.compress(bytes(MEGABYTE)) for _ in range(512)) + deflate.engine.flush()
    socket = await offering(connect, server, "permessage-deflate", "/listen_short")
    await socket.write(frame(BINARY, Deflate()(bytes(MEGABYTE)), rsv=RSV1))
    assert await socket.receive() == str(MEGABYTE)
    before = server.memory()
    for _ in range(3):
        socket = await offering(connect, server, "permessage-deflate", "/listen_short")
        await socket.write(frame(BINARY, bomb, rsv=RSV1)[: 24 * 1024])  # which would be 24 MiB
        assert (await socket.closed())[0] == 1009
    assert server.memory() - before < 8 * MEGABYTE


async def test_many_idle_compressed_websockets_cost_little(serve: Serve, connect: Connect, protocol: str) -> None:
    server = serve(f"{__name__}:app")
    number = 200

    async def opened() -> list[WebSocket]:
        connection = await connect(server)
        sockets: list[WebSocket] = []
        for _ in range(number):
            if protocol == HTTP1 or len(sockets) % 50 == 0:
                connection = await connect(server)
            socket = await dial(connection, "/echo", deflate=PerMessageDeflate())
            await socket.send("hello " * 50)
            assert await socket.receive() == "hello " * 50
            sockets.append(socket)
        return sockets

    first = await opened()
    before = server.memory()
    second = await opened()
    # A deflate engine of its own for each would be 300 KiB; so many make 60 MiB.
    assert server.memory() - before < number * 100_000
    for socket in first + second:
        await socket.send("still " * 50)
        assert await socket.receive() == "still " * 50


app = routes(echo, listen_short)
