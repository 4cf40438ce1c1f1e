"""What is asked of a server, and what it must answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PROTOCOLS = {
    "h1": "HTTP/1.1",
    "h2": "HTTP/2",
    "h1s": "HTTP/1.1 with TLS",
    "h2s": "HTTP/2 with TLS",
    "h3": "HTTP/3",
    "h1u": "HTTP/1.1, Unix socket",
    "h2u": "HTTP/2, Unix socket",
    "ws": "WebSocket",
}

# A server speaks these on a port of their own.
SECURE = ("h1s", "h2s", "h3")

# On a Unix domain socket.
LOCAL = ("h1u", "h2u")

# One request at a time on a connection.
FIRST = ("h1", "h1s", "h1u")

HTTP = ("h1", "h2", *SECURE, *LOCAL)

Transport = Literal["tcp", "tls", "uds"]


def transport(protocol: str) -> Transport:
    """What carries it."""
    return "tls" if protocol in SECURE else "uds" if protocol in LOCAL else "tcp"


TEN_KB = b"x" * 10_000
MEGABYTE = b"x" * 2**20
# Of zeros, which take no memory before they are read.
LARGE = bytes(100 * 2**20)

# The application of WebSockets.
SOCKETS = "sockets:app"

# Messages of a WebSocket. What is compressed has to be like what is sent in earnest, hence no letter twice in a row.
SHORT = (
    b'{"room": "harbour", "from": "ada", "time": 1735689600, '
    b'"text": "the boat leaves at noon, bring warm clothes and some bread!"}'
)
LONG = b"".join(b'{"buoy": %d, "x": %d, "y": %d}\n' % (n, n * 7919 % 1000, n * 104729 % 1000) for n in range(3000))
LONG = LONG[: 2**16]


@dataclass(frozen=True)
class Case:
    """One request, repeated. Applications are `MODULE:ATTR` in the folder `apps`."""

    name: str
    title: str
    app: str
    path: str
    answer: bytes
    body: bytes | None = None
    # Whether Envoy can give the same answer from its routes alone.
    direct: bool = False
    protocols: tuple[str, ...] = ("h1", "h2", *LOCAL)
    # Of a WebSocket: what kind of message, and whether it is compressed both ways.
    text: bool = False
    deflate: bool = False
    # Further fields of the request, of HTTP only: `name: value`.
    headers: tuple[str, ...] = ()
    # Instead of those of the command line, with one request at a time on each.
    connections: int | None = None
    # Instead of as many as are answered in a time.
    requests: int | None = None
    # Requests before each measurement, so that allocators, caches and adaptive code have settled.
    prime: int = 1000


def echo(name: str, title: str, message: bytes, text: bool, deflate: bool = False) -> Case:
    """A message to a WebSocket, which comes back."""
    return Case(name, title, SOCKETS, "/", message, message, protocols=("ws",), text=text, deflate=deflate)


HELLO = Case("hello", "GET 13 bytes", "plain:app", "/hello", b"Hello, world!", direct=True, protocols=HTTP)

FEW = {"connections": 4, "requests": 8, "prime": 4}

CASES = {
    case.name: case
    for case in (
        HELLO,
        Case("10k", "GET 10 kB", "plain:app", "/10k", TEN_KB, direct=True, protocols=HTTP),
        Case("1m", "GET 1 MiB", "plain:app", "/1m", MEGABYTE, direct=True, protocols=HTTP, prime=50),
        Case("100m", "GET 100 MiB", "plain:app", "/100m", LARGE, **FEW),
        Case("echo", "POST echo 10 kB", "plain:app", "/echo", TEN_KB, body=TEN_KB, protocols=HTTP),
        Case("upload", "POST 1 MiB", "plain:app", "/upload", b"1048576", body=MEGABYTE, protocols=HTTP, prime=50),
        Case("upload-100m", "POST 100 MiB", "plain:app", "/upload", b"104857600", body=LARGE, **FEW),
        Case("stream", "GET 100 chunks of 100 bytes", "plain:app", "/stream", TEN_KB),
        Case(
            "json",
            "GET FastAPI JSON",
            "api:app",
            "/items/7?name=lamp",
            b'{"id":7,"name":"lamp","tags":["blue","large"],"price":12.5}',
            direct=True,
        ),
        Case("sleep", "GET 13 bytes after 10 ms", "plain:app", "/sleep", b"Hello, world!", prime=100),
        *(
            replace(
                HELLO,
                name=f"hello-{connections}",
                title=f"{HELLO.title}, {name}",
                protocols=("h1", "h2"),
                connections=connections,
            )
            for connections, name in ((1, "1 connection"), (8, "8 connections"), (1000, "1,000 connections"))
        ),
        echo("text", "text of 125 bytes", SHORT, text=True),
        echo("binary", "binary of 64 KiB", LONG, text=False),
        echo("text-deflate", "text of 125 bytes, compressed", SHORT, text=True, deflate=True),
        echo("binary-deflate", "binary of 64 KiB, compressed", LONG, text=False, deflate=True),
    )
}
