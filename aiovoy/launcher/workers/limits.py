"""When a worker is to be replaced although nothing is wrong with it."""

import math
import random
import time
from dataclasses import dataclass
from typing import Self

from ..config import Config
from .process import Process


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is to be replaced; by nothing at all as a default."""

    requests: float = math.inf
    resident_bytes: float = math.inf
    dies: float = math.inf
    """On the monotonic clock."""

    @classmethod
    def draw(cls, config: Config) -> Self:
        """Those of a new worker. Not all that were started together are to reach theirs together."""
        jitter = random.uniform(0.9, 1.1)
        return cls(
            requests=(config.limit_max_requests or math.inf) * jitter,
            resident_bytes=config.limit_max_rss or math.inf,
            dies=time.monotonic() + (config.worker_lifetime or math.inf) * jitter,
        )

    def reached(self, process: Process) -> str | None:
        """Which one `process` has reached, in words."""
        if process.vitals.requests >= self.requests:
            return f"after {process.vitals.requests} requests"
        if time.monotonic() >= self.dies:
            return f"after {time.monotonic() - process.born:.0f} s"
        if self.resident_bytes < math.inf and (resident := process.resident_bytes()) > self.resident_bytes:
            return f"with {resident} bytes of resident memory"
        return None
