"""What is asked of a server, and what it must answer."""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOLS = {"h1": "HTTP/1.1", "h2": "HTTP/2"}

TEN_KB = b"x" * 10_000


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


CASES = {
    case.name: case
    for case in (
        Case("hello", "GET 13 bytes", "plain:app", "/hello", b"Hello, world!", direct=True),
        Case("10k", "GET 10 kB", "plain:app", "/10k", TEN_KB, direct=True),
        Case("echo", "POST echo 10 kB", "plain:app", "/echo", TEN_KB, body=TEN_KB),
        Case("stream", "GET 100 chunks of 100 bytes", "plain:app", "/stream", TEN_KB),
        Case(
            "json",
            "GET FastAPI JSON",
            "api:app",
            "/items/7?name=lamp",
            b'{"id":7,"name":"lamp","tags":["blue","large"],"price":12.5}',
            direct=True,
        ),
    )
}
