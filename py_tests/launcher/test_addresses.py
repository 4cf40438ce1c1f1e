"""`--bind`, `--fd` and the sockets of systemd, as they are read."""

import os
from pathlib import Path
from typing import Any

import pytest

from aiovoy import Config, ConfigError, StartupError
from aiovoy.launcher.addresses import Place, parse_bind
from aiovoy.launcher.inherited import GivenSocket, passed_by_systemd
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:80", Place("127.0.0.1", 80)),
        ("localhost", Place("localhost", 8000)),
        ("[::1]:80", Place("::1", 80)),
        ("[::]", Place("::", 8000)),
        (":80", Place("", 80)),
        ("unix:/run/a.sock", Place(path="/run/a.sock")),
        ("unix:///run/a.sock", Place(path="/run/a.sock")),
        ("unix:a.sock", Place(path="a.sock")),
        ("fd://3", Place(descriptor=3)),
        ("fd://web", Place(descriptor="web")),
    ],
)
def test_bind(text: str, place: Place) -> None:
    assert parse_bind(text, 8000) == place


@pytest.mark.parametrize("text", ["", "a:b", "::1:80", "[::1", "a:65536", "unix:", "fd://", "http://a:80", "a:80/x"])
def test_bind_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="expected an address as `HOST:PORT`"):
        parse_bind(text, 8000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uds": "a.sock", "fd": 3}, "expected one of `uds`, `fd` and `bind`, got `uds` and `fd`"),
        ({"bind": "a:1", "fd": 3}, "got `fd` and `bind`"),
        ({"fd": 2}, "expected a descriptor of 3 or more, got `2`"),
        ({"bind": ["fd://0"]}, "expected a descriptor of 3 or more, got `0`"),
        ({"bind": ["a:1", "b:c"]}, "got `b:c`"),
    ],
)
def test_settings_that_contradict(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config("main:app", **settings)
    assert message in str(caught.value)


def pass_sockets(monkeypatch: pytest.MonkeyPatch, count: str, names: str | None = None, pid: int | None = None) -> None:
    monkeypatch.setenv("LISTEN_PID", str(pid or os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    if names is not None:
        monkeypatch.setenv("LISTEN_FDNAMES", names)


def test_sockets_of_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passed_by_systemd() == {}
    pass_sockets(monkeypatch, "2")
    assert passed_by_systemd() == {3: "unknown", 4: "unknown"}
    pass_sockets(monkeypatch, "2", "web:admin")
    assert passed_by_systemd() == {3: "web", 4: "admin"}
    pass_sockets(monkeypatch, "none")
    assert passed_by_systemd() == {}


def test_sockets_of_systemd_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pass_sockets(monkeypatch, "2", pid=os.getppid())
    assert passed_by_systemd() == {}


def test_name_that_systemd_has_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    pass_sockets(monkeypatch, "1", "web")
    with pytest.raises(StartupError, match="systemd has passed no socket of the name `admin`: web"):
        GivenSocket("admin")


def test_descriptors_that_are_no_sockets(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot listen on descriptor 999: bad file descriptor"):
        GivenSocket(999)
    with (tmp_path / "file").open("w") as file, pytest.raises(StartupError, match="it is no socket"):
        GivenSocket(file.fileno())
