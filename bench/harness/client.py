"""Single requests: to see that a server is up, and that it answers rightly."""

from __future__ import annotations

import http.client
import socket
import subprocess
import tempfile
from pathlib import Path

from harness import websocket
from harness.cases import FIRST, SECURE, Case
from harness.load import LoadFailedError, h3load
from harness.tls import certificate

TIMEOUT = 10.0


class WrongAnswerError(Exception):
    """A server did not answer what the case asks for."""


def answers(place: int | Path, path: str, secure: bool) -> bool:
    """Whether the server at `place`, a port or a Unix domain socket, answers a GET with 200."""
    try:
        status, _ = http1(place, "GET", path, None, secure)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def verify(place: int | Path, case: Case, protocol: str) -> None:
    """Sends the request of `case` once and compares status and body of the answer."""
    try:
        if protocol == "ws":
            assert isinstance(place, int)
            with websocket.connect(place, case) as connection:
                status, body = 200, websocket.exchange(connection, case)
        elif protocol in FIRST:
            method = "GET" if case.body is None else "POST"
            status, body = http1(place, method, case.path, case.body, protocol in SECURE)
        elif protocol == "h3":
            assert isinstance(place, int)
            # It compares.
            h3load(place, case, connections=1, requests=1)
            return
        else:
            status, body = http2(place, case, protocol in SECURE)
    except LoadFailedError as error:
        raise WrongAnswerError(str(error)) from error
    except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
        raise WrongAnswerError(f"no answer: {error or type(error).__name__}") from error
    if (status, body) != (200, case.answer):
        raise WrongAnswerError(
            f"expected 200 with {len(case.answer)} bytes {case.answer[:40]!r}, "
            f"got {status} with {len(body)} bytes {body[:40]!r}"
        )


class LocalConnection(http.client.HTTPConnection):
    """Over a Unix domain socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self.path))


def http1(place: int | Path, method: str, path: str, body: bytes | None, secure: bool) -> tuple[int, bytes]:
    connection: http.client.HTTPConnection
    if isinstance(place, Path):
        connection = LocalConnection(place)
    elif secure:
        connection = http.client.HTTPSConnection("127.0.0.1", place, timeout=TIMEOUT, context=certificate().context())
    else:
        connection = http.client.HTTPConnection("127.0.0.1", place, timeout=TIMEOUT)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def http2(place: int | Path, case: Case, secure: bool) -> tuple[int, bytes]:
    """Over HTTP/2, with TLS or by prior knowledge, by curl."""
    command = ["curl", "--silent", "--max-time", f"{TIMEOUT:.0f}", "--write-out", "%{http_version} %{http_code}"]
    if isinstance(place, Path):
        command += ["--unix-socket", str(place)]
    command += ["--http2", "--insecure"] if secure else ["--http2-prior-knowledge"]
    with tempfile.TemporaryDirectory(prefix="bench-curl-") as folder:
        answer, body = Path(folder, "answer"), Path(folder, "body")
        answer.touch()
        if case.body is not None:
            body.write_bytes(case.body)
            command += ["--data-binary", f"@{body}", "--header", "expect:"]
        port = f":{place}" if isinstance(place, int) else ""
        address = f"{'https' if secure else 'http'}://127.0.0.1{port}{case.path}"
        # The status tells nothing that is not said.
        ended = subprocess.run(
            [*command, "--output", str(answer), address], capture_output=True, check=False, timeout=3 * TIMEOUT
        )
        version, _, status = ended.stdout.decode().partition(" ")
        return int(status) if version == "2" else 0, answer.read_bytes()
