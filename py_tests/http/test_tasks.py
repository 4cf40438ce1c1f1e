"""The task of a request, and who makes it: asyncio, or the application's task factory."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.deadline import eventually
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Serve, unlike_uvicorn

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


class Made(asyncio.Task[Any]):
    """A task of the factory's."""


def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Made:
    return Made(work, loop=loop, **options)


def failing(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Made:
    """Fails once."""
    work.close()
    loop.set_task_factory(None)
    raise LookupError("no more tasks")


def eager(loop: asyncio.AbstractEventLoop, work: Any, eager_start: bool | None = None, **options: Any) -> Any:
    """asyncio's, which before Python 3.13.3 does not know what uvloop says to it."""
    return getattr(asyncio, "eager_task_factory")(loop, work, **options)  # noqa: B009, until 3.11 is gone


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    loop = asyncio.get_running_loop()
    match scope["path"]:
        case "/set":
            loop.set_task_factory(factory)
        case "/eager":
            loop.set_task_factory(eager)
        case "/fail":
            loop.set_task_factory(failing)
        case "/reset":
            loop.set_task_factory(None)
    task = asyncio.current_task()
    await asyncio.sleep(0)
    assert task is not None
    assert task is asyncio.current_task()
    assert task in asyncio.all_tasks()
    await answer(send, [type(task).__name__, task.get_loop() is loop])


@LOOPS
async def test_task_factory_makes_the_tasks_of_requests(serve: Serve, connect: Connect, loop: str) -> None:
    server = serve(f"{__name__}:app", lifespan="off", loop=loop)
    connection = await connect(server)
    paths = ["/", "/set", "/", "/", "/reset", "/"]
    made = [(await connection.get(path)).json() for path in paths]
    assert made == [[name, True] for name in ["Task", "Task", "Made", "Made", "Made", "Task"]]


if sys.version_info >= (3, 12):

    @LOOPS
    async def test_eager_task_factory_makes_the_tasks_of_requests(serve: Serve, connect: Connect, loop: str) -> None:
        connection = await connect(serve(f"{__name__}:app", lifespan="off", loop=loop))
        for path in ["/eager", "/", "/"]:
            assert (await connection.get(path)).json() == ["Task", True]


@unlike_uvicorn("it closes the connection")
@LOOPS
async def test_task_factory_that_raises_fails_its_request_alone(serve: Serve, connect: Connect, loop: str) -> None:
    server = serve(f"{__name__}:app", lifespan="off", loop=loop)
    connection = await connect(server)
    assert (await connection.get("/fail")).status == 200
    assert (await connection.get("/")).status == 500
    await eventually(lambda: "LookupError: no more tasks" in server.log)
    assert (await connection.get("/")).status == 200


FACTORY = """
import asyncio

class Made(asyncio.Task):
    pass

{where}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        in_lifespan()
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": type(asyncio.current_task()).__name__.encode()}})
"""

AT_IMPORT = """
asyncio.get_event_loop().set_task_factory(lambda loop, work, **options: Made(work, loop=loop, **options))
in_lifespan = bool
"""

ON_THE_LOOP = """
loop = asyncio.get_event_loop()
loop.create_task = lambda work, **options: Made(work, loop=loop, **options)
in_lifespan = bool
"""

IN_LIFESPAN = """
def in_lifespan():
    asyncio.get_running_loop().set_task_factory(lambda loop, work, **options: Made(work, loop=loop, **options))
"""


@LOOPS
@pytest.mark.parametrize(
    "where",
    [
        pytest.param(AT_IMPORT, marks=unlike_uvicorn("it makes its loop later")),
        pytest.param(ON_THE_LOOP, marks=unlike_uvicorn("it makes its loop later")),
        IN_LIFESPAN,
    ],
    ids=["at import", "as a method", "in lifespan"],
)
async def test_task_factory_is_asked_from_the_start(serve: Serve, tmp_path: Path, loop: str, where: str) -> None:
    (tmp_path / "main.py").write_text(FACTORY.format(where=where))
    server = serve("main:app", app_dir=tmp_path, loop=loop)
    assert [(await server.get("/")).body for _ in range(2)] == [b"Made"] * 2
