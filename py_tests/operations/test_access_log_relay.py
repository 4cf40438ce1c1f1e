"""The way of the access log to standard output, and a standard output that nobody reads."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

import aiovoy
from aiovoy.launcher.descriptors import Output
from aiovoy.launcher.relay import LIMIT
from py_tests.harness.apps import Receive, Scope, Send, answer, file_exists, gate, note, routes
from py_tests.harness.deadline import eventually
from py_tests.harness.folders import ROOT
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.processes import runs
from py_tests.harness.serving import FRONT, OWN, Serve, Server, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("it writes its log itself")

PATH = "/" + "x" * 10_000


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, os.getpid())


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "in flight")
    await file_exists(gate(scope))
    await answer(send)


app = routes(plain, gated)

# Without Envoy there are no formats of its.
OPTIONS: dict[str, Any] = {
    "access_log": True,
    "access_log_format": "common" if FRONT == OWN else "%REQ(:PATH)%",
    "lifespan": "off",
}


def paths(text: str) -> list[str]:
    """What the lines of the log say."""
    return [re.sub(r'127\.0\.0\.1 - - \[.*\] "GET (.*) HTTP/1\.1" 200 \d+', r"\1", line) for line in text.splitlines()]


class Pipe:
    """Standard output of a server."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.text = bytearray()

    def read_to_the_end(self) -> None:
        """Reads in a thread of its own, until nobody has the other end any more."""
        os.close(self.write)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def lines(self) -> list[str]:
        """All that came, at the end."""
        self._thread.join()
        return paths(self.text.decode())

    def _read(self) -> None:
        with open(self.read, "rb") as file:
            while piece := file.read1():
                self.text += piece


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


async def send(server: Server, first: int, last: int) -> None:
    """Requests whose lines in the log have their numbers."""
    async with await Http1Connection.open(server.port) as connection:
        for number in range(first, last):
            assert (await connection.get(f"/plain?{number}{PATH}")).status == 200


def numbers(lines: list[str]) -> list[int]:
    """The numbers of the requests in these lines, which are whole ones."""
    found = [re.fullmatch(rf"/plain\?(\d+){PATH}", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return [int(match[1]) for match in found if match]


def dropped(server: Server) -> int:
    """How many lines the server says that it dropped."""
    found = re.findall(r"dropped (\d+) lines? of the access log: standard output took no more", server.log)
    return sum(map(int, found))


MORE_THAN_FITS = 2 * LIMIT // len(PATH)


async def test_log_that_nobody_reads_is_bounded_and_holds_nothing_up(serve: Serve, pipe: Pipe) -> None:
    server = serve(f"{__name__}:app", stdout=pipe.write, **OPTIONS)
    await send(server, 0, MORE_THAN_FITS)
    server.process.terminate()
    assert await server.exit_code() == 0
    pipe.read_to_the_end()
    came = numbers(pipe.lines()[:-1])  # the last one has been cut off
    assert came == list(range(len(came)))
    assert len(came) + dropped(server) >= MORE_THAN_FITS - 1
    assert "atexit" not in server.log


async def test_log_that_is_read_again(serve: Serve, pipe: Pipe) -> None:
    server = serve(f"{__name__}:app", stdout=pipe.write, **OPTIONS)
    await send(server, 0, MORE_THAN_FITS)
    pipe.read_to_the_end()
    await eventually(lambda: dropped(server))
    await send(server, MORE_THAN_FITS, MORE_THAN_FITS + 10)
    server.process.terminate()
    assert await server.exit_code() == 0
    came = numbers(pipe.lines())
    assert came == sorted(came)
    assert came[-10:] == list(range(MORE_THAN_FITS, MORE_THAN_FITS + 10))
    assert len(came) + dropped(server) == MORE_THAN_FITS + 10
    assert len(came) * len(PATH) > LIMIT / 2


async def test_lines_of_the_end_come(serve: Serve, pipe: Pipe) -> None:
    server = serve(f"{__name__}:app", stdout=pipe.write, **OPTIONS)
    pipe.read_to_the_end()
    await send(server, 0, 1000)
    server.process.terminate()
    assert await server.exit_code() == 0
    assert numbers(pipe.lines()) == list(range(1000))
    assert dropped(server) == 0


async def test_reader_that_goes_away(serve: Serve, pipe: Pipe) -> None:
    server = serve(f"{__name__}:app", stdout=pipe.write, **OPTIONS)
    os.close(pipe.write)
    os.close(pipe.read)
    await send(server, 0, 10)
    await eventually(lambda: "cannot write the access log: broken pipe\n" in server.log)
    await send(server, 10, 20)
    server.process.terminate()
    assert await server.exit_code() == 0
    assert dropped(server) == 20


@of_envoy("without it an ordinary process of Python's, as such a signal finds it")
async def test_log_that_is_opened_anew(serve: Serve) -> None:
    server = serve(f"{__name__}:app", **OPTIONS)
    envoy = int((await server.get("/plain")).json())
    await eventually(lambda: paths(server.output) == ["/plain"])
    os.kill(envoy, signal.SIGUSR1)
    await server.get("/plain?2")
    await eventually(lambda: paths(server.output) == ["/plain", "/plain?2"])


async def test_requests_finish_when_the_launcher_is_killed(serve: Serve, key: str, tmp_path: Path) -> None:
    server = serve(f"{__name__}:app", workers=1, **OPTIONS)
    envoy = psutil.Process(int((await server.get("/plain")).json()))
    async with await Http1Connection.open(server.port) as connection:
        exchange = await connection.start("GET", f"/gated?{key}", headers=[(b"x-gate", bytes(tmp_path / "gate"))])
        await server.noted(key, "in flight")
        server.process.kill()
        await server.exit_code()
        (tmp_path / "gate").touch()
        assert (await exchange.response()).status == 200
    await eventually(lambda: not runs(envoy))


@of_envoy("a script starts Envoys")
async def test_output_of_a_server_in_a_script(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as file:
        outputs: list[Output] = [file, subprocess.DEVNULL]
        for output in outputs:
            async with (
                aiovoy.Server(f"{__name__}:app", port=0, app_dir=ROOT, stdout=output, **OPTIONS) as server,
                await Http1Connection.open(server.port) as connection,
            ):
                await connection.get("/plain")
    assert (tmp_path / "output").read_text() == "/plain\n"
