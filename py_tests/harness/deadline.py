"""Waiting for conditions: every wait of the suite has a deadline, and none has a fixed length."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

# Generous, since it bounds only tests that fail: a machine under load must not fail a good server.
DEADLINE = 20.0

T = TypeVar("T")


@overload
async def eventually(check: Callable[[], Coroutine[Any, Any, T]], within: float = ...) -> T: ...
@overload
async def eventually(check: Callable[[], T], within: float = ...) -> T: ...
async def eventually(check: Callable[[], Any], within: float = DEADLINE) -> Any:
    """Waits until `check` gives something true, and returns that."""
    end = time.monotonic() + within
    while True:
        value = check()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"still {value!r} after {within} s: {inspect.getsource(check).strip()}")
        await asyncio.sleep(0.01)


async def settled(measure: Callable[[], int], within: float = 2 * DEADLINE) -> int:
    """Waits until `measure` has given the same number for a second, and returns that."""
    end = time.monotonic() + within
    number, since = -1, time.monotonic()
    while True:
        latest = measure()
        if latest != number:
            number, since = latest, time.monotonic()
        elif time.monotonic() - since > 1.0:
            return number
        if time.monotonic() > end:
            raise TimeoutError(f"still changing after {within} s, now {number}")
        await asyncio.sleep(0.05)
