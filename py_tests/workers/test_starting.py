"""The start of several workers: the first alone, then the others together; the port opens when all are ready."""

import asyncio
import re
from pathlib import Path

import pytest

from aiovoy.launcher.binary import envoy_binary
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.load_app import EXIT, EXIT_CODE, FAIL, IMPORTED, RAISE, STARTED, STARTING
from py_tests.harness.plain_envoy import free_ports
from py_tests.harness.serving import BANNER, of_envoy, unlike_uvicorn
from py_tests.harness.workers import FIRST_WORKER, MENTIONED, TCP, TRANSPORTS, Site, cases
from py_tests.workers.conftest import Start

pytestmark = unlike_uvicorn("this is about aiovoy's supervisor")

# Exit codes of an application that cannot be imported, and of one whose lifespan fails.
NO_APPLICATION, NO_LIFESPAN = 1, 3

# The others are waited for as long as the first one suggests: longer than what they take together, on one processor.
SLOW = {"LOAD_APP_STARTUP": "5"}


async def refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@pytest.mark.parametrize(
    ("number", "transport"), cases([(1, TCP), (4, TCP), *((2, transport) for transport in TRANSPORTS[1:])])
)
async def test_all_workers_answer_once_the_banner_is_out(start: Start, site: Site, number: int, transport: str) -> None:
    workers = start(number, transport, env=SLOW if number > 2 else None, wait=False)
    await eventually(workers.server.started, within=3 * DEADLINE)
    assert len(workers.pids()) == number
    assert {event.pid for event in site.events(STARTED)} == workers.pids()
    assert len(BANNER.findall(workers.server.log)) == 1
    await workers.answer()


@of_envoy("there is none")
async def test_envoy_of_ones_own(start: Start, tmp_path: Path) -> None:
    binary = tmp_path / "envoy"
    binary.symlink_to(envoy_binary())
    await start(2, envoy=binary).answer()


@of_envoy("there is none")
async def test_another_program_in_the_place_of_envoy(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "envoy"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "/1.40.0/" || echo 12.104 >&2\n')
    program.chmod(0o755)
    workers = start(1, envoy=program, wait=False)
    assert await workers.server.exit_code() == 1
    assert f"`{program}` takes no sockets: its hot restart version is `12.104`, not 11." in workers.server.log


async def test_each_worker_knows_its_number(start: Start, site: Site) -> None:
    workers = start(3)
    numbers = [FIRST_WORKER, FIRST_WORKER + 1, FIRST_WORKER + 2]
    assert sorted(event.worker for event in site.events(STARTED)) == [str(number) for number in numbers]
    for number in numbers:
        await workers.said(MENTIONED, number)


async def test_first_worker_starts_alone_and_the_port_opens_when_all_are_ready(start: Start, site: Site) -> None:
    port, _ = free_ports()
    first, second, third = (f"hold-{FIRST_WORKER + at}" for at in range(3))
    for name in [first, second, third]:
        site.write(name)
    workers = start(3, port=port, env=SLOW, wait=False)
    await site.event(STARTING)
    assert len(workers.pids()) == 1
    assert await refused(port)
    site.remove(first)
    # Neither of the others waits for the other one.
    await site.event(STARTING, number=3)
    assert {event.worker for event in site.events(STARTED)} == {str(FIRST_WORKER)}
    assert await refused(port)
    site.remove(third)
    await site.event(STARTED, number=2)
    assert await refused(port)
    assert not BANNER.search(workers.server.log)
    site.remove(second)
    await eventually(workers.server.started)
    await workers.answer()


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (RAISE, NO_APPLICATION, "LookupError: told to raise"),
        (FAIL, NO_LIFESPAN, "told to fail"),
        (EXIT, EXIT_CODE, rf"exit.*\b{EXIT_CODE}\b"),
    ],
)
async def test_server_that_cannot_start_says_so_once(
    start: Start, site: Site, number: int, fault: str, code: int, words: str
) -> None:
    site.write("fault", fault)
    workers = start(number, wait=False)
    assert await workers.server.exit_code() == code
    assert len(site.events(IMPORTED)) == 1
    assert len([line for line in workers.server.log.splitlines() if re.search(words, line)]) == 1, workers.server.log


async def test_failure_of_another_worker_ends_the_start(start: Start, site: Site) -> None:
    """The application of the first one is ready by then."""
    site.write("hold")
    workers = start(3, env=SLOW, wait=False)
    await site.event(STARTING)
    site.write("fault", RAISE)
    site.remove("hold")
    assert await workers.server.exit_code() == NO_APPLICATION
    assert not BANNER.search(workers.server.log)
    assert len(site.events(IMPORTED)) <= 3, "a worker was started again though nothing has ever been ready"
