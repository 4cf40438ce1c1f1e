"""How many processors there are for this process."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path


def processors(root: Path = Path("/")) -> int:
    """Those that it may run on, or the processors' time that its control groups have, rounded up, if that is less.

    `root` is where `proc` and `sys` are, for tests.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The limits of the own control groups and all above them, in processors (cgroups(7))."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mounted = root / "sys/fs/cgroup" / controllers
            folder = mounted / path.lstrip("/")
            while folder.is_relative_to(mounted):
                with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                    yield _quota(folder, version=1 if controllers else 2)
                folder = folder.parent


def _quota(folder: Path, version: int) -> float:
    """Raises `ValueError` if there is none."""
    if version == 2:
        most, period = (folder / "cpu.max").read_text().split()
    else:
        most, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    quota = int(most) / int(period)
    if quota <= 0:  # -1: none
        raise ValueError
    return quota
