"""When workers are suspected, and when they are due for replacement."""

import time
from pathlib import Path
from typing import Any

from aiovoy import Config
from aiovoy.launcher.workers.limits import Limits
from aiovoy.launcher.workers.process import Vitals
from aiovoy.launcher.workers.reload import Watched
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")


class Process:
    """As much of a worker as limits look at."""

    def __init__(self, requests: int = 0, resident: int = 0) -> None:
        self.vitals = Vitals()
        self.vitals.answer([0], requests)
        self.born = time.monotonic()
        self._resident = resident

    def resident_bytes(self) -> int:
        return self._resident


def reached(limits: Limits, process: Any) -> str | None:
    return limits.reached(process)


def test_no_limits() -> None:
    assert reached(Limits.draw(Config("main:app")), Process(10**12, 10**12)) is None


def test_limit_of_requests_is_not_the_same_for_all() -> None:
    drawn = [Limits.draw(Config("main:app", limit_max_requests=1000)) for _ in range(20)]
    assert len({limits.requests for limits in drawn}) > 1
    assert all(reached(limits, Process(899)) is None for limits in drawn)
    assert all(reached(limits, Process(1101)) == "after 1101 requests" for limits in drawn)


def test_limit_of_memory() -> None:
    limits = Limits.draw(Config("main:app", limit_max_rss=1000))
    assert reached(limits, Process(resident=1000)) is None
    assert reached(limits, Process(resident=1001)) == "with 1001 bytes of resident memory"


def test_lifetime() -> None:
    now = time.monotonic()
    limits = Limits.draw(Config("main:app", worker_lifetime=1000))
    assert now + 900 <= limits.dies <= time.monotonic() + 1100
    assert reached(limits, Process()) is None
    assert reached(Limits(dies=now), Process()) == "after 0 s"


def steps(vitals: Vitals, *answers: list[int] | None) -> list[int]:
    """For how many steps it was stuck after each; None is no answer."""
    seen = []
    for answer in answers:
        vitals.step()
        if answer is not None:
            vitals.answer(answer, 0)
        seen.append(vitals.stuck_steps)
    return seen


def test_worker_that_is_well_is_not_stuck() -> None:
    assert steps(Vitals(), [0], [0, 3], [499], []) == [0, 0, 0, 0]


def test_worker_that_does_not_answer_is_stuck_until_it_does() -> None:
    vitals = Vitals()
    assert steps(vitals, None, None, None) == [0, 1, 2]
    assert vitals.trouble == "does not respond"
    assert steps(vitals, [0], [0]) == [3, 0]


def test_worker_with_a_blocked_loop_is_stuck_until_all_turn() -> None:
    vitals = Vitals()
    assert steps(vitals, [0, 0], [0, 1000], [0, 2000], [0, 0]) == [0, 0, 1, 2]
    assert vitals.trouble == "has an event loop that does not turn"
    assert steps(vitals, [0, 0]) == [0]


def test_which_files_are_watched(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "app" / "old").mkdir(parents=True)
    folder = tmp_path / ".venv" / "app"  # what is above the watched folder does not matter
    config = Config(
        "main:app",
        reload_dir=folder,
        reload_include=["*.html", ".env"],
        reload_exclude=["test_*.py", str(folder / "old"), "build"],
    )
    watched = Watched(config)
    names = [
        "main.py",
        "shop/cart.py",
        "index.html",
        ".env",
        "a.txt",
        "test_a.py",
        "old/a.py",
        "build/a.py",
        ".git/a.py",
    ]
    names += ["__pycache__/a.py", ".a.py", "node_modules/a.py"]
    seen = [name for name in names if watched(None, str(folder.resolve() / name))]
    assert seen == ["main.py", "shop/cart.py", "index.html", ".env"]
