"""SIGTERM and SIGINT with several workers: what has been accepted is answered, and all end."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest

from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.load import REFUSED, TOLD_1012, WEBSOCKET
from py_tests.harness.load_app import ENDED, IMPORTED, STARTING
from py_tests.harness.serving import CRASHES, unlike_uvicorn
from py_tests.harness.workers import KILLED, TCP, UDS, Site, cases
from py_tests.workers.conftest import Start

pytestmark = unlike_uvicorn("this is about aiovoy's supervisor")

# Longer than the slow requests, in seconds; streams without an end take all of it.
GRACE = 6


@contextlib.asynccontextmanager
async def open_stream(port: int) -> AsyncIterator[None]:
    """Server-sent events that have begun; they are read until the server ends them."""
    async with await Http1Connection.open(port) as connection:
        stream = await connection.start("GET", "/events")
        assert await stream.head() == 200
        assert (await stream.chunk()).startswith(b"data: ")
        reading = asyncio.create_task(stream.rest())
        yield
        # They have no end of their own.
        with pytest.raises(ResponseCut):
            await reading


async def test_every_accepted_request_is_answered(start: Start, site: Site) -> None:
    """Requests of 2 s keep coming, while WebSockets and streams without an end are open."""
    workers = start(4, timeout_graceful_shutdown=GRACE)
    pids = workers.pids()
    websockets = 4
    async with workers.load(slow=24, slow_path="/slow?seconds=2", websockets=websockets) as load:
        async with contextlib.AsyncExitStack() as streams:
            for _ in range(4):
                await streams.enter_async_context(open_stream(workers.server.port))
            await load.more(24)
            workers.server.signal(signal.SIGTERM)
            assert await workers.server.exit_code(within=GRACE + 2 * DEADLINE) == 0
        await eventually(lambda: any(kind == REFUSED for _, kind in load.failures))
    ended = site.events(ENDED)
    assert sorted(event.pid for event in ended) == sorted(pids)
    answered = sum(number for client, number in load.answered.items() if client != WEBSOCKET)
    assert sum(event.begun for event in ended) == sum(event.finished for event in ended) == answered, load.report()
    assert load.counts[TOLD_1012] >= websockets, load.report()
    assert not load.lost_at_stop(), load.report()
    assert not CRASHES.search(workers.server.log)


@pytest.mark.parametrize(("number", "transport"), cases([(4, TCP), (2, UDS)]))
@pytest.mark.parametrize("to_all", [False, True], ids=["launcher", "group"])
async def test_idle_workers_end_in_good_order(
    start: Start, site: Site, number: int, transport: str, to_all: bool
) -> None:
    """A terminal sends SIGINT to the whole process group."""
    workers = start(number, transport)
    pids = workers.pids()
    await workers.answer()
    if to_all:
        workers.server.told_to_stop = True
        os.killpg(workers.server.pid, signal.SIGINT)
    else:
        workers.server.signal(signal.SIGINT)
    assert await workers.server.exit_code() == 0
    assert sorted(event.pid for event in site.events(ENDED)) == sorted(pids)
    assert "Traceback" not in workers.server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_ends_all_at_once(start: Start, site: Site, number: signal.Signals) -> None:
    workers = start(4, timeout_graceful_shutdown=60)
    async with contextlib.AsyncExitStack() as connections:
        exchanges = []
        for _ in range(16):
            connection = await connections.enter_async_context(await Http1Connection.open(workers.server.port))
            exchanges.append(await connection.start("GET", "/slow?seconds=60"))
        await workers.answer()
        workers.server.signal(number)
        await eventually(lambda: "stopping" in workers.server.log)
        workers.server.signal(number)
        assert await workers.server.exit_code() == 128 + number
        await eventually(lambda: not site.processes())
        for exchange in exchanges:
            with pytest.raises(ResponseCut):
                await exchange.response()


@pytest.mark.parametrize("number", [1, 2])
async def test_port_can_be_taken_again_at_once(start: Start, site: Site, number: int) -> None:
    """Though connections that the old server has closed first linger there, in TIME_WAIT."""
    workers = start(number)
    async with workers.load() as load:
        await load.more(20)
        workers.server.signal(signal.SIGTERM)
        assert await workers.server.exit_code() == 0
    assert not load.lost_at_stop(), load.report()
    answered = sum(number for client, number in load.answered.items() if client != WEBSOCKET)
    assert sum(event.begun for event in site.events(ENDED)) == answered, load.report()
    again = start(number, port=workers.server.port)
    assert again.server.port == workers.server.port
    await again.answer()


@pytest.mark.parametrize("number", [1, 4])
async def test_server_stops_amid_a_replacement(start: Start, site: Site, number: int) -> None:
    workers = start(number)
    old = workers.pids()
    async with workers.load() as load:
        await load.more()
        workers.tell(signal.SIGHUP)
        await site.event(IMPORTED, but=old)
        workers.server.signal(signal.SIGTERM)
        assert await workers.server.exit_code() == 0
    assert old <= {event.pid for event in site.events(ENDED)}


async def test_server_stops_while_a_dead_worker_waits_to_come_back(start: Start, site: Site) -> None:
    workers = start(2)
    old = workers.pids()
    victim = max(old)
    site.write("hold")
    os.kill(victim, signal.SIGKILL)
    (new,) = await site.event(STARTING, but=old)
    os.kill(new.pid, signal.SIGKILL)
    # Told of twice, so it waits for another attempt.
    await workers.said(KILLED, times=2)
    workers.server.signal(signal.SIGTERM)
    assert await workers.server.exit_code() == 0
    assert old - {victim} == {event.pid for event in site.events(ENDED)}
