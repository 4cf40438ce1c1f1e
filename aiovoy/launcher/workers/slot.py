"""A place for one worker."""

import asyncio

from .limits import Limits
from .process import Process

MOST_DELAY = 30.0
"""Seconds until the next attempt to start a worker, at most."""


class Slot:
    """A place for one worker. It has sockets of its own, by its index, which stay whatever comes and goes.

        empty ──▶ coming ──▶ current ──▶ (retired, or dead)
          ▲          │          │
          └──────────┴──────────┘

    A worker that comes takes the place of the current one when it accepts connections; until then both are there.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.current: Process | None = None
        self.coming: Process | None = None
        self.latest: Process | None = None
        """The one that has come last, alive or not."""
        self.started = asyncio.Event()
        """Whether the application of the worker that came last has started."""
        self.task: asyncio.Task[None] | None = None
        """What fills the slot; there is never more than one."""
        self.failures = 0
        """How many workers in a row have died young, or not come up."""
        self.limits = Limits()
        self.generation = 0

    @property
    def number(self) -> int:
        """As people see it."""
        return self.index + 1

    @property
    def accepts(self) -> Process | None:
        """Who takes connections from its sockets, if anybody does."""
        candidates = (self.current, self.coming)
        return next((process for process in candidates if process is not None and process.accepts), None)

    def delay(self) -> float:
        """Seconds until the next attempt to fill it."""
        return min(0.5 * 2.0 ** (self.failures - 1), MOST_DELAY) if self.failures else 0.0
