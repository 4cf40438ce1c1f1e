"""Single requests: to see that a server is up, and that it answers rightly."""

from __future__ import annotations

import http.client
import re
import subprocess
import tempfile

from harness import websocket
from harness.cases import SECURE, Case
from harness.load import LoadFailedError, h3load
from harness.tls import certificate

TIMEOUT = 10.0


class WrongAnswerError(Exception):
    """A server did not answer what the case asks for."""


def answers(port: int, path: str, secure: bool) -> bool:
    """Whether the server at `port` answers a GET with 200."""
    try:
        status, _ = http1(port, "GET", path, None, secure)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def verify(port: int, case: Case, protocol: str) -> None:
    """Sends the request of `case` once and compares status and body of the answer."""
    try:
        if protocol == "ws":
            with websocket.connect(port, case) as connection:
                status, body = 200, websocket.exchange(connection, case)
        elif protocol in ("h1", "h1s"):
            method = "GET" if case.body is None else "POST"
            status, body = http1(port, method, case.path, case.body, protocol in SECURE)
        elif protocol == "h3":
            # It compares.
            h3load(port, case, connections=1, requests=1)
            return
        else:
            status, body = http2(port, case, protocol in SECURE)
    except LoadFailedError as error:
        raise WrongAnswerError(str(error)) from error
    except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
        raise WrongAnswerError(f"no answer: {error or type(error).__name__}") from error
    if (status, body) != (200, case.answer):
        raise WrongAnswerError(
            f"expected 200 with {len(case.answer)} bytes {case.answer[:40]!r}, "
            f"got {status} with {len(body)} bytes {body[:40]!r}"
        )


def http1(port: int, method: str, path: str, body: bytes | None, secure: bool) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    if secure:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT, context=certificate().context())
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def http2(port: int, case: Case, secure: bool) -> tuple[int, bytes]:
    """Over HTTP/2, with TLS or by prior knowledge, by nghttp.

    It prints either the body or the frames, hence two requests.
    """
    scheme = "https" if secure else "http"
    command = ["nghttp", f"--timeout={TIMEOUT:.0f}", f"{scheme}://127.0.0.1:{port}{case.path}"]
    with tempfile.NamedTemporaryFile() as file:
        if case.body is not None:
            file.write(case.body)
            file.flush()
            command.append(f"--data={file.name}")
        body, frames = (output([*command, *more]) for more in ([], ["--verbose", "--null-out"]))
    status = re.search(rb":status: (\d{3})", frames)
    return int(status[1]) if status else 0, body


def output(command: list[str]) -> bytes:
    # The status tells nothing: nghttp ends with 0 whatever the answer was.
    return subprocess.run(command, capture_output=True, check=False, timeout=3 * TIMEOUT).stdout
