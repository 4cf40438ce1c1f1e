"""The interpreter that an application finds itself in: its options, its paths, its variables."""

import asyncio
import contextlib
import json
import locale
import os
import site
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import aiovoy
from py_tests.harness.apps import Receive, Scope, Send, answer, routes
from py_tests.harness.folders import ROOT
from py_tests.harness.serving import (
    AIOVOY,
    ENVOY,
    OWN,
    Serve,
    Server,
    clean_environment,
    command,
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
def started(words: list[str], env: dict[str, str] | None = None) -> Iterator[Server]:
    server = Server(words, AIOVOY, ROOT, env or {})
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


KINDS = pytest.mark.parametrize("options", [{"front": ENVOY}, {"front": OWN, "workers": 1}], ids=[ENVOY, OWN])
"""Both kinds of workers."""

WRAPPER = """
import sys
sys.path[:0] = {folders}
from aiovoy.__main__ import main
main()
"""


async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
    import bundled  # type: ignore[import-not-found]

    await answer(send, [bundled.NAME, sys.path])


@unlike_uvicorn("this is about aiovoy")
@KINDS
async def test_path_of_a_wrapper_holds(tmp_path: Path, options: dict[str, Any]) -> None:
    """As PEX, shiv and `site.addsitedir` make it: only the wrapper knows where anything is, this package included."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "bundled.py").write_text("NAME = 'bundled'\n")
    wrapper = tmp_path / "wrapper.py"
    (folder / "aiovoy").symlink_to(Path(aiovoy.__file__).parent)
    elsewhere = [entry for entry in sys.path if entry != str(ROOT)]
    wrapper.write_text(WRAPPER.format(folders=[str(folder), *elsewhere]))
    python, _, _, *words = command(f"{__name__}:app", AIOVOY, **options)
    with started([python, "-S", str(wrapper), *words]) as server:
        name, path = (await server.get("/wrapped")).json()
    assert name == "bundled"
    assert path.count(str(folder)) == 1
    assert len(path) == len(set(path))


@unlike_uvicorn("this is about aiovoy")
@KINDS
async def test_path_of_a_wrapper_holds_in_its_order(tmp_path: Path, options: dict[str, Any]) -> None:
    """What it has bundled is found before another version of it."""
    for name in ["bundle", "installed"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundled.py").write_text(f"NAME = {name!r}\n")
    wrapper = tmp_path / "wrapper.py"
    # The working directory, too, which is no reason to keep that of the script.
    wrapper.write_text(WRAPPER.format(folders=[str(tmp_path / "bundle"), str(ROOT)]))
    python, _, _, *words = command(f"{__name__}:app", AIOVOY, **options)
    env = {"PYTHONPATH": str(tmp_path / "installed")}
    with started([python, str(wrapper), *words], env=env) as server:
        name, path = (await server.get("/wrapped")).json()
    assert name == "bundle"
    own = [str(tmp_path / "bundle"), str(ROOT), str(tmp_path / "installed")]
    assert [entry for entry in path if entry in own][-3:] == own
    assert str(tmp_path) not in path


SITECUSTOMIZE = """
import os, sys
first, _, rest = os.environ["PYTHONPATH"].partition(os.pathsep)
if {leaves}:
    os.environ["PYTHONPATH"] = rest
sys.customized = os.getpid()
"""


async def customized(scope: Scope, receive: Receive, send: Send) -> None:
    seen = getattr(sys, "customized", None), os.environ["PYTHONPATH"]
    await answer(send, [seen[0] == os.getpid(), seen[1]])


@unlike_uvicorn("this is about aiovoy")
@KINDS
@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
async def test_sitecustomize_of_a_wrapper_runs(tmp_path: Path, options: dict[str, Any], leaves: bool) -> None:
    """As `opentelemetry-instrument` has it run: before version 0.50 or so it takes itself out of PYTHONPATH."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE.format(leaves=leaves))
    words = command(f"{__name__}:app", AIOVOY, **options)
    with started(words, env={"PYTHONPATH": f"{tmp_path}:/elsewhere"}) as server:
        runs, path = (await server.get("/customized")).json()
    assert runs
    assert path == ("/elsewhere" if leaves else f"{tmp_path}:/elsewhere")


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


@unlike_uvicorn("it has the words of its command")
async def test_argv_is_the_servers_command_and_not_envoys(server: Server) -> None:
    assert (await server.get("/interpreter")).json()["argv"] == ["aiovoy", f"{__name__}:app"]


async def child_environment(scope: Scope, receive: Receive, send: Send) -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    await answer(send, json.loads(done.stdout))


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


app = routes(interpreter, wrapped, customized, child_environment)
