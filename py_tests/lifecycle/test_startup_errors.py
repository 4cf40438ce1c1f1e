"""An application that cannot be had: the server says what it looked for and where, and ends."""

import socket
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.serving import launch, unlike_uvicorn


@dataclass(frozen=True)
class Case:
    """An import string, the files it is looked for in, and what the log has to name."""

    app: str
    named: list[str]
    files: dict[str, str]
    factory: bool = False


APP = "async def app(scope, receive, send): ...\n"

CASES = {
    "missing module": Case("nowhere:app", ["nowhere", "{dir}"], {}),
    "missing package": Case("nowhere.main:app", ["nowhere", "{dir}"], {}),
    "missing module of a package": Case(
        "package.nowhere:app", ["package.nowhere", "{dir}"], {"package/__init__.py": ""}
    ),
    "missing attribute": Case("main:application", ["application", "main.py"], {"main.py": APP}),
    "missing attribute of an attribute": Case("main:app.asgi", ["app.asgi"], {"main.py": APP}),
    "syntax error": Case("main:app", ["SyntaxError", "main.py", "line 2"], {"main.py": APP + "def broken(:\n"}),
    "import that raises": Case(
        "main:app",
        ["Traceback", "main.py", "line 1", "LookupError", "no such setting"],
        {"main.py": "raise LookupError('no such setting')\n"},
    ),
    "import that misses a dependency": Case(
        "main:app",
        ["Traceback", "main.py", "ModuleNotFoundError", "dependency_that_is_missing"],
        {"main.py": "import dependency_that_is_missing\n"},
    ),
    "import that misses a name": Case(
        "main:app",
        ["Traceback", "main.py", "ImportError", "frobnicate"],
        {"main.py": "from asyncio import frobnicate\n"},
    ),
    "import that exits": Case("main:app", ["SystemExit", "main.py"], {"main.py": "import sys\nsys.exit(3)\n"}),
    "import with a decorator that raises": Case(
        "main:app",
        ["Traceback", "in decorate", "ZeroDivisionError"],
        {
            "main.py": textwrap.dedent("""
                def decorate(function):
                    return function(1 / 0)

                @decorate
                async def app(scope, receive, send): ...
            """)
        },
    ),
    "not callable": Case("main:app", ["main:app", "int"], {"main.py": "app = 42\n"}),
    "a module": Case("main:app", ["main:app", "module"], {"main.py": "import asyncio as app\n"}),
    "factory that raises": Case(
        "main:make",
        ["Traceback", "main.py", "in make", "LookupError", "no such setting"],
        {"main.py": "def make():\n    raise LookupError('no such setting')\n"},
        factory=True,
    ),
    "factory that wants arguments": Case("main:app", ["TypeError", "app()"], {"main.py": APP}, factory=True),
    "factory that gives no application": Case(
        "main:make", ["main:make"], {"main.py": "def make(): return None\n"}, factory=True
    ),
    "factory that is not callable": Case("main:make", ["main:make", "str"], {"main.py": "make = 'me'\n"}, factory=True),
    "factory that is not called one": Case(
        "main:make", ["main:make", "--factory"], {"main.py": APP + "def make(debug=False, **more): return app\n"}
    ),
    "class whose objects are applications": Case(
        "main:App",
        ["main:App", "--factory"],
        {"main.py": "class App:\n    async def __call__(self, scope, receive, send): ...\n"},
    ),
    "factory that is asynchronous": Case(
        "main:make", ["main:make", "asynchronous"], {"main.py": "async def make(debug=False): ...\n"}, factory=True
    ),
    "factory that makes a factory": Case(
        "main:make", ["main:make", "no arguments"], {"main.py": "def make(): return make\n"}, factory=True
    ),
    "other arguments": Case(
        "main:app", ["main:app", "scope, receive and send"], {"main.py": "async def app(request, response): ...\n"}
    ),
    "no attribute named": Case("main", ["main"], {"main.py": APP}),
    "no module named": Case(":app", [":app"], {"main.py": APP}),
    "a file name": Case("main.py", ["main.py"], {"main.py": APP}),
}

# uvicorn starts with some of these, and says less about others.
UNLIKE_UVICORN = {
    "missing module",
    "missing package",
    "missing module of a package",
    "missing attribute",
    "import that exits",
    "not callable",
    "a module",
    "factory that wants arguments",
    "factory that gives no application",
    "factory that is not callable",
    "factory that is not called one",
    "class whose objects are applications",
    "factory that is asynchronous",
    "factory that makes a factory",
    "other arguments",
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[unlike_uvicorn("it says less")] if name in UNLIKE_UVICORN else [])
        for name, case in CASES.items()
    ],
)
async def test_bad_application_is_named_and_ends_the_server(case: Case, tmp_path: Path) -> None:
    for name, text in case.files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    options: dict[str, Any] = {"factory": True} if case.factory else {}
    with launch(case.app, app_dir=tmp_path, **options) as server:
        assert await server.exit_code() > 0
        for word in case.named:
            assert word.format(dir=tmp_path) in server.log
        assert "running on" not in server.log
        assert not server.processes()


async def test_error_shows_only_the_applications_side_of_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def check():\n    raise LookupError('here')\n\ncheck()\n")
    with launch("main:app", app_dir=tmp_path) as server:
        assert await server.exit_code() > 0
        assert "LookupError: here" in server.log
        assert f'File "{tmp_path}/main.py", line 4, in <module>' in server.log
        assert f'File "{tmp_path}/main.py", line 2, in check' in server.log


@unlike_uvicorn("it shows its own frames")
async def test_missing_attribute_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    with launch("main:application", app_dir=tmp_path) as server:
        assert await server.exit_code() > 0
        assert "Traceback" not in server.log


@unlike_uvicorn("it looks elsewhere, too")
async def test_missing_app_dir_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with launch("main:app", app_dir=missing) as server:
        assert await server.exit_code() > 0
        assert str(missing) in server.log
        assert not server.processes()


async def test_port_in_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with launch("main:app", app_dir=tmp_path, port=port, lifespan="off") as server:
            assert await server.exit_code() > 0
            assert str(port) in server.log
            assert "in use" in server.log
            assert not server.processes()


@unlike_uvicorn("it takes some of these")
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("port", "eighty"),
        ("port", "65536"),
        ("loop", "trio"),
        ("lifespan", "maybe"),
        ("timeout_graceful_shutdown", "soon"),
        ("unknown_option", "1"),
    ],
)
async def test_bad_option_is_named(tmp_path: Path, option: str, value: str) -> None:
    (tmp_path / "main.py").write_text(APP)
    options: dict[str, Any] = {option: value}
    with launch("main:app", app_dir=tmp_path, **options) as server:
        assert await server.exit_code() > 0
        assert "--" + option.replace("_", "-") in server.log
