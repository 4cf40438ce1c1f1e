"""Files that grow, shrink or are replaced between the promise of their length and their last byte, as logs are."""

import asyncio
import contextlib
import os
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import FileResponse

from py_tests.harness.apps import Receive, Scope, Send, answer, file_exists, gate, note, routes, start
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Headers, ResponseCut
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, http3_too
from py_tests.harness.serving import Server, unlike_uvicorn

pytestmark = [unlike_uvicorn("it has neither pathsend nor zerocopysend"), http3_too]

MEGABYTE = 1024 * 1024
SIZES = [10, 3 * MEGABYTE]
SHORTER = "shorter than its content-length"


def content(size: int) -> bytes:
    return (b"%07d," % size * (size // 8 + 1))[:size]


def grows(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"appended")


def shrinks(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def vanishes(path: Path) -> None:
    os.truncate(path, 0)


def is_replaced_by_more(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(b"new" + path.read_bytes())
    other.rename(path)


def is_replaced_by_less(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes()[:-1])
    other.rename(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    change.__name__: change for change in [grows, shrinks, vanishes, is_replaced_by_more, is_replaced_by_less]
}


def naming(path: Path, change: Any = None) -> Headers:
    return [(b"x-path", bytes(path)), (b"x-change", change.__name__.encode() if change else b"")]


def path_of(scope: Scope) -> Path:
    return Path(os.fsdecode(dict(scope["headers"])[b"x-path"]))


def change(scope: Scope) -> None:
    CHANGES[dict(scope["headers"])[b"x-change"].decode()](path_of(scope))


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"plain")


async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    await start(send, headers=[(b"content-length", b"%d" % path.stat().st_size)])
    change(scope)
    await send({"type": "http.response.pathsend", "path": str(path)})


async def by_file(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    await start(send, headers=[(b"content-length", b"%d" % path.stat().st_size)])
    change(scope)
    with path.open("rb") as file:
        await send({"type": "http.response.zerocopysend", "file": file})


async def by_starlette(scope: Scope, receive: Receive, send: Send) -> None:
    async def changes_first(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            change(scope)
        await send(dict(message))

    await FileResponse(path_of(scope))(scope, receive, changes_first)


ways = pytest.mark.parametrize("app", [by_path, by_file, by_starlette])


@ways
@pytest.mark.parametrize("size", [0, *SIZES])
@pytest.mark.parametrize("longer", [grows, is_replaced_by_more])
async def test_file_that_gets_longer_is_sent_as_far_as_promised(
    server: Server, connect: Connect, tmp_path: Path, app: Any, size: int, longer: Any
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(size))
    connection = await connect(server)
    response = await connection.get(f"/{app.__name__}", naming(path, longer))
    assert (response.status, response.header(b"content-length")) == (200, b"%d" % size)
    assert response.body == path.read_bytes()[:size]
    assert (await connection.get("/plain")).body == b"plain"
    assert "rror" not in server.fresh_log


@ways
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shorter", [shrinks, vanishes, is_replaced_by_less])
async def test_file_that_gets_shorter_is_cut_and_logged(
    server: Server, connect: Connect, tmp_path: Path, app: Any, size: int, shorter: Any
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(size))
    connection = await connect(server)
    if size < MEGABYTE or shorter is vanishes:
        # Nothing had left.
        assert (await connection.get(f"/{app.__name__}", naming(path, shorter))).status == 500
    else:
        with pytest.raises(ResponseCut) as cut:
            await connection.get(f"/{app.__name__}", naming(path, shorter))
        assert content(size).startswith(cut.value.body)
    await eventually(lambda: SHORTER in server.fresh_log)
    assert (await server.get("/plain")).body == b"plain"


async def shrinks_under_way(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    await start(send, headers=[(b"content-length", b"%d" % path.stat().st_size)])
    await send({"type": "http.response.pathsend", "path": str(path)})


@pytest.mark.protocols(HTTP1)
async def test_file_that_shrinks_while_it_is_sent_is_cut_and_logged(
    server: Server, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(64 * MEGABYTE)
    exchange = await (await connect(server)).start("GET", "/shrinks_under_way", headers=naming(path))
    assert await exchange.head() == 200
    os.truncate(path, 0)
    with pytest.raises(ResponseCut):
        await exchange.rest()
    await eventually(lambda: "shorter" in server.fresh_log)
    assert (await server.get("/plain")).body == b"plain"


# --- Parts of a file ---


async def part(scope: Scope, receive: Receive, send: Send) -> None:
    """What is from the sixth byte on, as the answer to a range: with `count`, or without."""
    path = path_of(scope)
    length = path.stat().st_size - 5
    await start(send, 206, [(b"content-length", b"%d" % length)])
    change(scope)
    count = {"count": length} if scope["path"].endswith("/count") else {}
    with path.open("rb") as file:
        await send({"type": "http.response.zerocopysend", "file": file, "offset": 5, **count})


@pytest.mark.parametrize("how", ["part", "part/count", "by_starlette"])
@pytest.mark.parametrize("size", SIZES)
async def test_part_of_a_file_that_grows_is_sent_as_far_as_promised(
    server: Server, connect: Connect, tmp_path: Path, how: str, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(size))
    connection = await connect(server)
    response = await connection.get(f"/{how}", [*naming(path, grows), (b"range", b"bytes=5-")])
    assert (response.status, response.body) == (206, content(size)[5:])
    assert (await connection.get("/plain")).body == b"plain"
    assert "rror" not in server.fresh_log


@pytest.mark.parametrize("how", ["part", "part/count", "by_starlette"])
async def test_part_of_a_file_that_shrinks_is_logged(
    server: Server, connect: Connect, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(10))
    with contextlib.suppress(ResponseCut):
        response = await (await connect(server)).get(f"/{how}", [*naming(path, shrinks), (b"range", b"bytes=5-")])
        assert response.status == 500
    await eventually(lambda: SHORTER in server.fresh_log)


# --- Without a length ---


async def grows_under_way(scope: Scope, receive: Receive, send: Send) -> None:
    path = path_of(scope)
    with path.open("rb") as file:
        kinds: dict[str, Any] = {"path": {"path": str(path)}, "file": {"file": file}}
        name = scope["path"].split("/")[2]
        await start(send)
        sending = asyncio.ensure_future(send({"type": f"http.response.{TYPES[name]}", **kinds[name]}))
        await file_exists(gate(scope))
        grows(path)
        note(scope, "grown")
        await sending


TYPES = {"path": "pathsend", "file": "zerocopysend"}
# More than what is under way to a client that does not read.
LARGE = {HTTP1: 16 * MEGABYTE, HTTP2: 4 * MEGABYTE, HTTP3: 4 * MEGABYTE}


@pytest.mark.parametrize("kind", list(TYPES))
async def test_file_without_a_promised_length_ends_where_it_ended_at_first(
    server: Server, connect: Connect, protocol: str, key: str, tmp_path: Path, kind: str
) -> None:
    path, go_on = tmp_path / "file", tmp_path / "gate"
    path.write_bytes(bytes(LARGE[protocol]))
    headers = [*naming(path), (b"x-gate", bytes(go_on))]
    exchange = await (await connect(server)).start("GET", f"/grows_under_way/{kind}?{key}", headers=headers)
    await exchange.head()
    first = await exchange.chunk()
    go_on.touch()
    await server.noted(key, "grown")
    assert len(first + await exchange.rest()) == LARGE[protocol]


async def made_up(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await send({"type": "http.response.pathsend", "path": "/proc/self/status"})


async def test_file_that_seems_empty_is_sent(server: Server, connect: Connect) -> None:
    assert b"State:" in (await (await connect(server)).get("/made_up")).body


app = routes(plain, by_path, by_file, by_starlette, shrinks_under_way, part, grows_under_way, made_up)
