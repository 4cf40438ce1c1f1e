"""Workers that are replaced although nothing is wrong with them: after so many requests, so much memory, so long."""

from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.load_app import ENDED, RAISE, STARTING
from py_tests.harness.serving import Serve, unlike_uvicorn
from py_tests.harness.workers import REPLACED, Site
from py_tests.workers.conftest import Start

pytestmark = unlike_uvicorn("this is about aiovoy's supervisor")

# Where the old one goes first, clients wait for as long as the new one takes to start.
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (1, {"limit_max_requests": 50}),
        (2, {"limit_max_requests": 50}),
        (3, {"limit_max_requests": 5}),
        (2, {"worker_lifetime": 3}),
        (1, {"limit_max_requests": 50, "replace_first": "old"}),
        (2, {"worker_lifetime": 3, "replace_first": "old"}),
    ],
)
async def test_workers_are_replaced_and_no_request_is_lost(start: Start, number: int, options: dict[str, Any]) -> None:
    workers = start(number, **options)
    pids = workers.pids()
    async with workers.load(patience=PATIENCE) as load:
        await eventually(lambda: not pids & workers.pids(), within=3 * DEADLINE)
        await load.more()
    assert not load.failures, load.report()
    await workers.said(r"worker {number}\b.* is replaced after", times=number)


async def test_old_one_goes_first_if_told_to(start: Start, site: Site) -> None:
    workers = start(1, limit_max_requests=20, replace_first="old")
    (old,) = workers.pids()
    async with workers.load(patience=PATIENCE) as load:
        (started, *_) = await site.event(STARTING, but=[old])
        await load.more()
    (ended,) = site.events(ENDED, [old])
    assert ended.time < started.time
    assert not load.failures, load.report()


async def test_replacement_that_fails_leaves_the_old_one_and_is_tried_again(start: Start, site: Site) -> None:
    workers = start(1, limit_max_requests=20)
    old = workers.pids()
    site.write("fault", RAISE)
    async with workers.load() as load:
        await workers.said(r"worker {number}\b is not replaced: .*: again in 1 s")
        assert old <= workers.pids()
        site.remove("fault")
        await eventually(lambda: not old & workers.pids(), within=3 * DEADLINE)
        await load.more()
    assert not load.failures, load.report()
    await workers.said(REPLACED)


HOARD: list[bytes] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/hoard":
        HOARD.append(bytes(range(256)) * 1_600_000)
    await answer(send, str(len(HOARD)).encode())


async def test_worker_that_takes_much_memory_is_replaced(serve: Serve) -> None:
    server = serve(app, lifespan="off", limit_max_rss=server_bytes())
    # At once: of several requests, the last could come to the successor.
    await server.get("/hoard")
    await eventually(lambda: "bytes of resident memory" in server.log)

    async def has_nothing() -> bool:
        return (await server.get("/")).body == b"0"

    await eventually(has_nothing)


def server_bytes() -> int:
    """More than a worker has at its start, and less than with what the test adds."""
    return 350 * 2**20
