"""The rooms of the bridge, which `src/lib.rs` draws: who may know whom, read from the paths in the sources."""

import re
from pathlib import Path

import pytest

from py_tests.harness.folders import ROOT

SOURCES = ROOT / "src"

GROUNDS = {"websocket", "config"}

# A room, and what it may know besides itself.
MAY_KNOW = {
    "life": {"stream", "app", "exchange", *GROUNDS},
    "stream": {"exchange", *GROUNDS},
    "app": {"exchange", *GROUNDS},
    "exchange": GROUNDS,
    "websocket": set(),
    "config": set(),
}

# Of crates: no thread of Envoy's attaches to Python, and what both sides share knows neither.
MAY_NOT_USE = {
    "stream": {"pyo3", "pyo3_async_runtimes"},
    "exchange": {"pyo3", "pyo3_async_runtimes", "envoy"},
    "websocket": {"pyo3", "pyo3_async_runtimes", "envoy", "tokio"},
    "config": {"pyo3", "pyo3_async_runtimes", "envoy", "tokio"},
}


# Plays the other side of the mailboxes, for tests alone.
TESTS_MAY_KNOW = {"envoy_thread"}


def files(room: str) -> list[Path]:
    return [SOURCES / "config.rs"] if room == "config" else sorted((SOURCES / room).rglob("*.rs"))


def parts(path: Path) -> tuple[str, str]:
    """The text of a source without comments: the bridge's, and that of its tests."""
    text = re.sub(r"//.*", "", path.read_text())
    if "tests" in path.relative_to(SOURCES).with_suffix("").parts:
        return "", text
    text, _, tests = text.partition("#[cfg(test)]\nmod tests {")
    return text, tests


def paths(text: str, root: str) -> set[str]:
    """What is named right below `root`, such as `crate`, as a path or in a group of a `use`."""
    named = set(re.findall(rf"(?<![\w:]){root}::(\w+)", text))
    for group in re.findall(rf"(?<![\w:]){root}::\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}", text):
        named |= set(re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{[^{}]*\}", "", group)))
    return named


def test_every_room_is_known_here() -> None:
    modules = set(re.findall(r"^mod (\w+);", (SOURCES / "lib.rs").read_text(), re.MULTILINE))
    assert modules - {"envoy_thread"} == set(MAY_KNOW)
    assert all(files(room) for room in MAY_KNOW)


@pytest.mark.parametrize("room", MAY_KNOW)
def test_room_knows_only_what_it_may(room: str) -> None:
    known = MAY_KNOW[room] | {room}
    for path in files(room):
        for text, allowed in zip(parts(path), (known, known | TESTS_MAY_KNOW), strict=True):
            unknown = paths(text, "crate") - allowed
            assert not unknown, f"{path.relative_to(SOURCES)} knows {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("room", MAY_KNOW)
def test_room_is_left_by_no_path_but_that_of_the_crate(room: str) -> None:
    """`super` leads to the crate's root from a room's page, and from deeper files with more of it."""
    for path in files(room):
        inner = path.relative_to(SOURCES).with_suffix("")
        depth = len(inner.parts) - (inner.name == "mod")
        climbs = [len(chain.split("::")) - 1 for chain in re.findall(r"(?:super::)+", parts(path)[0])]
        assert max(climbs, default=0) < depth, f"{inner}: write `crate::` for what is outside the room"


@pytest.mark.parametrize("room", MAY_NOT_USE)
def test_room_uses_only_crates_of_its_thread(room: str) -> None:
    for path in files(room):
        used = {crate for crate in MAY_NOT_USE[room] if re.search(rf"(?<![\w:]){crate}::", parts(path)[0])}
        assert not used, f"{path.relative_to(SOURCES)} uses {', '.join(sorted(used))}"


def test_forbidden_paths_are_seen() -> None:
    """In every form in which Rust writes them."""
    for text in [
        "use crate::app::asgi;",
        "pub(crate) use crate::app;",
        "use crate::{app::asgi, config::Config};",
        "use crate::{\n    config::{Config, Mount},\n    app,\n};",
        "let call = crate::app::asgi::call::Call::new();",
        "fn f(_: &crate::app::Call) {}",
    ]:
        assert "app" in paths(text, "crate"), text
    assert paths("use crate::{config::{Config, app}};", "crate") == {"config"}
    assert paths("use my_crate::app;", "crate") == set()
