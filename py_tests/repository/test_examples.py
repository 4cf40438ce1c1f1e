"""The applications in examples/, served as their first lines say."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import Connection
from py_tests.harness.folders import EXAMPLES
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, http3_options
from py_tests.harness.serving import UNDER_TEST, UVICORN, Server, serve, unlike_uvicorn
from py_tests.harness.ws_client import dial


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The example that the test names by `of`; one server for all tests of it."""
    http3 = request.param in ("echo", "chat") and UNDER_TEST != UVICORN
    options = http3_options(request.getfixturevalue("pair")) if http3 else {}
    with serve(f"{request.param}:app", app_dir=EXAMPLES, **options) as server:
        yield server


def of(example: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", [example], indirect=True)


@pytest.fixture
async def connection(server: Server, connect: Connect) -> Connection:
    return await connect(server)


def http_version(protocol: str) -> str:
    return protocol.removeprefix("http/")


def test_each_example_is_tested() -> None:
    tested = {"hello", "starlette_app", "fastapi_app", "streaming", "echo", "chat"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


@unlike_uvicorn("this is about aiovoy")
def test_tests_of_an_example_cover_it(tmp_path: Path) -> None:
    """They pass by what they override, and only the line in its stead is not run."""
    folder = shutil.copytree(EXAMPLES / "tested", tmp_path / "tested")

    def run(*words: str) -> str:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=3 * DEADLINE, check=True)
        return done.stdout

    assert "3 passed" in run("coverage", "run", "-m", "pytest", "-p", "no:cacheprovider", "-q")
    missing = re.search(r"weather.py .* (\S+)\n", run("coverage", "report", "--show-missing"))
    assert missing is not None
    lines = (folder / "weather.py").read_text().splitlines()
    assert "the weather service does not answer" in lines[int(missing[1]) - 1]


@of("hello")
async def test_hello(connection: Connection) -> None:
    response = await connection.get("/")
    assert response.status == 200
    assert response.header(b"content-type") == b"text/plain"
    assert response.body == b"Hello, world!"


# --- Starlette ---


@of("starlette_app")
async def test_starlette_page_is_friendly(connection: Connection, protocol: str) -> None:
    response = await connection.get("/")
    assert response.status == 200
    assert response.header(b"content-type") == b"text/html; charset=utf-8"
    page = response.body.decode()
    assert "Hello from inside Envoy" in page
    assert f"answered over HTTP/{http_version(protocol)}" in page
    for path in ["/json", "/countdown", "/upload"]:
        assert path in page


@of("starlette_app")
async def test_starlette_has_the_state_of_its_lifespan(connection: Connection, protocol: str) -> None:
    first = (await connection.get("/json")).json()
    assert first["hello"] == "world"
    assert first["http_version"] == http_version(protocol)
    assert (await connection.get("/json")).json()["uptime"] >= first["uptime"] > 0


@of("starlette_app")
async def test_starlette_streams_line_by_line(connection: Connection) -> None:
    exchange = await connection.start("GET", "/countdown")
    assert await exchange.head() == 200
    first = await exchange.chunk()
    assert first.startswith(b"5\n")
    assert b"lift-off" not in first
    assert first + await exchange.rest() == b"5\n4\n3\n2\n1\nlift-off\n"


@of("starlette_app")
@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
async def test_starlette_takes_an_upload(connection: Connection, size: int) -> None:
    body = bytes(range(250)) * (size // 250)
    answer = (await connection.post("/upload", body)).json()
    assert answer == {"bytes": size, "sha256": hashlib.sha256(body).hexdigest()}


@of("starlette_app")
async def test_starlette_refuses_what_it_does_not_know(connection: Connection) -> None:
    assert (await connection.get("/nowhere")).status == 404
    assert (await connection.get("/upload")).status == 405


# --- FastAPI ---

JSON = [(b"content-type", b"application/json")]


@of("fastapi_app")
async def test_fastapi_keeps_notes(connection: Connection) -> None:
    added = await connection.post("/notes", json.dumps({"text": "buy milk"}).encode(), JSON)
    assert added.status == 201
    number = json.loads(added.body)["number"]
    assert (await connection.get(f"/notes/{number}")).json() == {"text": "buy milk"}

    async def logged() -> bool:
        return f"added {number}" in (await connection.get("/log")).json()

    await eventually(logged)


@of("fastapi_app")
async def test_fastapi_refuses_what_is_no_note(connection: Connection) -> None:
    assert (await connection.post("/notes", b'{"text": ""}', JSON)).status == 422
    assert (await connection.get("/notes/0")).status == 404


@of("fastapi_app")
async def test_fastapi_takes_a_form_with_a_file(connection: Connection) -> None:
    body = (
        b'--limit\r\ncontent-disposition: form-data; name="file"; filename="note.txt"\r\n'
        b"content-type: text/plain\r\n\r\nfrom a file\r\n--limit--\r\n"
    )
    added = await connection.post("/notes/file", body, [(b"content-type", b"multipart/form-data; boundary=limit")])
    assert added.status == 201
    number = json.loads(added.body)["number"]
    assert (await connection.get(f"/notes/{number}")).json() == {"text": "from a file"}


@of("fastapi_app")
async def test_fastapi_has_its_documentation(connection: Connection) -> None:
    assert (await connection.get("/docs")).status == 200
    assert (await connection.get("/openapi.json")).json()["info"]["title"] == "Notebook"


# --- Streaming ---


@of("streaming")
async def test_streaming_has_a_page(connection: Connection) -> None:
    assert b"EventSource" in (await connection.get("/")).body
    assert (await connection.get("/nowhere")).status == 404


@of("streaming")
async def test_streaming_sends_events_until_the_client_leaves(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("GET", "/events")
    assert await exchange.head() == 200
    assert dict(exchange.headers)[b"content-type"] == b"text/event-stream"
    received = b""
    while received.count(b"\n\n") < 2:
        received += await exchange.chunk()
    assert received.startswith(b"data: ")
    assert (await server.get("/listeners")).body == b"1\n"
    await exchange.leave()

    async def nobody_listens() -> bool:
        return (await server.get("/listeners")).body == b"0\n"

    await eventually(nobody_listens)
    assert "Traceback" not in server.fresh_log


# --- WebSockets ---

websocket = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)


@websocket
@of("echo")
@pytest.mark.parametrize("message", ["text", b"bytes", "", "\N{WAVING HAND SIGN}" * 20_000])
async def test_echo(connection: Connection, message: str | bytes) -> None:
    socket = await dial(connection, "/")
    await socket.send(message)
    assert await socket.receive() == message
    assert (await socket.close())[0] == 1000


@of("chat")
async def test_chat_has_a_page(connection: Connection) -> None:
    assert b"new WebSocket" in (await connection.get("/")).body


@websocket
@of("chat")
async def test_chat_is_heard_by_all(server: Server, connect: Connect) -> None:
    ada = await dial(await connect(server), "/room?name=Ada")
    assert await ada.receive() == "Ada comes in"
    bob = await dial(await connect(server), "/room?name=Bob")
    assert [await ada.receive(), await bob.receive()] == ["Bob comes in"] * 2
    await bob.send("hello <b>all</b>")
    assert [await ada.receive(), await bob.receive()] == ["Bob: hello <b>all</b>"] * 2
    await bob.leave()
    assert await ada.receive() == "Bob leaves"
    await ada.close()
    assert "Traceback" not in server.fresh_log


@websocket
@of("chat")
async def test_chat_is_not_held_up_by_one(server: Server, connect: Connect) -> None:
    slow = await dial(await connect(server), "/room?name=Slow")
    quick = await dial(await connect(server), "/room?name=Quick")
    assert await quick.receive() == "Quick comes in"
    line = "x" * 100_000
    for _ in range(200):
        await quick.send(line)
        assert await quick.receive() == f"Quick: {line}"
    await slow.leave()
    assert await quick.receive() == "Slow leaves"
    await quick.close()
    assert "Traceback" not in server.fresh_log
