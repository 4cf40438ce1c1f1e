"""An application that cannot be had: the server says what it looked for and where, and ends."""

import re
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
    "factory that wants arguments": Case(
        "main:make", ["main:make", "without arguments"], {"main.py": "def make(debug): ...\n"}, factory=True
    ),
    "application that is called a factory": Case(
        "main:app", ["main:app", "without arguments", "hint: without --factory"], {"main.py": APP}, factory=True
    ),
    "factory that gives no application": Case(
        "main:make", ["main:make"], {"main.py": "def make(): return None\n"}, factory=True
    ),
    "factory that is not callable": Case("main:make", ["main:make", "str"], {"main.py": "make = 'me'\n"}, factory=True),
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
    "application that is called a factory",
    "factory that gives no application",
    "factory that is not callable",
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


@unlike_uvicorn("it shows its own frames")
@pytest.mark.parametrize(
    ("text", "report"),
    [
        (
            "def check():\n    raise LookupError('here')\n\ncheck()\n",
            """
            application `main:app` could not be imported
            Traceback (most recent call last):
              File "{file}", line 4, in <module>
                check()
              File "{file}", line 2, in check
                raise LookupError('here')
            LookupError: here
            """,
        ),
        (
            "async def app(scope, receive, send) ...\n",
            """
            application `main:app` could not be imported
              File "{file}", line 1
                async def app(scope, receive, send) ...
            SyntaxError: expected ':'
            """,
        ),
        (
            "import sys\nsys.exit(3)\n",
            """
            application `main:app` exited
            Traceback (most recent call last):
              File "{file}", line 2, in <module>
                sys.exit(3)
            SystemExit: 3
            """,
        ),
    ],
    ids=["exception", "syntax", "exit"],
)
async def test_error_shows_only_the_applications_side_of_the_traceback(tmp_path: Path, text: str, report: str) -> None:
    (tmp_path / "main.py").write_text(text)
    with launch("main:app", app_dir=tmp_path) as server:
        assert await server.exit_code() == 1
        # Which of the marks below a line there are depends on the version of Python.
        lines = [line for line in server.log.splitlines() if not re.fullmatch(r"[ ^~]+", line)]
        shown = textwrap.dedent(report).strip().format(file=tmp_path / "main.py")
        assert re.fullmatch(r"\[[-\d]+ [\d:.]+\] \[error\] " + re.escape(shown), "\n".join(lines))


WSGI = {
    "function": "def app(environ, start_response): ...\n",
    "function with a default": "def app(environ, start_response, exc_info=None): ...\n",
    "class": "class app:\n    def __init__(self, environ, start_response): ...\n",
    "object": "class App:\n    def __call__(self, env, start): ...\n\napp = App()\n",
    "wrapped": textwrap.dedent("""
        import functools

        def application(environ, start_response): ...

        @functools.wraps(application)
        def app(*args, **kwargs): ...
        """),
    "made by a factory": "def app(*args): return lambda environ, start_response: ...\n",
}


@unlike_uvicorn("it has an option for WSGI")
@pytest.mark.parametrize("text", WSGI.values(), ids=WSGI)
async def test_wsgi_application_is_told_from_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "main.py").write_text(text)
    with launch("main:app", app_dir=tmp_path) as server:
        assert await server.exit_code() == 1
        assert re.search(
            "`main:app`(?: makes)? is a WSGI application, and only ASGI applications are served\nhint: ", server.log
        )


ASGI = {
    "ASGI 3, with defaults": "async def app(scope=None, receive=None, send=None): ...\n",
    "ASGI 3, with one more": "async def app(scope, receive, send, debug=False): ...\n",
    "ASGI 3, not async": "def app(scope, receive, send): ...\n",
    "ASGI 3, whatever the arguments": "def app(*args, **kwargs): ...\n",
    "ASGI 3, whatever the arguments, async": "async def app(*args, **kwargs): ...\n",
    "ASGI 3, behind a function": "def app(*args): return serve(*args)\n",
    "ASGI 3, behind one that looks at the scope": "def app(*args): return print(args[0]) or serve(*args)\n",
    "ASGI 3, an object": "class App:\n    async def __call__(self, scope, receive, send): ...\n\napp = App()\n",
    "ASGI 2": "def app(scope): ...\n",
    "ASGI 2, with a default": "def app(scope, settings=None): ...\n",
    "ASGI 2, a class": "class app:\n    def __init__(self, scope): ...\n",
}

FACTORIES = {
    "with defaults": "def app(debug=False, name='shop', more=()): return serve\n",
    "without arguments": "def app(): return serve\n",
    "a class": "class app:\n    async def __call__(self, scope, receive, send): ...\n",
    "whatever the arguments": "def app(*args, **kwargs): return serve\n",
    "a class, whatever the arguments": (
        "class app:\n    def __init__(self, *args): ...\n    async def __call__(self, scope, receive, send): ...\n"
    ),
}

WARNING = "[warning] `main:app` is called to make the application: say so by --factory"


@unlike_uvicorn("it makes less of them")
@pytest.mark.parametrize("text", [*ASGI.values(), *FACTORIES.values()], ids=[*ASGI, *FACTORIES])
async def test_what_can_be_served_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "main.py").write_text("async def serve(scope, receive, send): ...\n\n" + text)
    with launch("main:app", app_dir=tmp_path, lifespan="off") as server:
        server.wait_until_started()
        assert (WARNING in server.log) == (text in FACTORIES.values())


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
