"""The rooms of the bridge, which `src/lib.rs` draws: who may know whom, read from the paths in the sources."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from py_tests.harness.folders import ROOT

SOURCES = ROOT / "src"

# A room, and what it may know besides itself.
MAY_KNOW = {
    "module": {"life", "stream", "exchange", "config"},
    "extension": {"life", "app", "config"},
    "life": {"app", "network", "exchange", "config"},
    "stream": {"admission", "exchange", "websocket", "config"},
    "network": {"admission", "exchange", "websocket", "config"},
    "admission": {"exchange", "config"},
    "app": {"exchange", "config"},
    "exchange": {"config"},
    "websocket": {"exchange", "config"},
    "config": set(),
}

# Plays the other side of the mailboxes, for tests alone.
TESTS_MAY_KNOW = {"envoy_thread"}

# Of crates: no thread of Envoy's attaches to Python, and what both sides share knows neither.
PYTHON = {"pyo3", "pyo3_async_runtimes"}
# The path through Envoy's router is Envoy's side's alone, and the server of HTTP the network's.
UPSTREAM = {"upstream"}
MAY_NOT_USE = {
    "module": {*PYTHON, *UPSTREAM},
    "extension": UPSTREAM,
    "life": UPSTREAM,
    "stream": PYTHON,
    "network": {*PYTHON, "envoy"},
    "app": UPSTREAM,
    "admission": {*PYTHON, *UPSTREAM, "envoy", "tokio"},
    "exchange": {*PYTHON, *UPSTREAM, "envoy"},
    "websocket": {*PYTHON, *UPSTREAM, "envoy", "tokio"},
    "config": {*PYTHON, *UPSTREAM, "envoy", "tokio"},
}

# To the application's side Envoy is the process that it lives in, and has no streams.
OF_THE_PROCESS = {
    "LogForm",
    "divert_log",
    "duplicate",
    "end_diversion",
    "exit_now",
    "is_forked",
    "is_log_diverted",
    "level_name",
    "log_directly",
    "set_log_form",
    "waiting",
}

NO_CODE = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | r(\#*)".*?"\1 | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])'""", re.DOTALL | re.VERBOSE
)


def files(room: str) -> list[Path]:
    alone = SOURCES / f"{room}.rs"
    return [alone] if alone.is_file() else sorted((SOURCES / room).rglob("*.rs"))


def parts(path: Path) -> tuple[str, str]:
    """The code of a source, without comments and literals: the bridge's, and that of its tests."""
    text = NO_CODE.sub(" ", path.read_text())
    if "tests" in path.relative_to(SOURCES).with_suffix("").parts:
        return "", text
    text, _, tests = text.partition("#[cfg(test)]\nmod tests {")
    return text, tests


def depth(path: Path) -> int:
    """How many modules a source is below the crate's root."""
    inner = path.relative_to(SOURCES).with_suffix("")
    return len(inner.parts) - (inner.name == "mod")


def tree(text: str, at: int = 0) -> tuple[list[list[str]], int]:
    """The paths of a `use` tree, or of an expression's path, that begins at `at`; and where it ends."""
    at = re.compile(r"\s*").match(text, at).end()  # type: ignore[union-attr]
    if text.startswith("{", at):
        found, at = [], at + 1
        while not (end := re.compile(r"[\s,]*}").match(text, at)):
            comma = re.compile(r"[\s,]*").match(text, at)
            branches, at = tree(text, comma.end() if comma else at)
            found += branches
        return found, end.end()
    name = re.compile(r"\*|(?:r#)?\w+").match(text, at)
    if name is None:
        return [[]], at + 1
    at = name.end()
    if not (more := re.compile(r"\s*::\s*(?=[\w{*])").match(text, at)):
        renamed = re.compile(r"\s+as\s+\w+").match(text, at)
        return [[name.group()]], renamed.end() if renamed else at
    branches, at = tree(text, more.end())
    return [[name.group(), *branch] for branch in branches], at


def paths(text: str) -> Iterator[list[str]]:
    """All paths that begin with `crate` or `super`."""
    for root in re.finditer(r"(?<![\w:])(?:crate|super)\b(?!\))", text):
        yield from tree(text, root.start())[0]


def left(text: str, above: int) -> set[str]:
    """What code names right below the crate's root, being in a module that is `above` levels below it."""
    named = set()
    for path in paths(text):
        if path[0] == "crate":
            named.add(path[1] if len(path) > 1 else "crate")
        elif path.count("super") >= above:
            named.add("super")  # write `crate` for what is outside of the room
    return named


def crates(text: str, names: set[str]) -> set[str]:
    return {name for name in names if re.search(rf"(?<![\w:.])(?:::)?{name}\b(?!\s*:[^:])", text)}


def test_every_room_is_known_here() -> None:
    entry = NO_CODE.sub(" ", (SOURCES / "lib.rs").read_text())
    modules = set(re.findall(r"^(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)", entry, re.MULTILINE))
    assert modules - TESTS_MAY_KNOW == set(MAY_KNOW)
    assert all(files(room) for room in MAY_KNOW)


@pytest.mark.parametrize("room", MAY_KNOW)
def test_room_knows_only_what_it_may(room: str) -> None:
    known = MAY_KNOW[room] | {room}
    for path in files(room):
        code, tests = parts(path)
        assert not re.search(r"#\[path\b|\binclude!", code + tests), path
        # The tests of a file are a module of their own in it.
        inner = depth(path) + bool(code)
        for text, above, allowed in [(code, depth(path), known), (tests, inner, known | TESTS_MAY_KNOW)]:
            unknown = left(text, above) - allowed
            assert not unknown, f"{path.relative_to(SOURCES)} knows {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("room", MAY_NOT_USE)
def test_room_uses_only_crates_of_its_thread(room: str) -> None:
    for path in files(room):
        used = crates(parts(path)[0], MAY_NOT_USE[room])
        assert not used, f"{path.relative_to(SOURCES)} uses {', '.join(sorted(used))}"


def test_application_knows_envoy_as_its_process_alone() -> None:
    for path in files("app"):
        code = parts(path)[0]
        named = set(re.findall(r"(?<![\w:.])(?:::)?envoy\s*(?:::\s*(\w+))?", code))
        assert named <= OF_THE_PROCESS, f"{path.relative_to(SOURCES)} uses {named - OF_THE_PROCESS} of envoy"


@pytest.mark.parametrize(
    "text",
    [
        "use crate::app::asgi;",
        "pub(crate) use crate::app;",
        "use crate::{app::asgi, config::Config};",
        "use crate::{\n    config::{Config, Mount},\n    app,\n};",
        "use crate::{exchange::{file::{A, B}, C}, app::X};",
        "use crate::{exchange::{file::{A as Z, B}, C,}, app::{asgi::{call::Call}},};",
        "use crate as root;",
        "use crate::{self as root};",
        "use crate::*;",
        "use crate::{exchange::Fields, *};",
        "let call = crate::app::asgi::call::Call::new();",
        "fn f(_: &crate :: app::Call) {}",
        "f(crate::app::g())",
        'let url = "http://x"; crate::app::f();',
        "use super::super::app::X;",
        "use super::{super::app::X};",
        "use super::{super::{app::X}, tls};",
    ],
)
def test_forbidden_path_is_seen(text: str) -> None:
    """Seen from a file right in the room of streams."""
    assert left(NO_CODE.sub(" ", text), 2) - MAY_KNOW["stream"] - {"stream"}


@pytest.mark.parametrize(
    "text",
    [
        "use crate::{config::{Config, app}};",
        "use my_crate::app;",
        "// use crate::app;",
        'let text = "crate::app";',
        "use super::app;",
        "pub(super) fn f() {}",
        "pub(crate) app: u8,",
        "use crate::exchange::{\n    Fields as F, message::{Inbound, Outbound},\n};\nuse super::tls;",
    ],
)
def test_other_path_is_none(text: str) -> None:
    assert not left(NO_CODE.sub(" ", text), 2) - MAY_KNOW["stream"]


@pytest.mark.parametrize(
    "text",
    ["use pyo3::Python;", "use ::pyo3::Python;", "use pyo3;", "use pyo3 as p;", "extern crate pyo3;", "f(pyo3::x())"],
)
def test_forbidden_crate_is_seen(text: str) -> None:
    assert crates(text, PYTHON) == {"pyo3"}
