"""A worker that does not come up: the old ones serve on, and it is tried again with longer and longer pauses."""

import itertools
import os
import signal

import pytest

from py_tests.harness.deadline import eventually
from py_tests.harness.load import CUT, RESET
from py_tests.harness.load_app import EXIT, EXIT_CODE, FAIL, IMPORTED, RAISE, STARTED, STARTING
from py_tests.harness.serving import unlike_uvicorn
from py_tests.harness.workers import EXITED, TCP, UDS, Site, cases, rounds
from py_tests.workers.conftest import Start

pytestmark = unlike_uvicorn("this is about aiovoy's supervisor")

RESPAWN = 60.0

# In seconds, the least between attempts to start a worker that fails. Before the first it is half a second, since a
# worker that has died young counts as one that has failed.
BACK_OFF = [1.0, 2.0, 4.0, 8.0]

SAID = {RAISE: "told to raise", FAIL: "told to fail", EXIT: ""}
"""What stands in the log for each fault of the application, besides the supervisor's own line."""


@pytest.mark.parametrize(("fault", "number"), [(RAISE, 2), (EXIT, 1), (FAIL, 1)])
async def test_old_workers_serve_on_when_a_replacement_fails(start: Start, site: Site, fault: str, number: int) -> None:
    workers = start(number)
    old = workers.pids()
    async with workers.load() as load:
        await load.more()
        for _ in range(rounds(1, 5)):
            tried = [event.pid for event in site.events(IMPORTED)]
            site.write("fault", fault)
            workers.tell(signal.SIGHUP)
            failed = await site.event(IMPORTED, but=tried)
            await workers.become(number, without=[event.pid for event in failed])
            await load.more(20)
            assert workers.pids() >= old
            assert set(load.served) == old
            site.remove("fault")
            await eventually(lambda: SAID[fault] in workers.server.log)
        # With the fault gone, the next one succeeds.
        workers.tell(signal.SIGHUP)
        await workers.replaced(old)
        await load.more()
    assert not load.failures, load.report()


async def test_exit_of_a_replacement_is_told_of(start: Start, site: Site) -> None:
    workers = start(1)
    old = workers.pids()
    site.write("fault", EXIT)
    workers.tell(signal.SIGHUP)
    failed = await site.event(IMPORTED, but=old)
    await workers.become(1, without=[event.pid for event in failed])
    await workers.said(EXITED, code=EXIT_CODE)


@pytest.mark.parametrize(("number", "transport"), cases([(1, UDS), (2, TCP)]))
async def test_old_workers_serve_on_while_a_replacement_hangs(
    start: Start, site: Site, number: int, transport: str
) -> None:
    workers = start(number, transport)
    old = workers.pids()
    async with workers.load() as load:
        await load.more()
        site.write("hold")
        workers.tell(signal.SIGHUP)
        await site.event(STARTING, but=old)
        await load.more(20)
        assert set(load.served) == old
        assert old < workers.pids()
        site.remove("hold")
        await workers.replaced(old)
        await load.more()
    assert not load.failures, load.report()


async def test_old_workers_serve_on_when_a_replacement_is_killed(start: Start, site: Site) -> None:
    workers = start(2)
    old = workers.pids()
    async with workers.load() as load:
        await load.more()
        site.write("hold")
        workers.tell(signal.SIGHUP)
        (new,) = await site.event(STARTING, but=old)
        os.kill(new.pid, signal.SIGKILL)
        await workers.become(2, without={new.pid})
        await load.more(20)
        assert set(load.served) == old
        site.remove("hold")
        workers.tell(signal.SIGHUP)
        await workers.replaced(old)
        await load.more()
    assert not load.failures, load.report()


@pytest.mark.parametrize("file", ["fault", "hold"])
async def test_server_stops_though_a_replacement_does_not_come_up(start: Start, site: Site, file: str) -> None:
    workers = start(2)
    old = workers.pids()
    site.write(file, RAISE)
    workers.tell(signal.SIGHUP)
    await site.event(IMPORTED, but=old)
    workers.server.signal(signal.SIGTERM)
    assert await workers.server.exit_code() == 0


# --- A worker that has died and does not come back ---


@pytest.mark.parametrize(("fault", "number", "times"), [(RAISE, 2, 3), (EXIT, 1, 2)])
async def test_dead_worker_is_tried_again_with_growing_pauses(
    start: Start, site: Site, fault: str, number: int, times: int
) -> None:
    """Clients wait for it where there is no other worker."""
    workers = start(number)
    old = workers.pids()
    victim = max(old)
    async with workers.load(patience=RESPAWN) as load:
        await load.more()
        site.write("fault", fault)
        os.kill(victim, signal.SIGKILL)
        await site.event(IMPORTED, but=old, within=RESPAWN)
        if number > 1:
            # Clients may wait where the dead worker had its queue, but whoever comes now gets to another one.
            async with workers.load() as others:
                await others.more(20)
            assert not others.failures, others.report()
            assert set(others.served) == old - {victim}
        attempts = await site.event(IMPORTED, number=rounds(times, 4), but=old, within=RESPAWN)
        assert set(load.served) == old
        site.remove("fault")
        (started,) = await site.event(STARTED, but=old, within=RESPAWN)
        await load.more(within=RESPAWN)
        assert workers.pids() == old - {victim} | {started.pid}
    lost = [failure for failure in load.failed if failure.kind not in (CUT, RESET) or failure.pid not in (None, victim)]
    assert not lost, load.report()
    # Each is noted early in an attempt, the pause is after it: so this is never longer than what is between two notes.
    pauses = [later.time - earlier.time for earlier, later in itertools.pairwise(attempts)]
    assert all(pause >= least for pause, least in zip(pauses, BACK_OFF, strict=False)), pauses
