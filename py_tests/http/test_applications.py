"""The kinds of applications: functions, objects, those of ASGI 2, and what makes them."""

import functools
import importlib
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

import aiovoy
from py_tests.harness.apps import Receive, Scope, Send, answer, read
from py_tests.harness.deadline import eventually
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.serving import Serve, unlike_uvicorn


class Asgi2:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        await answer(send, b"ASGI 2 class " + await read(receive))


def asgi2_function(scope: Scope) -> Any:
    assert scope["type"] == "http"

    async def instance(receive: Receive, send: Send) -> None:
        await answer(send, b"ASGI 2 function " + await read(receive))

    return instance


class Callable3:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"object " + await read(receive))

    async def method(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"method " + await read(receive))


async def greets(greeting: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, greeting + await read(receive))


callable3 = Callable3()
partial = functools.partial(greets, b"partial ")


def passes_on(*args: Any) -> Any:
    return callable3(*args)


def passes_on_to_asgi2(*args: Any) -> Any:
    return asgi2_function(*args)


async def takes_any(*args: Any) -> None:
    await callable3(*args)


def passes_on_to_any(*args: Any) -> Any:
    return takes_any(*args)


def unpacks(*args: Any) -> Any:
    scope, receive, send = args
    return callable3(scope, receive, send)


def unpacks_for_asgi2(*args: Any) -> Any:
    (scope,) = args
    return asgi2_function(scope)


class Asgi2TakesAny(Asgi2):
    def __init__(self, *args: Any) -> None:
        self.scope = args[0]


class Asgi2PassesOn:
    def __init__(self, *args: Any) -> None:
        self.args = args

    def __call__(self, receive: Receive, send: Send) -> Any:
        return Asgi2(*self.args)(receive, send)


def mistaken(scope: Scope, *rest: Any) -> Any:
    receive, send = rest
    return callable3(scope["no such"], receive, send)


taken_for_asgi2 = unlike_uvicorn("uvicorn takes it for ASGI 2")


@pytest.mark.parametrize(
    ("app", "greeting"),
    [
        ("Asgi2", b"ASGI 2 class"),
        ("asgi2_function", b"ASGI 2 function"),
        ("callable3", b"object"),
        pytest.param("callable3.method", b"method", marks=taken_for_asgi2),
        pytest.param("partial", b"partial", marks=taken_for_asgi2),
        pytest.param("passes_on", b"object", marks=taken_for_asgi2),
        ("passes_on_to_asgi2", b"ASGI 2 function"),
        pytest.param("takes_any", b"object", marks=taken_for_asgi2),
        pytest.param("passes_on_to_any", b"object", marks=taken_for_asgi2),
        pytest.param("unpacks", b"object", marks=taken_for_asgi2),
        ("unpacks_for_asgi2", b"ASGI 2 function"),
        pytest.param("Asgi2TakesAny", b"ASGI 2 class", marks=taken_for_asgi2),
        pytest.param("Asgi2PassesOn", b"ASGI 2 class", marks=taken_for_asgi2),
    ],
)
@pytest.mark.conforms("core.asgi2", on=["http/1.1"])
async def test_application_may_be(serve: Serve, app: str, greeting: bytes) -> None:
    server = serve(f"{__name__}:{app}")
    async with await Http1Connection.open(server.port) as connection:
        response = await connection.post("/", b"and body")
    assert response.body == greeting + b" and body"


def factory() -> Callable3:
    print("factory called")
    return Callable3()


async def test_factory_makes_the_application_once(serve: Serve) -> None:
    server = serve(factory, factory=True, env={"PYTHONUNBUFFERED": "1"})
    async with await Http1Connection.open(server.port) as connection:
        for _ in range(3):
            assert (await connection.post("/", b"x")).body == b"object x"
    assert server.output.count("factory called") == 1


def factory_that_takes_any(*args: Any, **kwargs: Any) -> Callable3:
    return factory()


async def test_factory_that_takes_any_arguments_makes_the_application_once(serve: Serve) -> None:
    server = serve(factory_that_takes_any, env={"PYTHONUNBUFFERED": "1"})
    async with await Http1Connection.open(server.port) as connection:
        for _ in range(3):
            assert (await connection.post("/", b"x")).body == b"object x"
    assert server.output.count("factory called") == 1


def wsgi(environ: Any, start_response: Any) -> None: ...


def passes_on_to_wsgi(*args: Any) -> Any:
    return wsgi(*args)


@unlike_uvicorn("it says less")
async def test_error_of_a_wsgi_application_that_takes_any_arguments_names_it(serve: Serve) -> None:
    server = serve(passes_on_to_wsgi)
    assert (await server.get("/")).status == 500
    told = r"TypeError: wsgi\(\) missing .*\n`\S+:passes_on_to_wsgi` .* if it is a WSGI application"
    await eventually(lambda: re.search(told, server.log))


async def test_what_fails_first_is_told(serve: Serve) -> None:
    """Though the application is tried as another kind then, and fails otherwise."""
    server = serve(mistaken)
    assert (await server.get("/")).status == 500
    await eventually(lambda: "KeyError: 'no such'\n" in server.log)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A zip archive with an application."""
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundled/__init__.py", "from .greeting import app")
        archive.writestr("bundled/greeting.py", GREETING)
    return path


GREETING = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": __file__.encode()})
"""


async def test_zip_archive(serve: Serve, bundle: Path, tmp_path: Path) -> None:
    server = serve("bundled:app", app_dir="bundle.zip", cwd=tmp_path, lifespan="off")
    assert (await server.get("/")).body == bytes(bundle / "bundled" / "greeting.py")


@unlike_uvicorn("this is about aiovoy.Server")
async def test_application_object_from_a_zip_archive(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(bundle)
    app = importlib.import_module("bundled").app
    async with (
        aiovoy.Server(app, port=0, lifespan="off") as server,
        await Http1Connection.open(server.port) as connection,
    ):
        assert (await connection.get("/")).body == bytes(bundle / "bundled" / "greeting.py")
