"""What an application may use as in any Python: extension modules, threads, processes, output, signals."""

import asyncio
import contextlib
import ctypes
import ctypes.util
import importlib
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from py_tests.harness import serving
from py_tests.harness.apps import Receive, Scope, Send, answer, routes
from py_tests.harness.deadline import eventually
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.serving import (
    UNDER_TEST,
    UVICORN,
    Serve,
    Server,
    serve,
    unlike_uvicorn,
)

# --- Extension modules ---

MODULES = [
    "numpy",
    "uvloop",
    "pydantic_core",
    "ssl",
    "_ssl",
    "_ctypes",
    "sqlite3",
    "hashlib",
    "zlib",
    "lzma",
    "decimal",
    "multiprocessing.shared_memory",
    "readline",
]


async def imports(scope: Scope, receive: Receive, send: Send) -> None:
    module = importlib.import_module(scope["path"].split("/")[2])
    await answer(send, module.__name__)


@pytest.mark.parametrize("name", MODULES)
async def test_extension_module_imports(server: Server, name: str) -> None:
    pytest.importorskip(name)
    assert (await server.get(f"/imports/{name}")).json() == name


async def extensions_work(scope: Scope, receive: Receive, send: Send) -> None:
    import sqlite3
    import ssl

    import numpy
    import pydantic

    class Model(pydantic.BaseModel):
        number: int

    with sqlite3.connect(":memory:") as database:
        (one,) = database.execute("select 1").fetchone()
    database.close()
    libc = ctypes.CDLL(ctypes.util.find_library("c"))
    seen = {
        "numpy": float(numpy.linalg.inv(numpy.array([[2.0, 0.0], [0.0, 4.0]]))[1, 1]),
        "pydantic": Model.model_validate_json(b'{"number": "7"}').number,
        "ssl": bool(ssl.create_default_context().get_ca_certs() is not None),
        "sqlite": one,
        "ctypes": libc.getpid() == os.getpid(),
        "random": len(ssl.RAND_bytes(8)),
    }
    await answer(send, seen)


async def test_extension_modules_work(server: Server) -> None:
    assert (await server.get("/extensions_work")).json() == {
        "numpy": 0.25,
        "pydantic": 7,
        "ssl": True,
        "sqlite": 1,
        "ctypes": True,
        "random": 8,
    }


# --- Threads ---


async def threads(scope: Scope, receive: Receive, send: Send) -> None:
    loop = asyncio.get_running_loop()
    in_loop = threading.get_ident()
    in_thread = await asyncio.to_thread(threading.get_ident)
    in_executor = await loop.run_in_executor(None, threading.get_ident)
    called = loop.create_future()
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(called.set_result, True))
    thread.start()
    await called
    await asyncio.to_thread(thread.join)
    from_thread = await asyncio.to_thread(
        lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "back"), loop).result()
    )
    await answer(send, [in_loop not in (in_thread, in_executor), from_thread])


async def test_threads_work(server: Server) -> None:
    assert (await server.get("/threads")).json() == [True, "back"]


async def busy_threads(scope: Scope, receive: Receive, send: Send) -> None:
    """Blocks in threads, as synchronous code behind a framework does."""
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(20)))
    await answer(send, b"done")


async def test_blocking_threads_let_the_loop_run(server: Server) -> None:
    answers = await asyncio.gather(*(server.get("/busy_threads") for _ in range(8)))
    assert [response.body for response in answers] == [b"done"] * 8


async def daemon(scope: Scope, receive: Receive, send: Send) -> None:
    """Leaves a thread behind that never ends."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    await answer(send, b"started")


async def test_daemon_thread_does_not_hold_the_end_up(serve: Serve) -> None:
    server = serve(f"{__name__}:app")
    assert (await server.get("/daemon")).body == b"started"
    # The fixture sees to it that SIGTERM ends the server.


# --- Processes ---


async def runs_python(scope: Scope, receive: Receive, send: Send) -> None:
    """The interpreter at sys.executable is one that has the application's packages."""
    code = "import ssl, numpy, sys; print(sys.prefix)"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    await answer(send, done.stdout.decode().strip() == sys.prefix)


async def test_subprocess_runs_the_same_python(server: Server) -> None:
    assert (await server.get("/runs_python")).json() is True


async def child_signals(scope: Scope, receive: Receive, send: Send) -> None:
    """A child must be as killable as one of a plain Python."""
    code = """if True:
        import json, signal
        blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        ignored = [n for n in (1, 2, 3, 13, 15) if signal.getsignal(n) == signal.SIG_IGN]
        print(json.dumps([blocked, ignored]))
    """
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    sleeper = subprocess.Popen(["sleep", "600"])
    sleeper.terminate()
    code_of_sleeper = await asyncio.to_thread(sleeper.wait)
    await answer(send, [json.loads(done.stdout), code_of_sleeper])


async def test_subprocess_has_ordinary_signals(server: Server) -> None:
    # Python ignores SIGPIPE (13) itself, and the shell SIGQUIT (3) for what runs in its background.
    ignored = [13] if signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL else [3, 13]
    assert (await server.get("/child_signals")).json() == [[[], ignored], -signal.SIGTERM]


async def async_process(scope: Scope, receive: Receive, send: Send) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "print(input()[::-1])",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate(b"olleh\n")
    await answer(send, [out.decode().strip(), process.returncode])


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_asyncio_subprocesses_work(serve: Serve, loop: str) -> None:
    server = serve(f"{__name__}:app", loop=loop)
    for _ in range(2):
        assert (await server.get("/async_process")).json() == ["hello", 0]


def square(number: int) -> int:
    return number * number


async def pools(scope: Scope, receive: Receive, send: Send) -> None:
    method = scope["path"].split("/")[2]
    context = multiprocessing.get_context(method)
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        await answer(send, await loop.run_in_executor(pool, square, 7))


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
async def test_process_pools_work(server: Server, method: str) -> None:
    assert (await server.get(f"/pools/{method}")).json() == 49


# --- Output ---


async def says(scope: Scope, receive: Receive, send: Send) -> None:
    print("printed été")
    sys.stdout.flush()
    print("to stderr été", file=sys.stderr)
    logging.getLogger("of.the.app").warning("a warning été")
    logging.getLogger("of.the.app").info("too unimportant")
    os.write(1, b"bare write\n")
    await answer(send, b"")


async def test_output_goes_where_the_servers_goes(server: Server) -> None:
    assert (await server.get("/says")).status == 200
    await eventually(lambda: "printed été" in server.output)
    assert "bare write" in server.output
    await eventually(lambda: "to stderr été" in server.fresh_log)
    await eventually(lambda: "a warning été" in server.fresh_log)
    assert "too unimportant" not in server.fresh_log


LOGGING = """
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s:%(name)s:%(message)s")
logging.getLogger("main").info("imported")
print("printed and not flushed")
import atexit
atexit.register(print, "at exit")

async def app(scope, receive, send):
    logging.getLogger("main").info("asked for %s", scope["type"])
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"""


async def test_logging_of_the_application_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(LOGGING)
    with serve("main:app", app_dir=tmp_path, lifespan="off") as server:
        assert (await server.get("/")).status == 200
        assert "INFO:main:imported" in server.log
        await eventually(lambda: "INFO:main:asked for http" in server.log)
        server.signal(signal.SIGTERM)
        await server.exit_code()
        if UNDER_TEST == UVICORN:
            return  # it dies by the signal
        # The interpreter is finalised in order: buffers are written, atexit functions run.
        assert "printed and not flushed" in server.output
        assert "at exit" in server.output


# --- Signals ---

SIGNALS = """
import signal
signal.signal(signal.{name}, lambda *_: None)

async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body"}})
"""


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGINT", "SIGTERM", "SIGCHLD"])
async def test_signal_handler_set_at_import_does_no_harm(tmp_path: Path, name: str) -> None:
    (tmp_path / "main.py").write_text(SIGNALS.format(name=name))
    with serve("main:app", app_dir=tmp_path, lifespan="off") as server:
        assert (await server.get("/")).status == 200
        server.signal(signal.SIGTERM)
        await server.exit_code()


async def handler(scope: Scope, receive: Receive, send: Send) -> None:
    """What libraries do on start-up: it may be refused, but in the ways asyncio documents."""
    with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    await answer(send, b"alive")


async def test_signal_handlers_of_the_loop_do_no_harm(serve: Serve) -> None:
    server = serve(f"{__name__}:app")
    assert (await server.get("/handler")).body == b"alive"
    assert (await server.get("/threads")).status == 200


# --- Modes of the interpreter ---


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("env", [{"PYTHONDEVMODE": "1"}, {"PYTHONASYNCIODEBUG": "1", "PYTHONMALLOC": "debug"}])
async def test_development_mode_finds_no_fault(loop: str, env: dict[str, str]) -> None:
    """Debugging allocators, asyncio's debug mode, warnings for what is not awaited or closed."""
    with serving.serve(f"{__name__}:app", loop=loop, env=env) as server:
        async with await Http1Connection.open(server.port) as connection:
            for _ in range(3):
                assert (await connection.get("/threads")).status == 200
                assert (await connection.post("/reads", b"x" * 500_000)).json() == 500_000
            leaving = await connection.start("POST", "/reads", upload=True)
            await leaving.send(b"x")
        server.signal(signal.SIGTERM)
        await server.exit_code()
        for word in ["Warning", "Traceback", "never awaited", "Error"]:
            assert word not in server.log


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    size = 0
    more = True
    while more:
        message = await asyncio.wait_for(receive(), 60)
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    await answer(send, size)


# --- Settings ---


async def variable(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, [os.environ.get("FROM_FILE"), FROM_FILE])


FROM_FILE = os.environ.get("FROM_FILE")


@unlike_uvicorn("it wants a package of its own for that")
async def test_env_file_is_read_before_the_application_is_imported(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "settings.env"
    path.write_text("# a comment\nFROM_FILE='a value'\n")
    server = serve(f"{__name__}:app", env_file=path)
    assert (await server.get("/variable")).json() == ["a value", "a value"]


app = routes(
    imports,
    extensions_work,
    threads,
    reads,
    busy_threads,
    daemon,
    runs_python,
    child_signals,
    async_process,
    pools,
    says,
    handler,
    variable,
)
