"""`aiovoy.launcher` and `aiovoy.embedded` run in different processes: neither imports the other.

`aiovoy.upstream` has both in one, and neither imports that.
"""

import ast
import re
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import aiovoy
from aiovoy.logs import UVICORNS
from py_tests.harness.folders import ROOT
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

TOP = Path(aiovoy.__file__).parent

# What each may import of aiovoy besides itself. All else at the top has the launcher behind it.
MAY_IMPORT = {
    "launcher": {"aiovoy", "aiovoy.__version__", "aiovoy.allocators", "aiovoy.logs"},
    "embedded": {"aiovoy", "aiovoy.allocators", "aiovoy.logs"},
    "upstream": {
        "aiovoy",
        "aiovoy.logs",
        "aiovoy.network",
        "aiovoy.embedded",
        "aiovoy.embedded.interpreter",
        "aiovoy.embedded.logs",
        "aiovoy.embedded.signals",
        "aiovoy.launcher",
        "aiovoy.launcher.appname",
        "aiovoy.launcher.bootstrap",
        "aiovoy.launcher.cli",
        "aiovoy.launcher.config",
        "aiovoy.launcher.descriptors",
        "aiovoy.launcher.environ",
        "aiovoy.launcher.errors",
        "aiovoy.launcher.listening",
        "aiovoy.launcher.logs",
        "aiovoy.launcher.port",
        "aiovoy.launcher.run",
        "aiovoy.launcher.server",
        "aiovoy.launcher.stderr",
        "aiovoy.launcher.terminal",
        "aiovoy.launcher.workers.common",
        "aiovoy.launcher.workers.process",
    },
}

# What each may have of the top by the name of the package alone.
MAY_READ = {"inside_server", "allocators"}


def imports(text: str, package: str) -> Iterator[str]:
    """The full names of what is imported of aiovoy, wherever in the text of a module of `package`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "aiovoy":
            names = [] if node.attr in MAY_READ else [f"aiovoy.{node.attr}"]
        elif isinstance(node, ast.Constant) and re.fullmatch(r"aiovoy(\.(?!toml)\w+)+", str(node.value)):
            names = [str(node.value)] if node.value not in UVICORNS else []  # of `import_module` and the like
        else:
            names = []
        yield from (name for name in names if f"{name}.".startswith("aiovoy."))


def forbidden(text: str, package: str, within: str = "") -> set[str]:
    """What a module of `package`, or of the package `within` it, must not import."""
    own = f"aiovoy.{package}."
    allowed = MAY_IMPORT[package]
    return {
        name
        for name in imports(text, f"{own}{within}".rstrip("."))
        if not f"{name}.".startswith(own)
        and name not in allowed
        and name.rpartition(".")[0] not in allowed - {"aiovoy"}
    }


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_package_imports_only_what_it_may(package: str) -> None:
    files = sorted((TOP / package).rglob("*.py"))
    assert TOP / package / "__init__.py" in files
    within = {path: ".".join(path.parent.relative_to(TOP / package).parts) for path in files}
    found = {path.name: forbidden(path.read_text(), package, within[path]) for path in files}
    assert {name: names for name, names in found.items() if names} == {}


def test_bridge_imports_only_what_is_embedded() -> None:
    named = {
        name for path in (ROOT / "src").rglob("*.rs") for name in re.findall(r'"(aiovoy\.\w+)\.', path.read_text())
    }
    assert named == {"aiovoy.embedded"}


@pytest.mark.parametrize(
    "text",
    [
        "from aiovoy import launcher",
        "from aiovoy import *",
        "from aiovoy import Config",
        "from aiovoy import pytest_plugin",
        "from aiovoy.environ import libpython_path",
        "from .. import launcher",
        "from ..launcher.port import HeldPort",
        "from ..environ import libpython_path",
        "import aiovoy.launcher.port",
        "import aiovoy.launcher as other",
        "def f():\n    from ..launcher import port",
        "import aiovoy\naiovoy.Server",
        "import_module('aiovoy.launcher.port')",
    ],
)
def test_forbidden_import_is_seen(text: str) -> None:
    assert forbidden(text, "embedded")


def test_relative_import_counts_from_the_package_that_it_stands_in() -> None:
    assert not forbidden("from ..config import Config", "launcher", "workers")
    assert forbidden("from ...embedded import child", "launcher", "workers")
