"""Files as response bodies: `http.response.pathsend` and `http.response.zerocopysend`."""

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, routes, start
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Headers, ResponseCut
from py_tests.harness.protocols import HTTP1, HTTP2, Connect, every_protocol
from py_tests.harness.serving import Server, unlike_uvicorn

pytestmark = unlike_uvicorn("it has neither")
conforms = pytest.mark.conforms

MEGABYTE = 1024 * 1024
# Around the sizes at which buffers end, and one that fills them all.
SIZES = [0, 1, 16 * 1024, 64 * 1024 - 1, 64 * 1024 + 1, 3 * MEGABYTE]


def content(size: int) -> bytes:
    return (b"%07d," % size * (size // 8 + 1))[:size]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "0123456789.txt"
    path.write_bytes(b"0123456789")
    return path


def naming(path: Path, **others: int) -> Headers:
    """Headers that tell the application which file to send."""
    return [(b"x-path", bytes(path)), *((b"x-" + name.encode(), b"%d" % value) for name, value in others.items())]


def path_of(scope: Scope) -> str:
    return os.fsdecode(dict(scope["headers"])[b"x-path"])


def number_of(scope: Scope, name: str) -> int:
    return int(dict(scope["headers"])[b"x-" + name.encode()])


async def pathsend(send: Send, path: Any) -> None:
    await send({"type": "http.response.pathsend", "path": path})


async def zerocopysend(send: Send, file: Any, **keys: Any) -> None:
    await send({"type": "http.response.zerocopysend", "file": file, **keys})


async def tries(scope: Scope, send: Send, type: str, **keys: Any) -> None:
    """Sends, and notes what came of it."""
    try:
        await send({"type": f"http.response.{type}", **keys})
    except OSError:
        note(scope, "OSError")
    except Exception:
        note(scope, "another error")
    else:
        note(scope, "sent")


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


# --- By path ---


async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await pathsend(send, path_of(scope))
    note(scope, (await receive())["type"])


async def by_path_with_length(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    await start(send, headers=[(b"content-length", b"%d" % os.path.getsize(path))])
    await pathsend(send, path)


@conforms("pathsend.sent", "pathsend.headers")
@every_protocol
@pytest.mark.parametrize("app", [by_path, by_path_with_length])
@pytest.mark.parametrize("size", SIZES)
async def test_file_is_sent_whole(server: Server, connect: Connect, tmp_path: Path, app: Any, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(size))
    connection = await connect(server)
    response = await connection.get(f"/{app.__name__}", naming(path))
    assert (response.status, response.body) == (200, content(size))
    if app is by_path_with_length:
        assert response.header(b"content-length") == b"%d" % size
    if connection.protocol != "http/1.0":
        assert (await connection.get("/plain")).body == b"plain"


@conforms("pathsend.sent")
async def test_file_ends_the_response(server: Server, connect: Connect, key: str, file: Path) -> None:
    assert (await (await connect(server)).get(f"/by_path?{key}", naming(file))).body == b"0123456789"
    assert await server.noted(key, "http.disconnect") == ["http.disconnect"]


@conforms("pathsend.sent")
async def test_file_may_have_any_name(server: Server, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "a space, ünd sö %20 on?#"
    path.write_bytes(b"found")
    # In the query, since HTTP/3 lets no such bytes into headers.
    response = await (await connect(server)).get(f"/by_query?{bytes(path).hex()}")
    assert response.body == b"found"


async def by_query(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await pathsend(send, os.fsdecode(bytes.fromhex(scope["query_string"].decode())))


async def head_or_304(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    status = 200 if scope["method"] == "HEAD" else int(scope["path"].split("/")[2])
    headers = [] if status == 204 else [(b"content-length", b"%d" % os.path.getsize(path))]
    await start(send, status, headers)
    await pathsend(send, path)


@conforms("pathsend.headers", "http.response.no_body")
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
async def test_no_file_where_no_body_may_be(
    server: Server, connect: Connect, file: Path, method: str, status: int
) -> None:
    connection = await connect(server)
    response = await connection.request(method, f"/head_or_304/{status}", headers=naming(file))
    assert (response.status, response.body) == (status, b"")
    if method == "HEAD":
        assert response.header(b"content-length") == b"10"
    assert (await connection.get("/plain")).body == b"plain"


async def falls_back(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await tries(scope, send, "pathsend", path=path_of(scope))
    await body(send, b"instead")


@conforms("pathsend.sent")
async def test_missing_file_is_an_os_error(server: Server, connect: Connect, key: str, tmp_path: Path) -> None:
    connection = await connect(server)
    for path in [tmp_path / "missing", tmp_path, tmp_path / "missing" / "deeper", Path("/dev/null/x")]:
        assert (await connection.get(f"/falls_back?{key}", naming(path))).body == b"instead"
    assert await server.notes(key) == ["OSError"] * 4


@conforms("pathsend.sent")
async def test_missing_file_is_a_500(server: Server, connect: Connect, tmp_path: Path) -> None:
    connection = await connect(server)
    response = await connection.get("/by_path", naming(tmp_path / "missing"))
    assert response.status == 500
    assert (await connection.get("/plain")).body == b"plain"
    await eventually(lambda: "FileNotFoundError" in server.fresh_log)


async def test_pipe_is_no_file(server: Server, connect: Connect, key: str, tmp_path: Path) -> None:
    # To open it would take until somebody writes to it.
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert (await (await connect(server)).get(f"/falls_back?{key}", naming(path))).body == b"instead"
    assert await server.notes(key) == ["OSError"]


async def wrong_paths(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    os.chdir(os.path.dirname(path))
    await start(send)
    for wrong in [None, 1, path.encode(), os.path.basename(path), "", "./" + os.path.basename(path), path + "\0"]:
        await tries(scope, send, "pathsend", path=wrong)
    await tries(scope, send, "pathsend")
    await body(send, b"answered")


@conforms("pathsend.sent", "core.wrong_message")
async def test_path_is_absolute_and_text(server: Server, connect: Connect, key: str, file: Path) -> None:
    response = await (await connect(server)).get(f"/wrong_paths?{key}", naming(file))
    assert response.body == b"answered"
    *noted, nul, none = await server.notes(key)
    assert [*noted, none] == ["another error"] * 7
    assert nul != "sent"


async def not_alone(scope: Scope, receive: Receive, send: Send) -> None:
    """Files before, after and between other parts of a body."""
    path = path_of(scope)
    await start(send)
    if scope["path"].endswith("/body"):
        await body(send, b"first, ", more=True)
    else:
        with open(path, "rb") as file:
            await zerocopysend(send, file, count=5, more_body=True)
    await tries(scope, send, "pathsend", path=path)
    await body(send, b"last")


@conforms("pathsend.alone")
@pytest.mark.parametrize(("before", "sent"), [("body", b"first, last"), ("file", b"01234last")])
async def test_path_after_another_body_raises(
    server: Server, connect: Connect, key: str, file: Path, before: str, sent: bytes
) -> None:
    response = await (await connect(server)).get(f"/not_alone/{before}?{key}", naming(file))
    assert response.body == sent
    assert await server.notes(key) == ["another error"]


async def path_and_more(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    await start(send)
    await pathsend(send, path)
    await pathsend(send, path)
    await body(send, b"more")
    with open(path, "rb") as file:
        await zerocopysend(send, file)
    note(scope, "ignored")


@conforms("pathsend.alone", "http.send.end")
async def test_what_follows_a_path_is_ignored(server: Server, connect: Connect, key: str, file: Path) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/path_and_more?{key}", naming(file))).body == b"0123456789"
    assert (await connection.get("/plain")).body == b"plain"
    assert await server.noted(key, "ignored") == ["ignored"]


async def before_start(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    await tries(scope, send, "pathsend", path=path)
    with open(path, "rb") as file:
        await tries(scope, send, "zerocopysend", file=file)
    await answer(send, b"answered")


@conforms("pathsend.alone", "zerocopysend.mixed")
async def test_file_before_the_start_raises(server: Server, connect: Connect, key: str, file: Path) -> None:
    assert (await (await connect(server)).get(f"/before_start?{key}", naming(file))).body == b"answered"
    assert await server.notes(key) == ["another error"] * 2


async def wrong_length(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    await start(send, headers=[(b"content-length", b"%d" % number_of(scope, "length"))])
    with open(path, "rb") as file:
        if scope["path"].endswith("/path"):
            await tries(scope, send, "pathsend", path=path)
        elif scope["path"].endswith("/file"):
            await tries(scope, send, "zerocopysend", file=file)
        else:
            await tries(scope, send, "zerocopysend", file=file, count=os.path.getsize(path))


@conforms("pathsend.headers", "http.response.short", "http.response.long")
@every_protocol
@pytest.mark.parametrize(("how", "off"), [("path", 1), ("file", 1), ("count", 1), ("count", -1)])
@pytest.mark.parametrize("size", [10, 3 * MEGABYTE])
async def test_content_length_holds_for_files(
    server: Server, connect: Connect, key: str, tmp_path: Path, how: str, size: int, off: int
) -> None:
    """Without a count, a file that is longer may have grown: see test_changing_files."""
    path = tmp_path / "file"
    path.write_bytes(content(size))
    connection = await connect(server)
    try:
        response = await connection.get(f"/wrong_length/{how}?{key}", naming(path, length=size + off))
        received = b"" if response.status == 500 else response.body + b"complete"
    except ResponseCut as cut:
        received = cut.body
    # What has left is what the file begins with, and not more than was promised.
    assert content(size).startswith(received)
    assert len(received) <= size + off
    assert await server.noted(key, "another error") == ["another error"]
    assert (await server.get("/plain")).body == b"plain"


# --- By descriptor ---


async def by_file(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a part of the file, as the path says: `/by_file/POSITION/OFFSET/COUNT`, with `-` for none."""
    _, _, position, *rest = scope["path"].split("/")
    keys = {name: int(value) for name, value in zip(["offset", "count"], rest, strict=True) if value != "-"}
    await start(send)
    with open(path_of(scope), "rb") as file:
        file.seek(int(position))
        await zerocopysend(send, file if scope["query_string"] != b"number" else file.fileno(), **keys)
        os.fstat(file.fileno())
        note(scope, "open")


@conforms("zerocopysend.sent", "zerocopysend.open")
@every_protocol
@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ("0/-/-", b"0123456789"),
        ("3/-/-", b"3456789"),
        ("3/-/4", b"3456"),
        ("3/0/-", b"0123456789"),
        ("0/5/-", b"56789"),
        ("0/5/3", b"567"),
        ("0/8/100", b"89"),
        ("0/10/-", b""),
        ("0/100/-", b""),
        ("0/2/0", b""),
        ("10/-/-", b""),
    ],
)
async def test_parts_of_a_file_are_sent(
    server: Server, connect: Connect, key: str, file: Path, part: str, sent: bytes
) -> None:
    connection = await connect(server)
    response = await connection.get(f"/by_file/{part}?{key}", naming(file))
    assert (response.status, response.body) == (200, sent)
    await server.noted(key, "open")
    if connection.protocol != "http/1.0":
        assert (await connection.get("/plain")).body == b"plain"


@conforms("zerocopysend.sent")
async def test_file_may_be_a_number(server: Server, connect: Connect, file: Path) -> None:
    assert (await (await connect(server)).get("/by_file/0/2/3?number", naming(file))).body == b"234"


@conforms("zerocopysend.sent")
@pytest.mark.parametrize("size", SIZES)
async def test_large_files_are_sent_whole(server: Server, connect: Connect, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(size))
    assert (await (await connect(server)).get("/by_file/0/-/-", naming(path))).body == content(size)


async def in_turn(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    with open(path_of(scope), "rb") as file:
        await body(send, b"<", more=True)
        await zerocopysend(send, file, count=3, more_body=True)
        await body(send, b"|", more=True)
        # Goes on where the last one ended, as sendfile does.
        await zerocopysend(send, file, count=2, more_body=True)
        await body(send, b"|", more=True)
        await zerocopysend(send, file, offset=8, more_body=True)
        await zerocopysend(send, file, offset=0, count=1, more_body=True)
        await body(send, b">")
        os.fstat(file.fileno())
        note(scope, "open")


@conforms("zerocopysend.mixed", "zerocopysend.open")
async def test_files_and_pieces_of_body_come_in_turn(server: Server, connect: Connect, key: str, file: Path) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/in_turn?{key}", naming(file))).body == b"<012|34|890>"
    assert (await connection.get("/plain")).body == b"plain"
    await server.noted(key, "open")


async def file_and_more(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    with open(path_of(scope), "rb") as file:
        await zerocopysend(send, file)
        await zerocopysend(send, file, offset=0)
    await body(send, b"more")
    note(scope, "ignored")


@conforms("zerocopysend.mixed", "http.send.end")
async def test_what_follows_the_last_file_is_ignored(server: Server, connect: Connect, key: str, file: Path) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/file_and_more?{key}", naming(file))).body == b"0123456789"
    assert await server.noted(key, "ignored") == ["ignored"]


async def wrong_files(scope: Scope, receive: Receive, send: Send) -> None:
    closed = open(path_of(scope), "rb")  # noqa: SIM115
    number = os.dup(closed.fileno())
    closed.close()
    os.close(number)
    with open(path_of(scope), "rb") as file:
        await start(send)
        wrong: list[dict[str, Any]] = [
            {"file": number},
            {"file": -1},
            {"file": closed},
            {"file": io.BytesIO(b"no descriptor")},
            {"file": path_of(scope)},
            {"file": None},
            {},
            {"file": file, "offset": -1},
            {"file": file, "count": -1},
            {"file": file, "offset": "1"},
            {"file": file, "count": 1.5},
        ]
        for message in wrong:
            await tries(scope, send, "zerocopysend", more_body=True, **message)
    await body(send, b"answered")


@conforms("zerocopysend.sent", "core.wrong_message")
async def test_wrong_files_raise(server: Server, connect: Connect, key: str, file: Path) -> None:
    response = await (await connect(server)).get(f"/wrong_files?{key}", naming(file))
    assert response.body == b"answered"
    noted = await server.notes(key)
    assert noted[0] == "OSError"
    assert "sent" not in noted


async def head_of_file(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, headers=[(b"content-length", b"10")])
    with open(path_of(scope), "rb") as file:
        await zerocopysend(send, file)


@conforms("zerocopysend.sent", "http.response.no_body")
async def test_head_of_a_file(server: Server, connect: Connect, file: Path) -> None:
    connection = await connect(server)
    response = await connection.request("HEAD", "/head_of_file", headers=naming(file))
    assert (response.body, response.header(b"content-length")) == (b"", b"10")
    assert (await connection.get("/head_of_file", naming(file))).body == b"0123456789"


async def in_large_turns(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    with open(path_of(scope), "rb") as file:
        await zerocopysend(send, file, count=MEGABYTE, more_body=True)
        await body(send, b"|", more=True)
        await zerocopysend(send, file, count=MEGABYTE + 1, more_body=True)
        await body(send, b"|%d|" % file.tell(), more=True)
        await zerocopysend(send, file)


@conforms("zerocopysend.mixed")
async def test_large_parts_of_a_file_come_in_turn(server: Server, connect: Connect, tmp_path: Path) -> None:
    path, all = tmp_path / "file", content(3 * MEGABYTE)
    path.write_bytes(all)
    response = await (await connect(server)).get("/in_large_turns", naming(path))
    first, second, rest = all[:MEGABYTE], all[MEGABYTE : 2 * MEGABYTE + 1], all[2 * MEGABYTE + 1 :]
    assert response.body == first + b"|" + second + b"|%d|" % (2 * MEGABYTE + 1) + rest


# --- Slow clients, and those that leave ---

LARGE = 64 * MEGABYTE


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGE)
    return path


def open_files(server: Server, path: Path) -> int:
    """How often the server's processes have the file open."""
    return sum(opened.path == str(path) for process in server.processes() for opened in process.open_files())


@pytest.mark.parametrize("app", ["by_path", "by_file/0/-/-"])
async def test_large_file_is_not_taken_into_memory(server: Server, connect: Connect, large: Path, app: str) -> None:
    before = server.memory()
    exchange = await (await connect(server)).start("GET", f"/{app}", headers=naming(large))
    size, peak = await exchange.head() - 200, 0
    while piece := await exchange.chunk():
        size += len(piece)
        if size // MEGABYTE % 8 == 0:
            peak = max(peak, server.memory())
    assert size == LARGE
    assert peak - before < LARGE // 2


@pytest.mark.parametrize("app", ["by_path", "by_file/0/-/-"])
async def test_file_is_closed_when_the_client_has_gone(server: Server, connect: Connect, large: Path, app: str) -> None:
    connection = await connect(server)
    exchange = await connection.start("GET", f"/{app}", headers=naming(large))
    assert await exchange.head() == 200
    await exchange.chunk()
    assert open_files(server, large) > 0
    await exchange.leave()
    await eventually(lambda: open_files(server, large) == 0)
    assert (await server.get("/plain")).body == b"plain"
    assert "rror" not in server.fresh_log


@pytest.mark.parametrize("app", ["by_path", "by_path_with_length"])
async def test_slow_client_gets_all_of_a_file(server: Server, connect: Connect, tmp_path: Path, app: str) -> None:
    path, all = tmp_path / "file", content(16 * MEGABYTE)
    path.write_bytes(all)
    exchange = await (await connect(server)).start("GET", f"/{app}", headers=naming(path))
    assert await exchange.head() == 200
    taken, pause_at = b"", 0
    while piece := await exchange.chunk():
        taken += piece
        if len(taken) > pause_at:
            # Long enough for all buffers to fill.
            pause_at += 3 * MEGABYTE
            await asyncio.sleep(0.1)
    assert taken == all


@pytest.mark.protocols(HTTP1, HTTP2)
async def test_no_file_stays_open(server: Server, connect: Connect, file: Path) -> None:
    connection = await connect(server)
    for _ in range(50):
        await connection.get("/by_path", naming(file))
        await connection.get("/by_file/0/-/-", naming(file))
    await eventually(lambda: open_files(server, file) == 0)


app = routes(
    plain,
    by_path,
    by_path_with_length,
    by_query,
    head_or_304,
    falls_back,
    wrong_paths,
    not_alone,
    path_and_more,
    before_start,
    wrong_length,
    by_file,
    in_turn,
    in_large_turns,
    file_and_more,
    wrong_files,
    head_of_file,
)
