"""The ASGI lifespan of an application (ASGI Lifespan 2.0).

Runs inside Envoy, in the running event loop of each worker.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

from aiovoy.embedded.importer import App

_tasks: set[asyncio.Task[None]] = set()
"""Those that have not ended. asyncio refers to tasks weakly, and the server may want nothing of one any more that the
end of its loop is to cancel.
"""


class LifespanError(Exception):
    """Start-up or shutdown failed; the message is for the log, with a traceback if there is one."""


class Lifespan:
    """Runs `app` on a lifespan scope.

    `mode` is `on`, `auto` (an application that raises before it has answered is taken not to
    support lifespan) or `off`.
    """

    def __init__(self, app: App, mode: str) -> None:
        self._app = app
        self._mode = mode
        self._state: dict[str, Any] = {}
        self._received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answer: asyncio.Future[str | None] | None = None
        self._expected = ""
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> dict[str, Any] | None:
        """The `state` after start-up; `None` if the application has no lifespan."""
        if self._mode == "off":
            return None
        self._task = asyncio.get_running_loop().create_task(self._run(), name="aiovoy-lifespan")
        _tasks.add(self._task)
        self._task.add_done_callback(_tasks.discard)
        # Seen to here, so asyncio need not say that nobody retrieved it.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            failure = await self._ask("startup")
        except _EndedError as ended:
            self._check_support(ended.__cause__)
            return None
        if failure is not None:
            raise LifespanError(f"application start-up failed: {failure}" if failure else "application start-up failed")
        return self._state

    async def shutdown(self) -> None:
        """Tells the application to shut down and waits until it has."""
        if self._task is None:
            return
        try:
            failure = await self._ask("shutdown")
        except _EndedError as ended:
            if ended.__cause__ is None:
                return
            raise LifespanError(_with_traceback("exception in application shutdown", ended.__cause__)) from None
        if failure is not None:
            raise LifespanError(f"application shutdown failed: {failure}" if failure else "application shutdown failed")
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise LifespanError(_with_traceback("exception in application shutdown", error))

    def _check_support(self, error: BaseException | None) -> None:
        """Raises if the application had to answer to `lifespan.startup`, which it ended without."""
        self._task = None
        if self._mode == "auto":
            return
        if error is None:
            raise LifespanError("application returned without `lifespan.startup.complete`")
        raise LifespanError(_with_traceback("exception in application start-up", error)) from None

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        await self._app(scope, self._received.get, self._send)

    async def _ask(self, event: str) -> str | None:
        """Sends `lifespan.<event>`: `None` once it is complete, the message if it failed.

        Raises `_EndedError`, with the application's exception as its cause, if the application
        ends without an answer.
        """
        assert self._task is not None
        self._expected = event
        self._answer = asyncio.get_running_loop().create_future()
        self._received.put_nowait({"type": f"lifespan.{event}"})
        either: list[asyncio.Future[Any]] = [self._task, self._answer]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._answer.done():
            return self._answer.result()
        if self._task.cancelled():
            raise _EndedError from asyncio.CancelledError("the lifespan task was cancelled")
        raise _EndedError from self._task.exception()

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        expected = self._expected
        if kind not in (f"lifespan.{expected}.complete", f"lifespan.{expected}.failed"):
            raise RuntimeError(
                f"expected ASGI message `lifespan.{expected}.complete` or `lifespan.{expected}.failed`, "
                f"but got `{kind}`"
            )
        if self._answer is None or self._answer.done():
            raise RuntimeError(f"ASGI message `{kind}` was sent twice, or before `lifespan.{expected}`")
        self._answer.set_result(message.get("message", "") if kind.endswith(".failed") else None)


class _EndedError(Exception):
    """The application ended where an answer was due; the cause is its exception, if any."""


def _with_traceback(what: str, error: BaseException) -> str:
    return f"{what}\n{''.join(traceback.format_exception(error))}".rstrip()
