"""The asyncio event loop of a worker.

Runs inside Envoy, on the worker's loop thread.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import Any


def new_event_loop(kind: str) -> asyncio.AbstractEventLoop:
    """A new loop of `kind`, `uvloop` or `asyncio`, set as the current thread's."""
    if kind == "uvloop":
        import uvloop

        event_loop = uvloop.new_event_loop()
    else:
        event_loop = asyncio.new_event_loop()
    asyncio.set_event_loop(event_loop)
    return event_loop


def run(event_loop: asyncio.AbstractEventLoop) -> None:
    """Runs `event_loop` until it is stopped, then closes it.

    `SystemExit` and `KeyboardInterrupt` that a task raises end `run_forever`, but not the server:
    the task has failed as by any other exception, and the loop goes on.
    """
    while True:
        try:
            event_loop.run_forever()
            break
        except (SystemExit, KeyboardInterrupt):
            traceback.print_exc(file=sys.stderr)
    _close(event_loop)


def _close(event_loop: asyncio.AbstractEventLoop) -> None:
    """What `asyncio.Runner` does at its end."""
    try:
        _cancel_all_tasks(event_loop)
        event_loop.run_until_complete(event_loop.shutdown_asyncgens())
        event_loop.run_until_complete(event_loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        event_loop.close()


def _cancel_all_tasks(event_loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(event_loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    event_loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        if not task.cancelled() and (exception := task.exception()) is not None:
            context: dict[str, Any] = {
                "message": "exception in a task that was cancelled at shutdown",
                "exception": exception,
                "task": task,
            }
            event_loop.call_exception_handler(context)
