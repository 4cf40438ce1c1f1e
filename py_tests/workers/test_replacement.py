"""SIGHUP: each worker is replaced by a new one, and no client has anything to complain of."""

import signal
import time

import pytest

from py_tests.harness.deadline import eventually
from py_tests.harness.load import IDLE_CLOSED, TOLD_1012, TOLD_CLOSE, TOLD_GOAWAY
from py_tests.harness.load_app import ENDED, IMPORTED, STARTING
from py_tests.harness.load_links import CONNECTIONS
from py_tests.harness.serving import CRASHES, unlike_uvicorn
from py_tests.harness.workers import REPLACED, TCP, TLS, TRANSPORTS, Site, cases, rounds
from py_tests.workers.conftest import Start

pytestmark = unlike_uvicorn("this is about aiovoy's supervisor")


@pytest.mark.parametrize(
    ("number", "transport"),
    cases([(1, TCP), (4, TCP), *((2, transport) for transport in TRANSPORTS)]),
)
async def test_rolling_replacement_loses_no_request(start: Start, site: Site, number: int, transport: str) -> None:
    workers = start(number, transport)
    seen = pids = workers.pids()
    async with workers.load() as load:
        await load.more()
        for _ in range(rounds(2 if number < 4 else 1)):
            workers.tell(signal.SIGHUP)
            pids = await workers.replaced(pids)
            assert not pids & seen
            seen = seen | pids
            await load.more()
    assert not load.failures, load.report()
    assert set(load.served) <= seen
    # The old ones have ended in good order.
    assert {event.pid for event in site.events(ENDED)} == seen - pids
    assert not CRASHES.search(workers.server.log)


@pytest.mark.parametrize(("number", "transport"), cases([(1, TCP), (1, TLS)]))
async def test_connections_that_move_are_told_to(start: Start, number: int, transport: str) -> None:
    """Those that are idle between two requests, too: the successor serves, so there is time to wait for the next."""
    workers = start(number, transport)
    async with workers.load(paced=16, websockets=4, http2=2) as load:
        await load.more()
        for _ in range(rounds(1, 5)):
            pids, before = workers.pids(), load.counts.copy()
            workers.tell(signal.SIGHUP)
            await workers.replaced(pids)
            await load.more()
            for told in [TOLD_CLOSE, TOLD_GOAWAY, TOLD_1012]:
                assert load.counts[told] > before[told], load.report()
    assert not load.failures, load.report()
    assert not load.counts[IDLE_CLOSED], load.report()


async def test_request_in_flight_is_answered_by_the_worker_that_has_it(start: Start, site: Site) -> None:
    workers = start(2)
    old = workers.pids()
    none = {"short": 0, "slow": 0, "keep_alive": 0, "paced": 0, "http2": 0, "websockets": 0}
    async with workers.load(**{**none, "slow": 8}, slow_path="/slow?seconds=1") as load:
        await eventually(lambda: load.counts[CONNECTIONS] >= 8)
        workers.tell(signal.SIGHUP)
        await workers.replaced(old)
        assert sum(load.served[pid] for pid in old) >= 8, load.report()
        await load.more(8)
    assert not load.failures, load.report()
    assert all(event.begun == event.finished for event in site.events(ENDED, old))


async def test_one_worker_is_replaced_at_a_time(start: Start, site: Site) -> None:
    workers = start(3)
    old = workers.pids()
    site.write("hold")
    workers.tell(signal.SIGHUP)
    await site.event(STARTING, but=old)
    assert len(workers.pids() - old) == 1
    assert old < workers.pids()
    site.remove("hold")
    await workers.replaced(old)


async def test_signal_during_a_replacement_replaces_again(start: Start, site: Site) -> None:
    """Whoever sends it has changed something, and a worker that has been replaced already may not have seen it."""
    workers = start(2)
    old = workers.pids()
    async with workers.load() as load:
        await load.more()
        workers.tell(signal.SIGHUP)
        await site.event(IMPORTED, number=3)  # the first successor has read its code
        again = time.monotonic()
        workers.tell(signal.SIGHUP)

        def all_newer() -> bool:
            newer = {event.pid for event in site.events(IMPORTED) if event.time > again}
            return len(pids := workers.pids()) == 2 and pids <= newer

        await eventually(all_newer, within=120)
        await load.more()
    assert not load.failures, load.report()
    assert not old & workers.pids()


async def test_replacement_is_told_of(start: Start) -> None:
    workers = start(2)
    old = workers.pids()
    workers.tell(signal.SIGHUP)
    await workers.replaced(old)
    await workers.said(REPLACED, times=2)
