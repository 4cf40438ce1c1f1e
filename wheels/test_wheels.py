"""The wheels in dist, installed for each Python that is here, and run without Rust."""

import contextlib
import json
import os
import platform
import re
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MACHINE = platform.machine()
WHEELS = sorted((ROOT / "dist").glob(f"aiovoy-*-manylinux_*_{MACHINE}.whl"))
assert WHEELS, "no wheels in dist: `make wheels` builds them"

DEADLINE = 60


def python_of(wheel: Path) -> str:
    """Its tag: `cp311`."""
    return wheel.stem.split("-")[2]


def interpreters(tag: str) -> list[str]:
    """Each Python of that version that is on PATH, or of pyenv."""
    name = f"python3.{tag.removeprefix('cp3')}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found: dict[str, str] = {}
    for folder in [*os.environ["PATH"].split(os.pathsep), *map(str, pyenv.glob("versions/*/bin"))]:
        if os.access(python := os.path.join(folder, name), os.X_OK):
            # pyenv has commands of versions that are not chosen, too.
            asked = [python, "-c", "import sys; print(sys.base_prefix)"]
            if prefix := subprocess.run(asked, capture_output=True, text=True, check=False).stdout:
                found.setdefault(prefix, python)
    return list(found.values())


def installations() -> Iterator[object]:
    for wheel in WHEELS:
        tag = python_of(wheel)
        pythons = interpreters(tag)
        if not pythons:
            yield pytest.param((wheel, ""), id=tag, marks=pytest.mark.skip(reason=f"no Python of {tag} is here"))
        for python in pythons:
            yield pytest.param((wheel, python), id=f"{tag}-{python}")


@pytest.fixture(scope="module", params=installations())
def commands(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that has the wheel, and what the example needs."""
    wheel, python = request.param
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([python, "-m", "venv", environment], check=True)
    pip = [str(environment / "bin/pip"), "--disable-pip-version-check", "--quiet", "install", "--only-binary=:all:"]
    subprocess.run([*pip, str(wheel), "fastapi", "python-multipart"], check=True)
    return environment / "bin"


@pytest.mark.parametrize("wheel", WHEELS, ids=python_of)
def test_wheel_has_what_its_name_says(wheel: Path) -> None:
    name, version, *tags = wheel.stem.split("-")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel) as files:
        assert f"Tag: {'-'.join(tags)}\n" in files.read(f"{info}/WHEEL").decode()
        named = set(files.namelist())
        third_party = files.read(f"{info}/licenses/LICENSE-THIRD-PARTY").decode()
    suffix = f".cpython-{tags[0].removeprefix('cp')}-{MACHINE}-linux-gnu.so"
    libraries = {path for path in named if re.search(r"\.so\b", path)}
    assert libraries == {f"aiovoy/bridge{suffix}", f"aiovoy/network{suffix}"}
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/LICENSE-RUST-STD.html"} <= named
    assert re.search(r"^pyo3 \d", third_party, re.MULTILINE)


@contextlib.contextmanager
def served(commands: Path, log: Path, *words: str) -> Iterator[str]:
    """The example's address."""
    options = ["fastapi_app:app", "--app-dir", str(ROOT / "examples"), "--port", "0"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [str(commands / "aiovoy"), *words, *options], cwd=log.parent, env={"PATH": str(commands)}, stderr=stderr
        )
    try:
        end = time.monotonic() + DEADLINE
        while not (address := re.search(r"http://\S+:\d+", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield address.group()
    finally:
        process.terminate()
        code = process.wait(DEADLINE)
    assert code == 0, log.read_text()


@pytest.mark.parametrize("words", [[], ["upstream"]], ids=["envoy", "upstream"])
def test_example_answers(commands: Path, words: list[str], tmp_path: Path) -> None:
    with served(commands, tmp_path / "log", *words) as address:
        note = json.dumps({"text": "buy milk"}).encode()
        add = urllib.request.Request(f"{address}/notes", note, {"content-type": "application/json"})
        with urllib.request.urlopen(add, timeout=DEADLINE) as added:
            assert added.status == 201
            number = json.load(added)["number"]
        with urllib.request.urlopen(f"{address}/notes/{number}", timeout=DEADLINE) as read:
            assert json.load(read) == {"text": "buy milk"}
