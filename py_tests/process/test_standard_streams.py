"""Standard streams that are closed, full, or that nobody reads: what is only told holds up nothing."""

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.folders import ROOT
from py_tests.harness.serving import clean_environment, command, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy's launcher")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes that it was shut down; for /fill it writes to standard error until nothing more goes in."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        Path(os.environ["GOODBYE"]).touch()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/raise":
        raise LookupError("x" * 5000)
    if scope["path"] == "/fill":
        threading.Thread(target=fill, daemon=True).start()
    await answer(send, os.getpid())


def fill() -> None:
    while True:
        os.write(2, b"x")


def is_full(pipe: int) -> bool:
    """Whether a pipe takes no more, as far as can be told: writes leave some room in it."""
    waiting = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
    return waiting > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) * 3 // 4


class Running:
    """A server on a Unix domain socket, since nothing it writes can be relied on."""

    def __init__(self, folder: Path, redirections: str = "", stderr: int | None = None) -> None:
        self.path = folder / "socket"
        self.goodbye = folder / "goodbye"
        words = command(app, uds=self.path, port=None, timeout_graceful_shutdown=1)
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {redirections}', "sh", *words],
            env={**clean_environment(), "GOODBYE": str(self.goodbye)},
            stderr=stderr,
        )

    def ask(self, path: str = "/") -> int:
        """Process id of the Envoy that answers; 0 if there is none yet."""
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.path)) != 0:
                return 0
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.path)), timeout=DEADLINE) as client:
            return int(client.get(f"http://localhost{path}").json())

    async def terminate(self) -> int:
        """Stops gracefully. Returns the exit code."""
        self.process.terminate()
        await eventually(lambda: self.process.poll() is not None)
        assert self.goodbye.exists()
        assert not self.path.exists()
        code: int = self.process.returncode
        return code


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a short path, as sockets need."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextlib.contextmanager
def running(folder: Path, redirections: str = "", stderr: int | None = None) -> Iterator[Running]:
    server = Running(folder, redirections, stderr=stderr)
    try:
        yield server
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(server.process.pid).children():
                process.kill()
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", ">&-", ">/dev/full 2>&1", "<&- >&- 2>&-"])
async def test_server_with_streams_that_take_nothing(folder: Path, redirections: str) -> None:
    with running(folder, redirections) as server:
        envoy = await eventually(server.ask)
        # Nothing else has got one of the numbers: what is written to them would go there.
        for pid in [server.process.pid, envoy]:
            for number in range(3):
                assert not os.readlink(f"/proc/{pid}/fd/{number}").startswith(("socket:", "anon_inode:"))
        assert await server.terminate() == 0


async def test_standard_error_whose_reader_has_gone(folder: Path) -> None:
    read, write = os.pipe()
    with running(folder, stderr=write) as server:
        os.close(write)
        await eventually(server.ask)
        os.close(read)
        assert await server.terminate() == 0


async def test_standard_error_that_nobody_reads(folder: Path) -> None:
    read, write = os.pipe()
    with running(folder, stderr=write) as server:
        await eventually(server.ask)
        server.ask("/fill")
        await eventually(lambda: is_full(read))
        assert await server.terminate() == 0
    os.close(write)
    os.close(read)


async def test_requests_are_served_though_nobody_reads_what_is_logged(tmp_path: Path) -> None:
    """The server's own lines: each of these requests has some thousand bytes of them."""
    read, write = os.pipe()
    with running(tmp_path, stderr=write) as server:
        os.close(write)
        await eventually(server.ask)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.path)), timeout=DEADLINE) as client:
            for _ in range(100):
                assert client.get("http://localhost/raise").status_code == 500
        await eventually(lambda: is_full(read))
        assert server.ask()
        assert await server.terminate() == 0
    os.close(read)


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full"])
def test_exit_code_of_a_wrong_option_that_nobody_hears_of(redirections: str) -> None:
    words = ["sh", "-c", f'exec "$@" {redirections}', "sh", *command("main:app", limit_concurrency=0)]
    assert subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode == 2


@of_envoy("there is no configuration to print")
def test_output_on_a_full_disk() -> None:
    words = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *command("main:app", print_envoy_config=True)]
    ended = subprocess.run(words, check=False, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (1, "error: cannot write: no space left on device\n")


@of_envoy("it has no files")
def test_no_room_for_the_files_of_the_server() -> None:
    words = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", *command("main:app")]
    ended = subprocess.run(words, check=False, stderr=subprocess.PIPE, text=True)
    message, hint = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert message.startswith("error: cannot make the files of the server: no usable temporary directory")
    assert hint == "hint: $TMPDIR says where"


SCRIPT = """if True:
    import asyncio, os, sys, aiovoy

    class Broken:
        def write(self, text):
            raise ValueError("no talk")

    async def main():
        async with aiovoy.Server(sys.argv[2], port=0, app_dir=sys.argv[3]):
            pass

    if sys.argv[1] == "closed":
        os.close(1)
        os.close(2)
    sys.stderr = {"none": None, "broken": Broken(), "closed": sys.stderr}[sys.argv[1]]
    asyncio.run(main())
    os._exit(0)
"""


@pytest.mark.parametrize("what", ["none", "broken", "closed"])
def test_standard_error_of_a_script(folder: Path, what: str) -> None:
    env = {**clean_environment(), "GOODBYE": str(folder / "goodbye")}
    words = [sys.executable, "-c", SCRIPT, what, f"{__name__}:app", str(ROOT)]
    assert subprocess.run(words, env=env, check=False, timeout=3 * DEADLINE).returncode == 0
    assert (folder / "goodbye").exists()
