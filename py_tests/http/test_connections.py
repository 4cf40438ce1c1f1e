"""Connections: requests one after the other, at once and in a row on each of them."""

import asyncio

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, notes_of, read, routes, start
from py_tests.harness.http1 import Http1Connection, Http1Exchange
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Serve, Server, unlike_uvicorn


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


async def seen(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, [scope["path"], scope["http_version"], scope["client"]])


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, await read(receive))


async def streamed(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    for number in range(100):
        await body(send, b"%d," % number, more=True)
    await body(send)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    for _ in range(160):
        await body(send, b"0123456789abcdef" * 4096, more=True)
    await body(send)


async def with_length(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"12345", headers=[(b"content-length", b"5")])


async def no_content(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, status=204)


async def test_one_connection_serves_many_requests(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for number in range(50):
        data = b"%d" % number * number
        assert (await connection.post("/echo", data)).body == data
    *_, client = (await connection.get("/seen")).json()
    assert client == ["127.0.0.1", connection.local_port]


async def called(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    note(scope, [scope["path"], task is not None and task in asyncio.all_tasks(), id(task)])
    await asyncio.sleep(0)
    await answer(send, id(asyncio.current_task()))


@pytest.mark.conforms("core.call")
async def test_each_request_is_one_call_in_a_task_of_its_own(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    if connection.protocol == HTTP1:
        tasks = [(await connection.get(f"/called/{number}?{key}")).json() for number in range(5)]
    else:
        answers = await asyncio.gather(*(connection.get(f"/called/{number}?{key}") for number in range(5)))
        tasks = [response.json() for response in answers]
    assert await server.notes(key) == [[f"/called/{number}", True, task] for number, task in enumerate(tasks)]


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
        paths = [b"/plain", b"/streamed", b"/with_length", b"/no_content", b"/seen", b"/plain"]
        await connection.write(
            b"".join(b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % path for path in paths)
            + b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nlast"
        )
        answers = [await Http1Exchange(connection).response() for _ in range(7)]
    assert answers[0].body == b"plain"
    assert answers[1].body.endswith(b"98,99,")
    assert answers[2].body == b"12345"
    assert answers[3].status == 204
    assert answers[4].json()[0] == "/seen"
    assert answers[5].body == b"plain"
    assert answers[6].body == b"last"


@pytest.mark.protocols(HTTP2, HTTP3)
async def test_streams_of_one_connection_run_at_once(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    requests = [connection.get(f"/meet/{number}?{key}") for number in range(10)]
    answers = await asyncio.gather(*requests)
    assert [response.body for response in answers] == [b"/meet/%d" % n for n in range(10)]


@pytest.mark.protocols(HTTP2, HTTP3)
async def test_100_streams_of_one_connection_do_not_mix(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    bodies = [b"%d;" % number * 5_000 for number in range(100)]
    answers = await asyncio.gather(*(connection.post("/echo", data) for data in bodies))
    assert [response.body for response in answers] == bodies


@pytest.mark.protocols(HTTP2)
async def test_large_responses_of_one_connection_come_at_once(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    answers = await asyncio.gather(*(connection.get("/large") for _ in range(4)))
    assert [response.body for response in answers] == [b"0123456789abcdef" * (4096 * 160)] * 4


@unlike_uvicorn("uvicorn has no HTTP/2")
async def test_both_protocols_share_the_port(server: Server) -> None:
    async with (
        await Http1Connection.open(server.port) as one,
        await Http2Connection.open(server.port) as two,
    ):
        first, second = await asyncio.gather(one.get("/seen"), two.get("/seen"))
    assert (first.json()[1], second.json()[1]) == ("1.1", "2")


async def test_500_connections_are_served_at_once(serve: Serve, connect: Connect) -> None:
    """The first is idle until the last is there."""
    server = serve(f"{__name__}:app", timeout_keep_alive=60)
    connections = [await connect(server) for _ in range(500)]
    answers = await asyncio.gather(*(connection.get("/plain") for connection in connections))
    assert [answer.body for answer in answers] == [b"plain"] * 500


app = routes(plain, seen, echo, streamed, large, with_length, no_content, called, meet)
