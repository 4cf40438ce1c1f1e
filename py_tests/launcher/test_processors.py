"""`--workers auto`: how many processors there are."""

import os
from pathlib import Path

import pytest

from aiovoy import Config, ConfigError
from aiovoy.launcher.processors import processors
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("quota", "count"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("5000000 100000", 8)],
)
def test_quota_of_a_container(tmp_path: Path, quota: str, count: int) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", f"{quota}\n")
    assert processors(tmp_path) == count


def test_quota_of_a_group_above(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/pod/app\n")
    write(tmp_path / "sys/fs/cgroup/pod/cpu.max", "300000 100000\n")
    write(tmp_path / "sys/fs/cgroup/pod/app/cpu.max", "max 100000\n")
    assert processors(tmp_path) == 3


@pytest.mark.parametrize(("quota", "count"), [("250000", 3), ("-1", 8)])
def test_quota_of_the_first_version(tmp_path: Path, quota: str, count: int) -> None:
    write(tmp_path / "proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/a\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", f"{quota}\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")
    assert processors(tmp_path) == count


def test_no_control_groups(tmp_path: Path) -> None:
    assert processors(tmp_path) == 8


def test_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert Config("main:app").worker_count == 1
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert Config("main:app").worker_count == 3
    assert Config("main:app", workers=2).worker_count == 2
    assert 1 <= Config("main:app", workers="auto").worker_count <= 8
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with pytest.raises(ConfigError, match="expected \\$WEB_CONCURRENCY to be a number from 1 to 1000, got `many`"):
        _ = Config("main:app").worker_count
    with pytest.raises(ConfigError, match="expected `workers` of 1 or more, got `0`"):
        Config("main:app", workers=0)
