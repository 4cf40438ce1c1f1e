"""`--host`: where the server listens, and what scopes say of it."""

import json
import socket
from pathlib import Path

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.deadline import eventually
from py_tests.harness.ipv6 import needs_ipv6
from py_tests.harness.serving import Serve


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    seen = json.dumps([scope["client"], scope["server"]]).encode()
    await answer(send, seen, headers=[(b"content-length", b"%d" % len(seen))])


def ask(host: str, port: int) -> tuple[object, int]:
    """The application's answer, and the port that it was asked from."""
    with socket.create_connection((host, port), timeout=20) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        answered = b"".join(iter(lambda: sock.recv(65536), b""))
        return json.loads(answered.partition(b"\r\n\r\n")[2]), sock.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_ipv4(serve: Serve, host: str) -> None:
    server = serve(app, host=host, lifespan="off")
    seen, port = ask("127.0.0.1", server.port)
    assert seen == [["127.0.0.1", port], ["127.0.0.1", server.port]]


def test_host_name(serve: Serve) -> None:
    server = serve(app, host="localhost", lifespan="off")
    seen, port = ask("localhost", server.port)
    assert seen in (
        [["127.0.0.1", port], ["127.0.0.1", server.port]],
        [["::1", port], ["::1", server.port]],
    )


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6(serve: Serve, host: str) -> None:
    server = serve(app, host=host, lifespan="off")
    seen, port = ask("::1", server.port)
    assert seen == [["::1", port], ["::1", server.port]]


def test_other_addresses_are_not_listened_on(serve: Serve) -> None:
    server = serve(app, host="127.0.0.2", lifespan="off")
    seen, port = ask("127.0.0.2", server.port)
    assert seen == [["127.0.0.1", port], ["127.0.0.2", server.port]]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=20)


async def test_connections_are_probed(serve: Serve) -> None:
    """So a client that has vanished from the network is noticed, however long it was silent."""
    server = serve(app, lifespan="off")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        ours, theirs = f":{server.port:04X}", f":{client.getsockname()[1]:04X}"

        def timer() -> str:
            rows = map(str.split, Path("/proc/net/tcp").read_text().splitlines())
            return next((row[5] for row in rows if row[1].endswith(ours) and row[2].endswith(theirs)), "")

        # That of keepalive, while nothing is on its way.
        await eventually(lambda: timer().startswith("02:"))
