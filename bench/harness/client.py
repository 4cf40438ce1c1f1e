"""Single requests: to see that a server is up, and that it answers rightly."""

from __future__ import annotations

import http.client
import re
import subprocess
import tempfile

from harness import websocket
from harness.cases import Case

TIMEOUT = 10.0


class WrongAnswerError(Exception):
    """A server did not answer what the case asks for."""


def answers(port: int, path: str) -> bool:
    """Whether the server at `port` answers a GET with 200."""
    try:
        status, _ = http1(port, "GET", path, None)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def verify(port: int, case: Case, protocol: str) -> None:
    """Sends the request of `case` once and compares status and body of the answer."""
    try:
        if protocol == "ws":
            with websocket.connect(port, case) as connection:
                status, body = 200, websocket.exchange(connection, case)
        elif protocol == "h1":
            status, body = http1(port, "GET" if case.body is None else "POST", case.path, case.body)
        else:
            status, body = http2(port, case)
    except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
        raise WrongAnswerError(f"no answer: {error or type(error).__name__}") from error
    if (status, body) != (200, case.answer):
        raise WrongAnswerError(
            f"expected 200 with {len(case.answer)} bytes {case.answer[:40]!r}, "
            f"got {status} with {len(body)} bytes {body[:40]!r}"
        )


def http1(port: int, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def http2(port: int, case: Case) -> tuple[int, bytes]:
    """Over HTTP/2 without TLS and without an upgrade, by nghttp.

    It prints either the body or the frames, hence two requests.
    """
    command = ["nghttp", f"--timeout={TIMEOUT:.0f}", f"http://127.0.0.1:{port}{case.path}"]
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
