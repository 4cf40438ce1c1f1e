"""The interpreter that an application finds itself in: the one its environment is made for."""

import asyncio
import contextlib
import ctypes
import ctypes.util
import importlib
import json
import locale
import logging
import multiprocessing
import os
import signal
import site
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness import serving
from py_tests.harness.apps import Receive, Scope, Send, answer, routes
from py_tests.harness.deadline import eventually
from py_tests.harness.folders import ROOT
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.serving import (
    AIOVOY,
    UNDER_TEST,
    UVICORN,
    Serve,
    Server,
    clean_environment,
    command,
    of_envoy,
    serve,
    unlike_uvicorn,
)


def facts() -> dict[str, Any]:
    """What an interpreter knows of itself and its surroundings."""
    return {
        "executable": sys.executable,
        "prefix": sys.prefix,
        "exec_prefix": sys.exec_prefix,
        "base_prefix": sys.base_prefix,
        "base_exec_prefix": sys.base_exec_prefix,
        "version": sys.version,
        "platlibdir": sys.platlibdir,
        "path": sys.path,
        "sitepackages": site.getsitepackages(),
        "user_site": site.ENABLE_USER_SITE,
        "filesystem encoding": sys.getfilesystemencoding(),
        "preferred encoding": locale.getpreferredencoding(False),
        "stdout encoding": sys.stdout.encoding if sys.stdout else None,
        "stderr encoding": sys.stderr.encoding if sys.stderr else None,
        "utf8_mode": sys.flags.utf8_mode,
        "dev_mode": sys.flags.dev_mode,
        "optimize": sys.flags.optimize,
        "warnoptions": sys.warnoptions,
        "flags": list(sys.flags),
        "xoptions": sys._xoptions,
        "recursion limit": sys.getrecursionlimit(),
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "umask": _umask(),
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def plain_python(env: dict[str, str] | None = None, options: Sequence[str] = ()) -> dict[str, Any]:
    """The facts as a plain `python` tells them."""
    # Isolated, it has no working directory in its path.
    where = f"import sys; sys.flags.isolated and sys.path.insert(0, {str(ROOT)!r})"
    code = f"{where}; import json; from {__name__} import facts; print(json.dumps(facts()))"
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        env={**clean_environment(), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


async def interpreter(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, {**facts(), "argv": sys.argv})


# --- sys ---


@contextlib.contextmanager
def started(words: list[str], cwd: Path = ROOT) -> Iterator[Server]:
    server = Server(words, AIOVOY, cwd, {})
    try:
        server.wait_until_started()
        yield server
    finally:
        server.stop()


OPTIONS = [
    "-O",
    "-OO",
    "-B",
    "-I",
    "-s",
    "-b",
    "-X dev",
    "-X utf8",
    "-X int_max_str_digits=5000",
    "-W error::UserWarning",
]


@unlike_uvicorn("this is about aiovoy")
@pytest.mark.parametrize("options", [*OPTIONS, f"{' '.join(OPTIONS)} -W ignore::ImportWarning"])
async def test_options_of_the_interpreter_hold(options: str) -> None:
    python, *words = command(f"{__name__}:app", AIOVOY, lifespan="off")
    with started([python, *options.split(), *words]) as server:
        seen = (await server.get("/interpreter")).json()
    plain = plain_python(options=options.split())
    for name in ["flags", "xoptions", "warnoptions", "user_site", "filesystem encoding"]:
        assert seen[name] == plain[name], name
    # Of `-c` the working directory is an empty entry; without Envoy, `-m` has it once more.
    assert list(dict.fromkeys(seen["path"])) == [entry or str(ROOT) for entry in plain["path"]]


WRAPPER = """
import sys
sys.path.append({folder!r})
from aiovoy.__main__ import main
main()
"""


async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
    import bundled  # type: ignore[import-not-found]

    await answer(send, [bundled.NAME, sys.path])


@unlike_uvicorn("this is about aiovoy")
async def test_path_of_a_wrapper_holds(tmp_path: Path) -> None:
    """As PEX, shiv and `site.addsitedir` make it."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "bundled.py").write_text("NAME = 'bundled'\n")
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(WRAPPER.format(folder=str(folder)))
    python, _, _, *words = command(f"{__name__}:app", AIOVOY)
    with started([python, str(wrapper), *words]) as server:
        name, path = (await server.get("/wrapped")).json()
    assert name == "bundled"
    assert path.count(str(folder)) == 1
    assert len(path) == len(set(path))


async def test_interpreter_is_that_of_the_environment(server: Server) -> None:
    seen, plain = (await server.get("/interpreter")).json(), plain_python()
    for name in [
        "executable",
        "prefix",
        "exec_prefix",
        "base_prefix",
        "base_exec_prefix",
        "version",
        "platlibdir",
        "sitepackages",
        "user_site",
        "dev_mode",
        "optimize",
        "recursion limit",
        "umask",
    ]:
        assert seen[name] == plain[name], name


async def test_encodings_are_those_of_plain_python(server: Server) -> None:
    seen, plain = (await server.get("/interpreter")).json(), plain_python()
    for name in [
        "filesystem encoding",
        "preferred encoding",
        "stdout encoding",
        "stderr encoding",
        "utf8_mode",
    ]:
        assert seen[name] == plain[name], name


async def test_sys_path_is_the_app_dir_and_that_of_plain_python(server: Server) -> None:
    seen, plain = (await server.get("/interpreter")).json(), plain_python()
    assert seen["path"][0] == str(ROOT)
    # Plain `python -c` begins with "", the working directory.
    expected = [entry for entry in plain["path"] if entry]
    assert [entry for entry in seen["path"] if entry in expected] == expected


@of_envoy("it is that of the process, as everywhere")
async def test_argv_is_the_servers_command_and_not_envoys(server: Server) -> None:
    argv = (await server.get("/interpreter")).json()["argv"]
    assert argv[1] == f"{__name__}:app"
    assert not {"-c", "--config-path", "--concurrency", "--base-id"} & set(argv)


async def test_environment_variables_are_those_of_the_command(serve: Serve) -> None:
    server = serve(f"{__name__}:app", env={"X_OF_THE_TEST": "été"})
    seen = (await server.get("/interpreter")).json()
    expected = plain_python({"X_OF_THE_TEST": "été"})["environ"]
    assert seen["environ"]["X_OF_THE_TEST"] == "été"
    added = set(seen["environ"]) - set(expected)
    assert not {name for name in added if not name.startswith("AIOVOY_")}
    changed = {name for name in expected if seen["environ"].get(name) != expected[name]}
    assert not changed


@pytest.mark.parametrize("before", [None, "/somewhere/lib"])
async def test_library_path_of_the_user_is_left_alone(serve: Serve, before: str | None) -> None:
    # What the server needs to find libpython is not for the programs that an application starts.
    env = {"LD_LIBRARY_PATH": before} if before else {}
    server = serve(f"{__name__}:app", env=env)
    seen = (await server.get("/interpreter")).json()["environ"]
    expected = before or os.environ.get("LD_LIBRARY_PATH")
    assert seen.get("LD_LIBRARY_PATH") == expected
    child = (await server.get("/child_environment")).json()
    assert child.get("LD_LIBRARY_PATH") == expected
    for name in ["LD_PRELOAD", "PYTHONHOME", "PYTHONPATH"]:
        assert seen.get(name) == os.environ.get(name)
        assert child.get(name) == os.environ.get(name)


async def test_python_variables_are_honoured(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "found_by_pythonpath.py").write_text("")
    env = {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "ignore::ImportWarning"}
    server = serve(f"{__name__}:app", env=env)
    seen = (await server.get("/interpreter")).json()
    assert str(tmp_path) in seen["path"]
    assert seen["warnoptions"] == ["ignore::ImportWarning"]


# --- Where the application is found ---

MAIN = """
import json, os, sys

async def app(scope, receive, send):
    import neighbour
    seen = {"cwd": os.getcwd(), "path": sys.path[0], "file": __file__, "name": __name__}
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
"""


async def test_app_dir_is_the_working_directory_by_default(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "neighbour.py").write_text("")
    server = serve("main:app", cwd=tmp_path, app_dir=None, lifespan="off")
    seen = (await server.get("/")).json()
    assert Path(seen["cwd"]) == tmp_path
    assert Path(seen["file"]) == tmp_path / "main.py"
    assert seen["name"] == "main"


async def test_app_dir_is_on_the_path_and_the_working_directory_stays(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "main.py").write_text(MAIN)
    (folder / "neighbour.py").write_text("")
    server = serve("main:app", cwd=tmp_path, app_dir="a folder", lifespan="off")
    seen = (await server.get("/")).json()
    assert Path(seen["cwd"]) == tmp_path
    assert Path(tmp_path, seen["path"]) == folder


async def test_application_may_be_in_a_package(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner" / "main.py").write_text(
        "from ..sibling import name\n" + MAIN.replace("import neighbour", "assert name == 'sib'")
    )
    (tmp_path / "package" / "sibling.py").write_text("name = 'sib'\n")
    server = serve("package.inner.main:app", cwd=tmp_path, app_dir=None, lifespan="off")
    assert (await server.get("/")).json()["name"] == "package.inner.main"


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


async def child_environment(scope: Scope, receive: Receive, send: Send) -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    await answer(send, json.loads(done.stdout))


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
    assert (await server.get("/interpreter")).status == 200


# --- Modes of the interpreter ---


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("env", [{"PYTHONDEVMODE": "1"}, {"PYTHONASYNCIODEBUG": "1", "PYTHONMALLOC": "debug"}])
async def test_development_mode_finds_no_fault(loop: str, env: dict[str, str]) -> None:
    """Debugging allocators, asyncio's debug mode, warnings for what is not awaited or closed."""
    with serving.serve(f"{__name__}:app", loop=loop, env=env) as server:
        async with await Http1Connection.open(server.port) as connection:
            for _ in range(3):
                assert (await connection.get("/interpreter")).status == 200
                assert (await connection.post("/reads", b"x" * 500_000)).json() == 500_000
            leaving = await connection.start("POST", "/reads", upload=True)
            await leaving.send(b"x")
        assert (await server.get("/threads")).status == 200
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
    wrapped,
    interpreter,
    imports,
    extensions_work,
    threads,
    reads,
    busy_threads,
    daemon,
    child_environment,
    runs_python,
    child_signals,
    async_process,
    pools,
    says,
    handler,
    variable,
)
