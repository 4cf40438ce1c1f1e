"""How many workers there are: by option, environment or machine, and one more or less by a signal."""

import math
import os
import signal
import sys
from pathlib import Path

import pytest

from py_tests.harness.load_app import STARTED
from py_tests.harness.serving import unlike_uvicorn
from py_tests.harness.workers import FIRST_WORKER, SHARED, TCP, UDS, Site, cases
from py_tests.workers.conftest import Start

pytestmark = unlike_uvicorn("this is about aiovoy's supervisor")

# Runs what follows on one processor.
ON_ONE_PROCESSOR = [
    sys.executable,
    "-c",
    "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.execv(sys.argv[1], sys.argv[1:])",
]


@pytest.mark.parametrize(
    ("option", "environment", "number"),
    [
        ("3", {}, 3),
        (None, {"WEB_CONCURRENCY": "2"}, 2),
        ("1", {"WEB_CONCURRENCY": "2"}, 1),
        (None, {"AIOVOY_WORKERS": "2", "WEB_CONCURRENCY": "3"}, 2),
    ],
)
async def test_number_of_workers(start: Start, option: str | None, environment: dict[str, str], number: int) -> None:
    assert len(start(option, env=environment).pids()) == number


@pytest.mark.parametrize(
    ("option", "environment", "named"),
    [
        ("0", {}, "--workers"),
        ("-1", {}, "--workers"),
        ("many", {}, "--workers"),
        (None, {"WEB_CONCURRENCY": "many"}, "WEB_CONCURRENCY"),
    ],
)
async def test_number_that_is_none_is_refused(
    start: Start, option: str | None, environment: dict[str, str], named: str
) -> None:
    workers = start(option, env=environment, wait=False)
    assert await workers.server.exit_code() == 2
    assert named in workers.server.log
    assert "no such option" not in workers.server.log.lower()


def quota() -> float:
    """The processors that the control groups let this process have."""
    with_limit = [float(os.cpu_count() or 1)]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        folder = Path("/sys/fs/cgroup") / (controllers if number != "0" else "") / path.lstrip("/")
        for group in [folder, *folder.parents]:
            limit = _limit(group)
            if limit is not None:
                with_limit.append(limit)
    return min(with_limit)


def _limit(group: Path) -> float | None:
    if (file := group / "cpu.max").exists():
        most, period = file.read_text().split()
        return None if most == "max" else int(most) / int(period)
    if (file := group / "cpu.cfs_quota_us").exists():
        microseconds = int(file.read_text())
        return None if microseconds < 0 else microseconds / int((group / "cpu.cfs_period_us").read_text())
    return None


async def test_auto_is_the_processors_that_the_process_may_use(start: Start) -> None:
    processors = min(len(os.sched_getaffinity(0)), quota())
    assert max(1, math.floor(processors)) <= len(start("auto").pids()) <= math.ceil(processors)


async def test_auto_counts_the_processors_that_are_allowed(start: Start) -> None:
    assert len(start("auto", through=ON_ONE_PROCESSOR).pids()) == 1


# --- Signals ---


@pytest.mark.parametrize(("number", "transport"), cases([(1, TCP), (2, UDS)], numbers=[1, 2]))
async def test_one_more_and_one_fewer_under_load(start: Start, site: Site, number: int, transport: str) -> None:
    workers = start(number, transport)
    first = workers.pids()
    async with workers.load(websockets=4) as load:
        await load.more()
        workers.tell(signal.SIGTTIN)
        more = await workers.become(number + 1)
        assert first < more
        await site.event(STARTED, number=number + 1)
        await load.more()
        if transport not in SHARED:
            await workers.answer()
        workers.tell(signal.SIGTTOU)
        fewer = await workers.become(number)
        await load.more()
        assert workers.pids() == fewer
    assert not load.failures, load.report()
    numbers = {event.pid: event.worker for event in site.events(STARTED)}
    # The last one goes, and nobody has been started in its place.
    assert fewer == first, numbers
    assert sorted(numbers.values()) == [str(FIRST_WORKER + at) for at in range(number + 1)]


async def test_last_worker_stays(start: Start) -> None:
    workers = start(2)
    async with workers.load(websockets=8) as load:
        await load.more()
        workers.tell(signal.SIGTTOU)
        (last,) = await workers.become(1)
        await load.more()
        workers.tell(signal.SIGTTOU)
        # Of two signals that wait together, the kernel hands over the one with the smaller number first.
        await load.more(10)
        assert workers.pids() == {last}
        workers.tell(signal.SIGTTIN)
        pids = await workers.become(2)
        await load.more()
    assert last in pids
    assert not load.failures, load.report()
