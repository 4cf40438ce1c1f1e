"""`--bind`, `--fd` and sockets of systemd: several addresses, and sockets that others have opened."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.certificates import Pair, client_context
from py_tests.harness.deadline import DEADLINE
from py_tests.harness.ipv6 import needs_ipv6
from py_tests.harness.serving import FRONT, OWN, Serve, launch, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("it has one address")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, [scope["server"], scope["scheme"], [name for name in os.environ if name.startswith("LISTEN_")]])


def ask(url: str, path: Path | None = None) -> object:
    transport = httpx.HTTPTransport(uds=None if path is None else str(path), verify=client_context())
    with httpx.Client(transport=transport, timeout=DEADLINE) as client:
        return client.get(url).json()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("workers", [1, 2])
def test_several_addresses(serve: Serve, tmp_path: Path, workers: int) -> None:
    first, second, path = free_port(), free_port(), Path("a.sock")
    bind = [f"127.0.0.1:{first}", f"127.0.0.2:{second}", f"unix:{path}"]
    server = serve(app, bind=bind, port=None, lifespan="off", workers=workers, cwd=tmp_path)
    urls = f"http://127.0.0.1:{first} and http://127.0.0.2:{second} and unix:{tmp_path / path} "
    assert f"running on {urls}(" in server.log
    assert ask(f"http://127.0.0.1:{first}/") == [["127.0.0.1", first], "http", []]
    assert ask(f"http://127.0.0.2:{second}/") == [["127.0.0.2", second], "http", []]
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / path)), timeout=DEADLINE) as client:
        assert client.get("http://a/").json() == [[str(tmp_path / path), None], "http", []]


@of_envoy("it has no TLS")
def test_tls_on_all_of_them(serve: Serve, pair: Pair) -> None:
    first, second = free_port(), free_port()
    bind = [f"127.0.0.1:{first}", f"127.0.0.1:{second}"]
    serve(app, bind=bind, port=None, lifespan="off", **pair.options)
    for port in (first, second):
        assert ask(f"https://127.0.0.1:{port}/") == [["127.0.0.1", port], "https", []]


def test_one_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with launch(app, bind=[f"unix:{tmp_path / 'a'}", taken], port=None, lifespan="off") as server:
            server.process.wait(20)
            server.code = server.process.returncode
            assert f"error: cannot listen on {taken}: address already in use" in server.log
    assert not (tmp_path / "a").exists()


SYSTEMD = """
import fcntl, os, sys
fds, names = sys.argv[1].split(","), sys.argv[2]
copies = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in fds]
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=names)
os.execv(sys.argv[3], sys.argv[3:])
"""


def of_systemd(listeners: list[socket.socket], names: str) -> dict[str, Any]:
    """Options of `launch` for a server that gets these sockets."""
    fds = [listener.fileno() for listener in listeners]
    through = [sys.executable, "-c", SYSTEMD, ",".join(map(str, fds)), names]
    return {"through": through, "pass_fds": fds, "port": None, "lifespan": "off"}


@pytest.mark.parametrize("workers", [1, 2])
def test_sockets_of_systemd(serve: Serve, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "a.sock"
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(os.path.relpath(path))
    path.chmod(0o640)
    with socket.create_server(("127.0.0.1", 0)) as tcp, unix:
        port = tcp.getsockname()[1]
        server = serve(app, **of_systemd([tcp, unix], "web:local"), workers=workers)
        assert ask(f"http://127.0.0.1:{port}/") == [["127.0.0.1", port], "http", []]
        assert "http://127.0.0.1" in server.log
        with httpx.Client(transport=httpx.HTTPTransport(uds=os.path.relpath(path)), timeout=DEADLINE) as client:
            assert client.get("http://a/").status_code == 200
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # it is its giver's


def test_socket_of_systemd_by_its_name(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        port = second.getsockname()[1]
        server = serve(app, **of_systemd([first, second], "admin:web"), bind="fd://web")
        assert f"running on http://127.0.0.1:{port} (" in server.log
        assert ask(f"http://127.0.0.1:{port}/") == [["127.0.0.1", port], "http", []]


@needs_ipv6
def test_dual_stack_socket(serve: Serve) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        serve(app, fd=listener.fileno(), pass_fds=[listener.fileno()], port=None, lifespan="off")
        for host in ("127.0.0.1", "[::1]"):
            assert ask(f"http://{host}:{port}/")


def test_socket_outlives_the_server(serve: Serve) -> None:
    """What comes between two servers waits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        options: dict[str, Any] = {"fd": fd, "pass_fds": [fd], "port": None, "lifespan": "off"}
        with launch(app, **options) as first:
            first.wait_until_started()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as early:
            early.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            serve(app, **options)
            assert early.recv(12) == b"HTTP/1.1 200"


def test_title_of_a_worker(serve: Serve) -> None:
    server = serve(app, workers=2, lifespan="off")
    words = ["ps", "-ww", "--ppid", str(server.pid), "-o", "args="]
    shown = subprocess.run(words, capture_output=True, text=True, check=True)
    titles = [line.split(" -c ")[0] for line in sorted(shown.stdout.splitlines())]
    if FRONT == OWN:
        assert [f"/aiovoy/upstream/worker.py {__name__}:app " in title for title in titles] == [True, True]
    else:
        assert titles == [f"aiovoy: worker {number} {__name__}:app" for number in (1, 2)]
