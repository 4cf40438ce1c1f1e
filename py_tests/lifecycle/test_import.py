"""The import of the application: on Python's main thread, and before its event loop runs."""

from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.serving import Serve, launch, serve, unlike_uvicorn

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

TOLD = """
import asyncio, threading
told = []
{work}

async def app(scope, receive, send):
    told.append(asyncio.get_running_loop() is loop)
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": repr(told).encode()}})
"""

RUN = """
async def main():
    await asyncio.sleep(0)
    told.append("ran")

asyncio.run(main())
loop = None
"""

RUNNER = """
with asyncio.Runner() as runner:
    told.append(runner.run(asyncio.sleep(0, "ran")))
loop = None
"""

LOOP_OF_ITS_OWN = """
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
told.append(loop.run_until_complete(asyncio.sleep(0, "ran")))
"""

MAIN_THREAD = """
told.append(threading.current_thread() is threading.main_thread())
loop = None
"""

LOOP_OF_THE_SERVER = """
loop = asyncio.get_event_loop()
told.append(loop.is_running())
"""


@LOOPS
@pytest.mark.parametrize(
    ("work", "told"),
    [
        (RUN, ["ran", False]),
        (RUNNER, ["ran", False]),
        (LOOP_OF_ITS_OWN, ["ran", False]),
        (MAIN_THREAD, [True, False]),
        pytest.param(LOOP_OF_THE_SERVER, [False, True], marks=unlike_uvicorn("it makes its loop later")),
    ],
    ids=["run", "Runner", "loop of its own", "main thread", "loop of the server"],
)
async def test_import_may_run_a_loop(serve: Serve, tmp_path: Path, work: str, told: list[Any], loop: str) -> None:
    (tmp_path / "main.py").write_text(TOLD.format(work=work))
    server = serve("main:app", app_dir=tmp_path, lifespan="off", loop=loop)
    assert (await server.get("/")).body.decode() == repr(told)


@LOOPS
async def test_tasks_have_no_loop_yet(tmp_path: Path, loop: str) -> None:
    (tmp_path / "main.py").write_text("import asyncio\nwork = asyncio.sleep(0)\nasyncio.create_task(work)\n")
    with launch("main:app", app_dir=tmp_path, loop=loop) as server:
        assert await server.exit_code() == 1
        assert "RuntimeError: no running event loop" in server.log


async def test_factory_may_run_a_loop(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        TOLD.format(work=RUN) + "\ndef make():\n    asyncio.run(main())\n    return app\n"
    )
    with serve("main:make", app_dir=tmp_path, lifespan="off", factory=True) as server:
        assert (await server.get("/")).body.decode() == repr(["ran", "ran", False])
