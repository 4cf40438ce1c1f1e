"""Request bodies: how an application receives them, and when a client sends them."""

import asyncio
import contextlib
import hashlib
import http.client
import random
from pathlib import Path

import httpx
import pytest

from py_tests.harness.apps import (
    Message,
    Receive,
    Scope,
    Send,
    answer,
    body,
    file_exists,
    gate,
    note,
    read,
    routes,
    shown,
    start,
)
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.http1 import Http1Connection, Http1Exchange
from py_tests.harness.protocols import HTTP1, HTTP2, Connect, every_protocol
from py_tests.harness.serving import Server, unlike_uvicorn

MEGABYTE = 1024 * 1024

conforms = pytest.mark.conforms


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


@conforms("http.request.message", "core.messages")
@every_protocol
async def test_request_without_a_body_is_one_empty_message(server: Server, connect: Connect) -> None:
    seen = (await (await connect(server)).get("/messages")).json()
    assert seen["last"] == {"type": "http.request", "body": {"bytes": ""}, "more_body": False}
    assert seen["types"] == ["body: bytes", "more_body: bool", "type: str"]


@conforms("http.request.message")
@every_protocol
async def test_small_body_arrives(server: Server, connect: Connect) -> None:
    sent = b"a few bytes \x00\xff\r\n"
    assert (await (await connect(server)).post("/echo", sent)).body == sent


@every_protocol
async def test_empty_body_with_content_length_zero(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    answered = await connection.post("/messages", b"", [(b"content-length", b"0")])
    assert answered.json()["size"] == 0


@conforms("http.request.pieces")
async def test_body_in_pieces_arrives_in_order(server: Server, connect: Connect) -> None:
    # On HTTP/1.1 it is chunked, and the chunks' framing must not be seen.
    exchange = await (await connect(server)).start("POST", "/echo", upload=True)
    for number in range(100):
        await exchange.send(b"piece %d;" % number)
    await exchange.send(b"", end=True)
    expected = b"".join(b"piece %d;" % number for number in range(100))
    assert (await exchange.response()).body == expected


@conforms("http.request.message")
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


@conforms("http.response.duplex")
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


@pytest.mark.conforms("http.request.chunked", on=["http/1.1"])
async def test_chunked_body_is_decoded(server: Server) -> None:
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(
            b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            b"3;extension=1\r\nabc\r\n0000A\r\n0123456789\r\n0\r\nx-trailer: 1\r\n\r\n"
        )
        assert (await Http1Exchange(connection).response()).body == b"abc0123456789"
        assert (await connection.post("/echo", b"next")).body == b"next"


@conforms("http.request.trailers")
async def test_trailers_of_a_request_end_its_body(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    exchange = await connection.start("POST", "/messages", upload=True)
    await exchange.send(b"abc")
    await exchange.send_trailers([(b"x-trailer", b"1"), (b"x-trailer", b"2")])
    seen = (await exchange.response()).json()
    assert (seen["size"], seen["last"]["more_body"]) == (3, False)
    assert (await connection.post("/echo", b"next")).body == b"next"


@conforms("http.request.trailers")
@pytest.mark.parametrize(
    "field", [(b"host", b"forged"), (b"content-length", b"99"), (b"transfer-encoding", b"chunked")]
)
async def test_trailers_that_mean_framing_mean_nothing(
    server: Server, connect: Connect, field: tuple[bytes, bytes]
) -> None:
    exchange = await (await connect(server)).start("POST", "/messages", upload=True)
    await exchange.send(b"abc")
    await exchange.send_trailers([field])
    # Refusing them is the other right answer.
    with contextlib.suppress(ResponseCut):
        response = await exchange.response()
        assert response.status == 400 or response.json()["size"] == 3
    assert (await server.get("/unread")).body == b"not interested"


# Around the sizes at which windows, buffers and frames end.
EDGES = [near + off for near in (16 * 1024, 64 * 1024, 256 * 1024, MEGABYTE) for off in (-1, 0, 1)]


@conforms("http.request.pieces")
async def test_no_size_of_body_is_special(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for size in EDGES:
        data = (b"%07d," % size) * (size // 8 + 1)
        assert (await connection.post("/echo", data[:size])).body == data[:size], size


@conforms("http.response.duplex")
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


EXPECT = [(b"content-length", b"5"), (b"expect", b"100-continue")]


async def receives_late(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "called")
    await file_exists(gate(scope))
    note(scope, "receiving")
    await answer(send, await read(receive))


@conforms("http.request.continue")
@unlike_uvicorn("it has no HTTP/2")
async def test_100_continue_comes_when_the_application_receives(
    server: Server, connect: Connect, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "gate"
    exchange = await (await connect(server)).start(
        "POST", f"/receives_late?{key}", headers=[*EXPECT, (b"x-gate", bytes(path))], upload=True
    )
    await server.noted(key, "called")
    # One that Envoy sent by itself would be here before the application was called.
    assert exchange.silent()
    path.touch()
    status, _ = await exchange.any_head()
    assert status == 100
    await exchange.send(b"hello", end=True)
    response = await exchange.response()
    assert (response.body, response.interim) == (b"hello", [])


@conforms("http.request.no_continue")
@every_protocol
async def test_100_continue_does_not_come_if_the_application_answers_first(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("POST", "/unread", headers=EXPECT, upload=True)
    response = await exchange.response()
    assert (response.status, response.body, response.interim) == (200, b"not interested", [])


async def receives_amid_the_response(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"first ", more=True)
    await body(send, await read(receive))


@conforms("http.request.no_continue")
async def test_100_continue_does_not_come_after_the_head(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("POST", "/receives_amid_the_response", headers=EXPECT, upload=True)
    assert await exchange.head() == 200
    assert await exchange.chunk() == b"first "
    await exchange.send(b"hello", end=True)
    assert await exchange.rest() == b"hello"
    assert exchange.interim == []


@pytest.mark.conforms("http.request.no_continue")
@pytest.mark.protocols("http/1.0")
async def test_100_continue_does_not_come_on_http_1_0(server: Server, connect: Connect) -> None:
    response = await (await connect(server)).post("/echo", b"hello", EXPECT[1:])
    assert (response.status, response.body, response.interim) == (200, b"hello", [])


async def raises_unread(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("before receiving")


@conforms("http.request.no_continue")
async def test_100_continue_does_not_come_before_an_error(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("POST", "/raises_unread", headers=EXPECT, upload=True)
    response = await exchange.response()
    assert (response.status, response.interim) == (500, [])


async def unread(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"not interested")


@conforms("http.response.duplex")
async def test_response_may_come_before_the_body_is_read(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.post("/unread", b"x" * MEGABYTE)).body == b"not interested"


async def unread_and_empty(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 401)
    await body(send)


@pytest.mark.parametrize("path", ["/unread", "/unread_and_empty", "/raises_unread"])
@pytest.mark.protocols(HTTP1, HTTP2)
async def test_early_answer_waits_for_the_client_to_send_all(server: Server, protocol: str, path: str) -> None:
    """Many clients read nothing before that, and nothing of a connection or stream that is reset meanwhile."""
    data = b"x" * 10 * MEGABYTE

    def over_http_1() -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", path, body=data)
            return connection.getresponse().read()

    def over_http_2() -> bytes:
        with httpx.Client(http1=False, http2=True, trust_env=False, timeout=20) as client:
            return client.post(f"http://127.0.0.1:{server.port}{path}", content=data).content

    upload = over_http_1 if protocol == HTTP1 else over_http_2
    expected = {
        "/unread": b"not interested",
        "/unread_and_empty": b"",
        "/raises_unread": b"Internal Server Error",
    }
    for _ in range(5):
        assert await asyncio.to_thread(upload) == expected[path]


@pytest.mark.protocols(HTTP1)
@unlike_uvicorn("it waits for ever")
async def test_early_answer_does_not_wait_for_a_client_that_pauses(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    exchange = await connection.start("POST", "/unread", upload=True)
    await exchange.send(b"x")
    assert (await exchange.response()).body == b"not interested"
    await connection.ended()


async def test_unread_body_is_not_taken_for_the_next_request(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    smuggled = b"GET /scope HTTP/1.1\r\nhost: a\r\n\r\n"
    assert (await connection.post("/unread", smuggled)).body == b"not interested"
    # Closing the connection is the other right answer.
    with contextlib.suppress(ResponseCut, ConnectionError):
        assert (await connection.post("/echo", b"second")).body == b"second"


app = routes(
    echo,
    messages,
    digest,
    each_piece,
    receives_late,
    receives_amid_the_response,
    raises_unread,
    unread,
    unread_and_empty,
)
