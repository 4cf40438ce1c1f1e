"""`--uds`: serving on a Unix domain socket."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.certificates import Pair, client_context
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.serving import Serve, launch, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("it leaves its file behind")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, [scope["client"], scope["server"], scope["scheme"]])


@pytest.fixture
def path() -> Iterator[Path]:
    """In a folder of its own: `tmp_path` may be longer than the path of a socket can be."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "shop.sock")


def ask(path: Path, scheme: str = "http", http2: bool = False) -> object:
    transport = httpx.HTTPTransport(uds=str(path), verify=client_context(), http1=not http2, http2=http2)
    with httpx.Client(transport=transport, timeout=DEADLINE) as client:
        answered = client.get(f"{scheme}://localhost/")
    assert answered.status_code == 200
    return answered.json()


@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
@pytest.mark.conforms("http.scope.client", "http.scope.server", on=["http/1.1", "http/2"])
def test_requests_come_over_the_socket(serve: Serve, path: Path, http2: bool) -> None:
    server = serve(app, uds=path, port=None, lifespan="off")
    assert f"running on unix:{path} (" in server.log
    assert ask(path, http2=http2) == [None, [str(path), None], "http"]


def test_file_is_gone_when_the_server_is(path: Path) -> None:
    with launch(app, uds=path, lifespan="off") as server:
        server.wait_until_started()
        assert path.is_socket()
    assert not path.exists()


@pytest.mark.parametrize(("options", "mode"), [({}, 0o666), ({"uds_permissions": "600"}, 0o600)])
def test_permissions(serve: Serve, path: Path, options: dict[str, str], mode: int) -> None:
    serve(app, uds=path, lifespan="off", **options)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_socket_that_nobody_listens_on_is_replaced(serve: Serve, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    serve(app, uds=path, lifespan="off")
    ask(path)


async def test_socket_of_another_server_is_left_alone(serve: Serve, path: Path) -> None:
    serve(app, uds=path, lifespan="off")
    with launch(app, uds=path, lifespan="off") as second:
        assert await second.exit_code() == 1
        assert f"error: cannot listen on `{path}`: address already in use" in second.log
    ask(path)


async def test_two_that_start_together_are_told_apart(path: Path) -> None:
    with launch(app, uds=path, lifespan="off") as one, launch(app, uds=path, lifespan="off") as other:
        await eventually(lambda: any(server.process.poll() is not None for server in (one, other)))
        loser, winner = (one, other) if one.process.poll() is not None else (other, one)
        assert await loser.exit_code() == 1
        assert f"cannot listen on `{path}`: address already in use" in loser.log
        winner.wait_until_started()
        assert ask(path)


async def test_file_of_another_kind_is_left_alone(path: Path) -> None:
    path.write_text("mine")
    with launch(app, uds=path, lifespan="off") as server:
        assert await server.exit_code() == 1
        assert f"error: cannot listen on `{path}`: there is a file that is no socket" in server.log
    assert path.read_text() == "mine"


async def test_folder_that_is_missing_is_named(path: Path) -> None:
    folder = path.parent / "nowhere"
    path = folder / "shop.sock"
    with launch(app, uds=path, lifespan="off") as server:
        assert await server.exit_code() == 1
        assert f"error: cannot listen on `{path}`: there is no folder `{folder}`" in server.log


async def test_path_that_is_too_long_is_named() -> None:
    path = Path("/tmp") / ("x" * 200)
    with launch(app, uds=path, lifespan="off") as server:
        assert await server.exit_code() == 1
        assert f"error: cannot listen on `{path}`: the path has 205 bytes, and 107 are the most" in server.log


def test_relative_path_is_below_the_working_directory(serve: Serve, path: Path) -> None:
    serve(app, uds=path.name, cwd=path.parent, lifespan="off")
    ask(path)


@of_envoy("it has no TLS")
def test_tls_over_the_socket(serve: Serve, path: Path, pair: Pair) -> None:
    serve(app, uds=path, lifespan="off", **pair.options)
    assert ask(path, "https") == [None, [str(path), None], "https"]


@of_envoy("it has no TLS")
async def test_port_beside_the_socket(serve: Serve, path: Path, pair: Pair) -> None:
    server = serve(app, uds=path, lifespan="off", ssl_port=0, **pair.options)
    assert f"running on unix:{path} and https://127.0.0.1:{server.ssl_port} (" in server.log
    assert os.path.exists(path)
    ask(path)
    with httpx.Client(verify=client_context(), timeout=DEADLINE) as client:
        assert client.get(f"https://127.0.0.1:{server.ssl_port}/").status_code == 200
