"""`kill -9`: of a worker, which is replaced; of the launcher, whose workers end; of both."""

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from py_tests.harness.deadline import eventually
from py_tests.harness.load import CUT, REFUSED, RESET, WEBSOCKET, Load
from py_tests.harness.load_app import ENDED, STARTED, STARTING
from py_tests.harness.load_links import CONNECTIONS
from py_tests.harness.serving import CRASHES, unlike_uvicorn
from py_tests.harness.workers import KILLED, SHARED, TCP, UDS, Site, Workers, cases, rounds
from py_tests.workers.conftest import Start

pytestmark = unlike_uvicorn("this is about aiovoy's supervisor")

# Workers that die young come back after up to 30 s. A client that waits for it in a queue is not to give up before.
PATIENCE = RESPAWN = 60.0

# After the signal, until it has reached each thread of the worker on whatever processor that runs.
ARRIVAL = 0.002


def kill(pid: int) -> float:
    """Gives the time by which no thread of the process runs any more."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic() + ARRIVAL


def assert_only_in_flight(load: Load, killed: dict[int, float]) -> None:
    """What failed was with one of these workers when it was killed: on a connection that was begun before, and if it
    has been answered on, then by that worker. So nothing that came later, whatever queue it waited in."""
    unexpected = [
        failure
        for failure in load.failed
        if failure.kind not in (CUT, RESET)
        or not any(
            failure.connected < at < failure.seen + ARRIVAL and failure.pid in (None, pid) for pid, at in killed.items()
        )
    ]
    assert not unexpected, load.report()


@pytest.mark.parametrize(
    ("number", "transport"),
    cases([(1, TCP), (2, TCP), (4, TCP), (2, UDS)]),
)
async def test_only_what_is_in_flight_in_a_killed_worker_fails(
    start: Start, site: Site, number: int, transport: str
) -> None:
    workers = start(number, transport)
    killed: dict[int, float] = {}
    async with workers.load(patience=PATIENCE) as load:
        for _ in range(rounds(2)):
            await load.more(random.randrange(1, 15), within=RESPAWN)
            pids = workers.pids()
            victim = random.choice(sorted(pids))
            killed[victim] = kill(victim)
            new = await workers.become(number, without={victim}, within=RESPAWN)
            assert pids - {victim} < new, "another worker has gone, too"
            await site.event(STARTED, but=[*pids, *killed], within=RESPAWN)
        await load.more(within=RESPAWN)
        if transport not in SHARED:
            await eventually(lambda: workers.pids() <= set(load.served), within=RESPAWN)
    assert_only_in_flight(load, killed)


@pytest.mark.parametrize(("number", "transport"), [(1, TCP), (2, TCP), (1, UDS)])
async def test_connections_in_the_queue_of_a_killed_worker_are_served(
    start: Start, number: int, transport: str
) -> None:
    workers = start(number, transport)
    victim = max(workers.pids())
    # It accepts nothing any more, so whatever comes to it waits in its queue.
    psutil.Process(victim).suspend()
    await eventually(lambda: threads(victim) == {"T"})
    async with workers.load(short=20, slow=10, keep_alive=20, patience=PATIENCE) as load:
        # All clients of the first worker wait, or a good number of those of several.
        await eventually(lambda: load.counts[CONNECTIONS] >= 50)
        kill(victim)
        await load.more(within=RESPAWN)
    assert not load.failures, load.report()
    assert victim not in load.served


async def test_killed_worker_is_told_of_and_replaced_in_its_place(start: Start, site: Site) -> None:
    workers = start(3)
    (victim,) = [event for event in site.events(STARTED) if event.worker == "2"]
    pids = workers.pids()
    kill(victim.pid)
    await workers.become(3, without={victim.pid}, within=RESPAWN)
    (successor,) = await site.event(STARTED, but=pids)
    assert successor.worker == victim.worker
    await workers.said(KILLED, victim.worker)
    await workers.answer()


async def test_all_workers_killed_at_once_come_back(start: Start) -> None:
    workers = start(2)
    old = workers.pids()
    async with workers.load(patience=PATIENCE) as load:
        await load.more()
        killed = {pid: kill(pid) for pid in old}
        await workers.become(2, without=old, within=RESPAWN)
        await load.more(within=RESPAWN)
    assert_only_in_flight(load, killed)


def threads(pid: int) -> set[str]:
    """The states of a process's threads (proc_pid_stat(5)); `T` is stopped."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


# --- The launcher ---


async def refused(load: Load) -> None:
    await eventually(lambda: any(kind == REFUSED for _, kind in load.failures))


@pytest.mark.parametrize(("number", "transport"), cases([(1, TCP), (4, TCP), (2, UDS)]))
async def test_workers_end_in_good_order_when_the_launcher_is_killed(
    start: Start, site: Site, number: int, transport: str
) -> None:
    workers = start(number, transport)
    pids = workers.pids()
    async with workers.load() as load:
        await load.more()
        kill(workers.server.pid)
        await workers.server.exit_code()
        await eventually(lambda: not site.processes())
        await refused(load)
    assert not load.lost_at_stop(), load.report()
    ended = site.events(ENDED)
    assert {event.pid for event in ended} == pids
    answered = sum(number for client, number in load.answered.items() if client != WEBSOCKET)
    assert sum(event.begun for event in ended) == sum(event.finished for event in ended) == answered, load.report()
    assert not CRASHES.search(workers.server.log)
    # The last worker takes away what was the launcher's.
    await site.nothing_is_left()
    await assert_started_anew(start, site, workers, number, transport)


@pytest.mark.parametrize(("number", "transport"), cases([(1, TCP), (4, TCP), (2, UDS)]))
async def test_next_start_cleans_up_after_launcher_and_workers_that_were_killed(
    start: Start, site: Site, number: int, transport: str
) -> None:
    workers = start(number, transport)
    pids = workers.pids()
    # So that it does not see the workers die.
    psutil.Process(workers.server.pid).suspend()
    for pid in [*pids, workers.server.pid]:
        kill(pid)
    await workers.server.exit_code()
    await eventually(lambda: not site.processes())
    await assert_started_anew(start, site, workers, number, transport)


async def assert_started_anew(start: Start, site: Site, old: Workers, number: int, transport: str) -> None:
    """On the same address, which nobody else holds; and nothing of the old server is left."""
    left = set(site.files())
    given = {"port": old.server.port} if old.path is None else {}
    workers = start(number, transport, **given)
    await workers.answer()
    await eventually(lambda: not site.new_segments())
    assert not left & set(site.files()) - {site.path.name}


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
async def test_launcher_killed_during_a_replacement_leaves_nothing_running(
    start: Start, site: Site, early: bool
) -> None:
    """The new worker has just been started, or its lifespan starts."""
    workers = start(2)
    site.write("hold")
    pids = workers.pids()
    workers.tell(signal.SIGHUP)
    await workers.become(3)
    if not early:
        await site.event(STARTING, but=pids)
    kill(workers.server.pid)
    await workers.server.exit_code()
    await eventually(lambda: not site.processes())
    assert {event.pid for event in site.events(ENDED)} == pids
    site.remove("hold")
    await assert_started_anew(start, site, workers, 2, TCP)
