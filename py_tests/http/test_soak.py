"""Ten rounds of 10,000 requests over 64 connections, half of whose clients leave at a random point:
nothing but that may show in the log, in the loop's tasks or in memory."""

import asyncio
import contextlib
import gc
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from py_tests.harness.apps import Receive, Scope, Send, answer, body, lifespan, start
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection, Http2Exchange
from py_tests.harness.serving import AIOVOY, UNDER_TEST, Server, serve

CONNECTIONS = 64
# The client of HTTP/2 takes most of the time of its rounds, so they are shorter.
REQUESTS = {"http/1.1": 10_000, "http/2": 3_000}
ROUNDS = 10

# The allocators' pools, caches and arenas reach their size in the first rounds.
WARM_UP = 3

# What the rounds after the warm-up may add. They make 70,000 requests (HTTP/2: 21,000), each of
# which has a task, a scope and objects of the bridge: one leaked object a request, of 200 bytes,
# adds 14 MB (4 MB) and more. What is left is the noise of the allocators, less than 1 MB.
GROWTH = 3 * 1024 * 1024

LAST = b"the last piece"


# --- The application ---


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """By path: a whole response, a streamed one, an echo, or the number of tasks."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["path"] == "/whole":
        await answer(send, b"Hello, World!")
    elif scope["path"] == "/streamed":
        await start(send)
        for _ in range(10):
            await body(send, b"x" * 200, more=True)
            await asyncio.sleep(0)
        await body(send, LAST)
    elif scope["path"] == "/echo":
        await start(send, headers=[(b"content-length", b"2000")])
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message["more_body"]
            await body(send, message["body"], more)
    elif scope["path"] == "/tasks":
        gc.collect()
        names = [task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}]
        await answer(send, names)


# --- The clients ---

Client = Callable[[int, random.Random, list[int]], Coroutine[Any, Any, None]]

ECHO = b"y" * 2000
REQUEST = {
    "/whole": b"GET /whole HTTP/1.1\r\nhost: a\r\n\r\n",
    "/streamed": b"GET /streamed HTTP/1.1\r\nhost: a\r\n\r\n",
    "/echo": b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n" + ECHO,
}
# Each response ends with these bytes, and has them nowhere else.
END = {"/whole": b"Hello, World!", "/streamed": LAST, "/echo": ECHO}
CHUNKED = b"\r\n0\r\n\r\n"


async def http1_client(port: int, choice: random.Random, requests: list[int]) -> None:
    """Bare sockets and no parser, to leave the processor to the server."""
    while requests:
        with socket.socket() as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            while requests:
                requests.pop()
                path = choice.choice(list(REQUEST))
                if choice.random() < 0.5:
                    await http1_leaver(sock, REQUEST[path], choice)
                    break
                await http1_exchange(sock, path)


async def http1_exchange(sock: socket.socket, path: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, REQUEST[path])
    received = b""
    while not received.endswith(CHUNKED if b"transfer-encoding" in received else END[path]):
        data = await loop.sock_recv(sock, 65536)
        assert data, f"the connection ended after {received!r}"
        received += data
    assert received.startswith(b"HTTP/1.1 200 OK\r\n"), received
    assert received.count(b"HTTP/1.1") == 1, received


async def http1_leaver(sock: socket.socket, request: bytes, choice: random.Random) -> None:
    """Leaves amid the request, at once after it, after a few turns, or amid the response."""
    loop = asyncio.get_running_loop()
    point = choice.randrange(4)
    if point == 0:
        await loop.sock_sendall(sock, request[: choice.randrange(len(request))])
        return
    await loop.sock_sendall(sock, request)
    if point == 2:
        for _ in range(choice.randrange(10)):
            await asyncio.sleep(0)
    elif point == 3:
        await loop.sock_recv(sock, choice.randrange(1, 400))


async def http2_client(port: int, choice: random.Random, requests: list[int]) -> None:
    """Most of those that leave reset their stream, some close the connection."""
    while requests:
        async with await Http2Connection.open(port) as connection:
            # Envoy ends connections on which many streams are reset.
            while requests and not connection.going_away.is_set():
                requests.pop()
                path = choice.choice(list(REQUEST))
                if choice.random() < 0.5:
                    exchange = await http2_leaver(connection, path, choice)
                    if choice.random() < 0.1:
                        break
                    await exchange.leave()
                else:
                    await http2_exchange(connection, path)


async def http2_exchange(connection: Http2Connection, path: str) -> None:
    request = ECHO if path == "/echo" else b""
    try:
        response = await connection.request("POST" if request else "GET", path, body=request)
    except (ResponseCut, ConnectionError):
        assert connection.going_away.is_set()
    else:
        assert response.status == 200
        assert response.body == ECHO or not request


async def http2_leaver(connection: Http2Connection, path: str, choice: random.Random) -> Http2Exchange:
    """Is about to leave before, amid or after the response."""
    upload = path == "/echo"
    exchange = await connection.start("POST" if upload else "GET", path, upload=upload)
    for _ in range(choice.randrange(6)):
        await asyncio.sleep(0)
    if upload:
        with contextlib.suppress(ConnectionError):
            await exchange.send(ECHO[:1000])
    return exchange


CLIENTS: dict[str, Client] = {"http/1.1": http1_client, "http/2": http2_client}


async def soak(server: Server, protocol: str, seed: int) -> None:
    """One round."""
    requests = list(range(REQUESTS[protocol]))
    choice = random.Random(seed)  # the same points in every run
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(CLIENTS[protocol](server.port, random.Random(choice.random()), requests))


async def tasks_of(server: Server) -> list[str]:
    async with await Http1Connection.open(server.port) as connection:
        names: list[str] = (await connection.get("/tasks")).json()
        return names


async def test_clients_that_leave_leave_nothing_behind(protocol: str) -> None:
    with serve(app) as server:
        log_before, tasks_before = server.log, len(await tasks_of(server))
        memory = []
        for number in range(ROUNDS):
            await soak(server, protocol, seed=number)

            async def idle() -> bool:
                return len(await tasks_of(server)) <= tasks_before

            await eventually(idle)
            memory.append(server.memory())
        assert server.process.poll() is None
        if UNDER_TEST == AIOVOY:  # the reference logs clients that leave as errors
            assert server.log == log_before
        growth = max(memory[WARM_UP:]) - memory[WARM_UP - 1]
        assert growth < GROWTH, [bytes_ // 1024 for bytes_ in memory]
