"""Children of the application: they get nothing of the server, and it nothing of theirs."""

import asyncio
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import signal as early_signal
from typing import Any

import loky
import psutil
import pytest
import uvloop

from aiovoy.embedded import child
from py_tests.harness.apps import Receive, Scope, Send, answer, file_exists, gate, note, routes
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Connection
from py_tests.harness.http1 import Http1Connection, Http10Connection
from py_tests.harness.processes import runs
from py_tests.harness.protocols import Connect, http3_too
from py_tests.harness.serving import Serve, Server, of_envoy, serve, unlike_uvicorn

FORKED = of_envoy("forked children have all that a fork has, as everywhere")

APP = f"{__name__}:app"
LOOPS = ["uvloop", "asyncio"]

# --- Ways to have a child that lives on ---

LONG = ["sleep", "60"]
kept: list[Any] = []
"""What must not be collected, or the child would be waited for."""


async def exec_of_the_loop() -> int:
    kept.append(await asyncio.create_subprocess_exec(*LONG))
    return int(kept[-1].pid)


async def shell_of_the_loop() -> int:
    kept.append(await asyncio.create_subprocess_shell("exec sleep 60"))
    return int(kept[-1].pid)


async def inherits() -> int:
    kept.append(subprocess.Popen(LONG, close_fds=False))
    return int(kept[-1].pid)


async def inherits_after_a_function() -> int:
    kept.append(subprocess.Popen(LONG, close_fds=False, preexec_fn=os.getpid))
    return int(kept[-1].pid)


async def posix_spawn() -> int:
    return os.posix_spawn("/bin/sleep", LONG, os.environ)


async def system() -> int:
    with tempfile.NamedTemporaryFile() as pid:
        os.system(f"sleep 60 & echo $! > {pid.name}")
        return int(pid.read())


async def fork() -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return pid


async def fork_of_a_thread() -> int:
    return await asyncio.to_thread(lambda: asyncio.run(fork()))


def process_of(method: str) -> Callable[[], Any]:
    async def start() -> int:
        context: Any = multiprocessing.get_context(method)
        kept.append(context.Process(target=time.sleep, args=[60], daemon=True))
        await asyncio.to_thread(kept[-1].start)
        return int(kept[-1].pid)

    return start


def pool_of(method: str) -> Callable[[], Any]:
    async def start() -> int:
        kept.append(concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)))
        return await asyncio.wrap_future(kept[-1].submit(os.getpid))

    return start


async def loky_pool() -> int:
    kept.append(loky.get_reusable_executor(max_workers=1, timeout=60))
    return int(await asyncio.wrap_future(kept[-1].submit(os.getpid)))


WAYS: dict[str, Callable[[], Any]] = {
    "create_subprocess_exec": exec_of_the_loop,
    "create_subprocess_shell": shell_of_the_loop,
    "Popen": inherits,
    "Popen with preexec_fn": inherits_after_a_function,
    "posix_spawn": posix_spawn,
    "system": system,
    "fork": fork,
    "fork of a thread": fork_of_a_thread,
    "Process by fork": process_of("fork"),
    "Process by spawn": process_of("spawn"),
    "Process by forkserver": process_of("forkserver"),
    "ProcessPoolExecutor by fork": pool_of("fork"),
    "ProcessPoolExecutor by forkserver": pool_of("forkserver"),
    "loky": loky_pool,
}

FORKS = {"fork", "fork of a thread", "Process by fork", "ProcessPoolExecutor by fork"}
"""Those whose child goes on in the program of the server."""


async def begin(scope: Scope, receive: Receive, send: Send) -> None:
    """Starts a child that outlives the request; tells its pid and the server's."""
    way = scope["query_string"].decode().replace("_", " ")
    way = next(known for known in WAYS if known.replace("_", " ") == way)
    await answer(send, [await WAYS[way](), os.getpid()])


# --- What a forked child does ---


def status_of(act: Callable[[], Any]) -> int:
    """The exit code of a child that does `act` and no more; negative for a signal."""
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def exits(scope: Scope, receive: Receive, send: Send) -> None:
    """A child that goes on in the request: it exits, raises, returns, waits or answers."""
    how = scope["path"].split("/")[2]
    never = asyncio.get_running_loop().create_future()
    pid = os.fork()
    if pid == 0:
        if how == "exits":
            sys.exit(7)
        if how == "raises":
            raise LookupError("of the child")
        if how == "waits":
            await never
        if how == "answers":
            await answer(send, b"of the child")
        print("flushed")
        return
    status = await asyncio.to_thread(os.waitpid, pid, 0)
    await answer(send, os.waitstatus_to_exitcode(status[1]))


async def background(scope: Scope, receive: Receive, send: Send) -> None:
    """The same in a task that the server knows nothing of, or in a callback."""
    result: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def forks() -> None:
        pid = os.fork()
        if pid == 0:
            if scope["path"].endswith("exits"):
                sys.exit(7)
            return
        waiting = asyncio.ensure_future(asyncio.to_thread(os.waitpid, pid, 0))
        waiting.add_done_callback(lambda task: result.set_result(os.waitstatus_to_exitcode(task.result()[1])))

    async def task() -> None:
        forks()

    async def sibling() -> None:
        """Is due in the same turn of the loop."""
        os.write(1, f"in {os.getpid()}\n".encode())

    if "/task/" in scope["path"]:
        kept.append(asyncio.create_task(task()))
        kept.append(asyncio.create_task(sibling()))
    else:
        asyncio.get_running_loop().call_soon(forks)
    await answer(send, await result)


def square(number: int) -> int:
    return number * number


async def pool(scope: Scope, receive: Receive, send: Send) -> None:
    """A pool whose end terminates its processes."""

    def work() -> list[int]:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(square, range(3))

    await answer(send, work() if scope["path"].endswith("/here") else await asyncio.to_thread(work))


async def terminated(scope: Scope, receive: Receive, send: Send) -> None:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
    process.start()
    process.terminate()
    await asyncio.to_thread(process.join)
    await answer(send, process.exitcode)


async def signalled(scope: Scope, receive: Receive, send: Send) -> None:
    """A child that gets a signal which it has not asked for."""
    number = int(scope["path"].split("/")[2])

    def act() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(60)
        os._exit(130)

    await answer(send, await asyncio.to_thread(status_of, act))


async def ordinary(scope: Scope, receive: Receive, send: Send) -> None:
    """What a child finds of itself; those that fail name themselves by the status."""

    def act() -> None:
        checks = [
            threading.current_thread() is threading.main_thread(),
            asyncio.run(asyncio.sleep(0, True)),
            signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
            signal.signal(signal.SIGTERM, signal.SIG_IGN) is signal.SIG_DFL,
            early_signal(signal.SIGTERM, signal.SIG_DFL) is signal.SIG_IGN,
            uvloop.run(hears_of(signal.SIGTERM)),
            signal.getsignal(signal.SIGUSR1) is kept_handler,
            signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL,
            status_of(grandchild) == 0,
            not connections(os.getpid()),
        ]
        os._exit(100 + checks.index(False) if False in checks else 0)

    here = scope["path"].endswith("/here")
    # A plain process would inherit the first, and has no use for the other, whose loop is the parent's.
    signal.signal(signal.SIGUSR1, kept_handler)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, print)
    await answer(send, status_of(act) if here else await asyncio.to_thread(status_of, act))


def kept_handler(*_: Any) -> None:
    pass


async def hears_of(number: int) -> bool:
    """A loop of the child's own has signals as any."""
    heard = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(number, heard.set)
    os.kill(os.getpid(), number)
    return await heard.wait()


def grandchild() -> None:
    """What a child has made of itself is left to its own children."""
    # Not all that is open, as daemons do: libuv would take some of the numbers for its own, too.
    for poller in child.open_pollers():
        os.close(poller)
    files = [os.open("/dev/zero", os.O_RDONLY) for _ in range(64)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os._exit(status_of(lambda: os._exit(not keeps_all(files))))


def keeps_all(files: list[int]) -> bool:
    return all(os.readlink(f"/proc/self/fd/{file}") == "/dev/zero" for file in files) and (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    )


def connections(pid: int) -> list[Any]:
    """What a process has open to others: no pairs of sockets within it."""
    return [one for one in psutil.Process(pid).net_connections("all") if one.laddr]


async def forks_often(scope: Scope, receive: Receive, send: Send) -> None:
    """Children that end at once."""
    statuses = [await asyncio.to_thread(status_of, lambda: None) for _ in range(20)]
    await answer(send, statuses)


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "in flight")
    await file_exists(gate(scope))
    await answer(send, b"done")


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


app = routes(begin, exits, background, pool, terminated, signalled, ordinary, forks_often, gated, plain)


@pytest.fixture(params=LOOPS, scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(APP, loop=request.param) as server:
        yield server


@pytest.fixture(params=LOOPS, scope="module")
def parent(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One whose children live on: a fork may find a lock taken by the threads that watch over those."""
    with serve(APP, loop=request.param) as server:
        yield server


@contextlib.contextmanager
def ended(pid: int) -> Iterator[psutil.Process]:
    """Ends a child of the application."""
    process = psutil.Process(pid)
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@unlike_uvicorn("it lets forked children inherit")
@pytest.mark.parametrize("way", [pytest.param(way, marks=FORKED if way in FORKS else ()) for way in WAYS])
async def test_child_has_no_socket_of_the_server(parent: Server, way: str) -> None:
    async with await Http10Connection.open(parent.port) as connection:
        exchange = await connection.start("GET", f"/begin?{way.replace(' ', '_')}")
        pid, _ = (await exchange.response()).json()
        with ended(pid):
            # A copy of the parent executes its program in a moment.
            await eventually(lambda: not connections(pid))
            # The connection's end comes though the child lives.
            await connection.ended()
            assert psutil.pid_exists(pid)


@unlike_uvicorn("it lets forked children inherit")
@pytest.mark.parametrize("way", ["create_subprocess_exec", "system", pytest.param("fork", marks=FORKED)])
@pytest.mark.parametrize("loop", LOOPS)
async def test_port_is_free_when_only_a_child_is_left(serve: Serve, way: str, loop: str) -> None:
    server = serve(APP, loop=loop)
    pid, worker = (await server.get(f"/begin?{way}")).json()
    with ended(pid):
        # The fixture ends what is below the server.
        for process in dict.fromkeys([server.pid, worker]):  # without Envoy it is one
            os.kill(process, signal.SIGKILL)
        await server.exit_code()
        # A process that was killed is gone some time after that.
        await eventually(lambda: is_free(server.port))
        assert psutil.pid_exists(pid)


def is_free(port: int) -> bool:
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", port))
        except OSError:
            return False
        free.listen()
        return True


@FORKED
@unlike_uvicorn("its child goes on with the loop")
@pytest.mark.parametrize(("how", "code"), [("exits", 7), ("raises", 1), ("returns", 0), ("waits", 1), ("answers", 0)])
async def test_child_that_comes_back_ends(server: Server, how: str, code: int) -> None:
    async with await Http1Connection.open(server.port) as connection:
        for _ in range(2):
            assert (await connection.get(f"/exits/{how}")).json() == code
            assert (await connection.get("/plain")).body == b"plain"
    if how == "raises":
        await eventually(lambda: "LookupError: of the child" in server.fresh_log)
    if how == "returns":
        await eventually(lambda: server.output.count("flushed") >= 2)


@FORKED
@unlike_uvicorn("its child goes on with the loop")
@pytest.mark.parametrize(("how", "code"), [("exits", 7), ("returns", 0)])
@pytest.mark.parametrize("where", ["task", "callback"])
async def test_child_of_a_task_or_callback_ends(server: Server, where: str, how: str, code: int) -> None:
    before = len(server.output)
    assert (await server.get(f"/background/{where}/{how}")).json() == code
    assert (await server.get("/plain")).body == b"plain"
    if where == "task" and "asyncio" in list(server.process.args):  # type: ignore[arg-type]
        assert server.output[before:].count("in ") == 1


@FORKED
@pytest.mark.parametrize("where", ["here", "thread"])
async def test_pool_in_a_request(server: Server, where: str) -> None:
    for _ in range(3):
        assert (await server.get(f"/pool/{where}")).json() == [0, 1, 4]
    assert (await server.get("/plain")).body == b"plain"


@FORKED
async def test_process_is_terminated_and_not_the_server(server: Server) -> None:
    for _ in range(10):
        assert (await server.get("/terminated")).json() == -signal.SIGTERM
    assert (await server.get("/plain")).body == b"plain"


@FORKED
@unlike_uvicorn("its children have its handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM])
async def test_signals_of_a_child_are_its_own(server: Server, number: int) -> None:
    assert (await server.get(f"/signalled/{int(number)}")).json() == -number
    assert (await server.get("/plain")).body == b"plain"


@FORKED
@unlike_uvicorn("it has a KeyboardInterrupt of its own")
async def test_interrupt_of_a_child_is_its_own(server: Server) -> None:
    assert (await server.get(f"/signalled/{int(signal.SIGINT)}")).json() == 130
    assert (await server.get("/plain")).body == b"plain"


@FORKED
@unlike_uvicorn("its children have its sockets")
@pytest.mark.parametrize("where", ["here", "thread"])
async def test_forked_child_is_an_ordinary_process(server: Server, where: str) -> None:
    assert (await server.get(f"/ordinary/{where}")).json() == 0
    assert (await server.get("/plain")).body == b"plain"


@http3_too
@unlike_uvicorn("its children go on")
async def test_requests_go_on_while_children_are_forked(serve: Serve, connect: Connect) -> None:
    server = serve(APP)

    async def others() -> None:
        for _ in range(10):
            connection: Connection
            async with await connect(server) as connection:
                for _ in range(10):
                    assert (await connection.get("/plain")).body == b"plain"

    forking = [server.get("/forks_often") for _ in range(4)]
    answers = await asyncio.gather(*forking, *(others() for _ in range(8)))
    assert [response.json() for response in answers if response] == [[0] * 20] * 4


# SIGINT is left as the bridge leaves it in a child.
INTERRUPTED = """
import os, signal
from types import SimpleNamespace
from aiovoy.embedded import child

class Handled(dict):
    def items(self):
        os.kill(os.getpid(), signal.SIGINT)
        return super().items()

signal.signal(signal.SIGINT, signal.SIG_DFL)
child.know_loop(SimpleNamespace(handled_signals=Handled()), set())
child._become_ordinary()
"""


@unlike_uvicorn("this is about aiovoy")
def test_interrupt_of_a_child_that_begins_ends_it() -> None:
    """Rather than leave it half the server's: what a handler raises in a hook of `fork` is ignored by Python."""
    child = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True)
    assert (child.returncode, child.stderr) == (-signal.SIGINT, b"")


@unlike_uvicorn("its children have its handlers")
@pytest.mark.parametrize("way", ["create_subprocess_exec", pytest.param("fork", marks=FORKED)])
async def test_interrupt_of_the_group_lets_requests_finish(serve: Serve, key: str, tmp_path: Path, way: str) -> None:
    """As by Ctrl-C: everybody in the group gets it, children too."""
    server = serve(APP)
    pid, _ = (await server.get(f"/begin?{way}")).json()
    with ended(pid) as child:
        async with await Http1Connection.open(server.port) as connection:
            headers = [(b"x-gate", str(tmp_path / "gate").encode())]
            waiting = await connection.start("GET", f"/gated?{key}", headers=headers)
            await server.noted(key, "in flight")
            server.told_to_stop = True
            os.killpg(os.getpgid(server.pid), signal.SIGINT)
            await eventually(lambda: not runs(child))
            (tmp_path / "gate").touch()
            assert (await waiting.response()).body == b"done"
        assert await server.exit_code() == 0
