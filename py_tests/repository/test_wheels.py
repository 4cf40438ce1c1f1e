"""How wheels are built: for which Pythons, and whose licences they carry. `wheels/test_wheels.py` tests built ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from py_tests.harness.folders import ROOT
from py_tests.harness.serving import unlike_uvicorn
from wheels.build import VERSIONS
from wheels.notices import linked, notices

pytestmark = unlike_uvicorn("this is about aiovoy")


def package(name: str, folder: Path, kind: str = "lib", source: str | None = "registry") -> dict[str, Any]:
    folder = folder / name
    folder.mkdir(exist_ok=True)
    return {
        "id": name,
        "name": name,
        "version": "1.0.0",
        "license": "MIT",
        "license_file": None,
        "manifest_path": str(folder / "Cargo.toml"),
        "source": source,
        "targets": [{"kind": [kind]}],
    }


def graph(packages: list[dict[str, Any]], dependencies: Mapping[str, list[tuple[str, str | None]]]) -> dict[str, Any]:
    nodes = [
        {
            "id": found["name"],
            "deps": [{"pkg": to, "dep_kinds": [{"kind": kind}]} for to, kind in dependencies.get(found["name"], [])],
        }
        for found in packages
    ]
    return {"packages": packages, "resolve": {"nodes": nodes}}


def test_linked_is_what_is_no_macro_and_for_no_test_or_build_script(tmp_path: Path) -> None:
    names = ["own", "used", "below", "tester", "builder", "of_macro"]
    packages = [*(package(name, tmp_path) for name in names), package("macro", tmp_path, "proc-macro")]
    uses: dict[str, list[tuple[str, str | None]]] = {
        "own": [("used", None), ("tester", "dev"), ("builder", "build"), ("macro", None)],
        "used": [("below", None), ("own", None)],
        "macro": [("of_macro", None)],
    }
    assert [found["name"] for found in linked(graph(packages, uses), "own")] == ["below", "own", "used"]


def test_each_text_is_there_once_with_all_who_bring_it(tmp_path: Path) -> None:
    packages = [package(name, tmp_path) for name in ["a", "b"]]
    for name in ["a", "b"]:
        (tmp_path / name / "LICENSE-MIT").write_text("permission is granted\n")
    (tmp_path / "b" / "NOTICE").write_text("made by b\n")
    text = notices(packages)
    assert text.count("permission is granted") == 1
    assert "a 1.0.0 (MIT)\nb 1.0.0 (MIT)\n" in text
    assert "made by b" in text


def test_crate_without_a_licence_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"`a 1\.0\.0 \(MIT\)` brings no text of its licence"):
        notices([package("own", tmp_path, source=None), package("a", tmp_path)])


def test_release_tests_every_version() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    assert release["jobs"]["test"]["strategy"]["matrix"]["python"] == VERSIONS
