"""`--reload`: new code takes over when a file is saved, and no client notices."""

import time
from pathlib import Path

import pytest

from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.folders import ROOT
from py_tests.harness.load import TOLD_1012
from py_tests.harness.load_app import STARTING
from py_tests.harness.serving import Server, unlike_uvicorn
from py_tests.harness.workers import Site, Workers, rounds
from py_tests.workers.conftest import Start

pytestmark = unlike_uvicorn("its reloader cuts requests off")

MAIN = """
from py_tests.harness.load_app import app as load_app
from helper import VERSION

async def app(scope, receive, send):
    if scope.get("path") != "/version":
        return await load_app(scope, receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(VERSION))]})
    await send({"type": "http.response.body", "body": VERSION})
"""


ENVIRON = {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(MAIN)
    save(tmp_path, "0")
    return tmp_path


def save(code: Path, version: str) -> None:
    # Of the same length each time, and within the same second at times.
    (code / "helper.py").write_text(f"VERSION = b'{version}'\n")


async def serves(server: Server, version: str) -> None:
    async def is_there() -> bool:
        return (await server.get("/version")).body == version.encode()

    await eventually(is_there)


def reloading(start: Start, code: Path, number: int = 1) -> Workers:
    return start(number, served="main:app", app_dir=code, reload=True, env=ENVIRON)


@pytest.mark.parametrize("number", [1, 2])
async def test_each_save_is_served_and_no_request_is_lost(start: Start, code: Path, number: int) -> None:
    workers = reloading(start, code, number)
    async with workers.load() as load:
        for version in map(str, range(1, 1 + rounds(5, 10))):
            saved = time.monotonic()
            save(code, version)
            await serves(workers.server, version)
            print(f"save to first answer of the new code: {time.monotonic() - saved:.2f} s")
            await load.more(2)
        # The last of several is replaced when nothing is saved any more.
        await eventually(lambda: load.counts[TOLD_1012])
    assert not load.failures, load.report()


async def test_code_that_cannot_be_imported_leaves_the_old_one(start: Start, code: Path) -> None:
    workers = reloading(start, code)
    async with workers.load() as load:
        save(code, "1")
        await serves(workers.server, "1")
        (code / "helper.py").write_text("VERSION = b'2'(\n")
        await eventually(lambda: "SyntaxError" in workers.server.log, within=DEADLINE)
        await workers.said("worker {number} is not replaced")
        assert (await workers.server.get("/version")).body == b"1"
        await load.more()
        save(code, "3")
        await serves(workers.server, "3")
        await load.more()
    assert not load.failures, load.report()


async def test_first_start_that_fails_waits_for_the_next_change(start: Start, code: Path) -> None:
    save(code, "1")
    (code / "main.py").write_text("import nothing_of_the_kind\n")
    workers = start(1, served="main:app", app_dir=code, reload=True, env=ENVIRON, wait=False)
    await eventually(lambda: "again when its files change" in workers.server.log)
    (code / "main.py").write_text(MAIN)
    await eventually(workers.server.started)
    await serves(workers.server, "1")


async def test_first_start_that_hangs_ends_with_the_next_change(start: Start, code: Path, site: Site) -> None:
    site.write("hold")
    workers = start(1, served="main:app", app_dir=code, reload=True, env=ENVIRON, wait=False)
    (hanging,) = await site.event(STARTING)
    save(code, "1")
    await site.event(STARTING, but=[hanging.pid])
    site.remove("hold")
    await eventually(workers.server.started)
    await serves(workers.server, "1")
    await eventually(lambda: hanging.pid not in workers.pids())


async def test_other_files_are_of_no_interest(start: Start, code: Path) -> None:
    workers = reloading(start, code)
    pids = workers.pids()
    (code / "notes.txt").write_text("a")
    (code / ".helper.py.swp").write_text("a")
    (code / "__pycache__").mkdir(exist_ok=True)
    (code / "__pycache__" / "a.py").write_text("a")
    save(code, "1")
    await serves(workers.server, "1")
    await workers.replaced(pids)
    assert [line for line in workers.server.log.splitlines() if line.startswith("changed")] == ["changed: helper.py"]
