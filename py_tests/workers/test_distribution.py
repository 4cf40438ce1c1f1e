"""New connections spread evenly over the workers: on a port, where each has a queue of its own."""

import asyncio
import os
import signal
from collections import Counter

from py_tests.harness.http1 import Http1Connection
from py_tests.harness.load_app import STARTED, pid_in
from py_tests.harness.serving import unlike_uvicorn
from py_tests.harness.workers import Site, Workers
from py_tests.workers.conftest import Start

pytestmark = unlike_uvicorn("this is about aiovoy's supervisor")

WORKERS, CONNECTIONS = 4, 200

# By chance alone a worker has fewer than half of its share in one run of 20,000.
LEAST = CONNECTIONS / WORKERS / 2


async def ask(connection: Http1Connection) -> int:
    return pid_in((await connection.get("/")).body)


async def one_after_another(workers: Workers) -> Counter[int]:
    served: Counter[int] = Counter()
    for _ in range(CONNECTIONS):
        async with await Http1Connection.open(workers.server.port) as connection:
            served[await ask(connection)] += 1
    return served


async def all_at_once(workers: Workers) -> Counter[int]:
    connections = await asyncio.gather(*(Http1Connection.open(workers.server.port) for _ in range(CONNECTIONS)))
    served = Counter(await asyncio.gather(*(ask(connection) for connection in connections)))
    for connection in connections:
        await connection.close()
    return served


def assert_even(served: Counter[int], pids: set[int]) -> None:
    assert set(served) == pids
    assert min(served.values()) >= LEAST, served


async def test_connections_spread_evenly(start: Start) -> None:
    workers = start(WORKERS)
    assert_even(await one_after_another(workers), workers.pids())
    assert_even(await all_at_once(workers), workers.pids())


async def test_connections_spread_evenly_over_replaced_workers(start: Start) -> None:
    workers = start(WORKERS)
    old = workers.pids()
    workers.tell(signal.SIGHUP)
    pids = await workers.replaced(old)
    assert_even(await one_after_another(workers), pids)


async def test_connections_spread_evenly_with_one_more_worker_and_with_one_fewer(start: Start, site: Site) -> None:
    workers = start(WORKERS - 1)
    workers.tell(signal.SIGTTIN)
    await site.event(STARTED, number=WORKERS)
    await workers.answer()
    assert_even(await all_at_once(workers), workers.pids())
    workers.tell(signal.SIGTTOU)
    pids = await workers.become(WORKERS - 1)
    assert_even(await all_at_once(workers), pids)


async def test_connections_spread_evenly_over_those_that_live(start: Start, site: Site) -> None:
    """A worker is killed and cannot come back, until it does."""
    workers = start(WORKERS)
    site.write("hold")
    pids = workers.pids()
    killed = max(pids)
    os.kill(killed, signal.SIGKILL)
    await workers.become(WORKERS, without={killed})
    assert_even(await all_at_once(workers), pids - {killed})
    site.remove("hold")
    await site.event(STARTED, but=pids)
    await workers.answer()
    assert_even(await all_at_once(workers), workers.pids())
