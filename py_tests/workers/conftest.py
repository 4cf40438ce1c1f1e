"""Fixtures of the tests of workers: servers, of which nothing may be left."""

import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.certificates import Pair
from py_tests.harness.workers import Site, Workers

Start = Callable[..., Workers]
"""The fixture `start`."""


@pytest.fixture
async def site(pair: Pair) -> AsyncIterator[Site]:
    """Where the test's servers run. After the test no process, file or segment of theirs may be left."""
    # Not `tmp_path`, which may be longer than the path of a socket can be.
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), pair)
        try:
            yield site
            await site.nothing_is_left()
        finally:
            for pid in site.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(site: Site) -> Iterator[Start]:
    """Starts servers: `start(2, TLS, timeout_graceful_shutdown=5)`; with `wait=False` waits for none of its workers."""
    with contextlib.ExitStack() as servers:

        def start(*given: Any, wait: bool = True, **options: Any) -> Workers:
            workers = servers.enter_context(site.workers(*given, **options))
            if wait:
                workers.server.wait_until_started()
                workers.wait_until_all_serve()
            return workers

        yield start
