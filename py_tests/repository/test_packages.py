"""`aiovoy.launcher` and `aiovoy.embedded` run in different processes, and neither imports the other."""

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import aiovoy
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

TOP = Path(aiovoy.__file__).parent


def imports(path: Path) -> Iterator[str]:
    """The full names of all that a module imports, wherever in it."""
    package = ".".join(path.relative_to(TOP.parent).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                # The public names are of the launcher.
                home = aiovoy._HOMES.get(alias.name, "") if module == "aiovoy" else ""
                yield f"{module}{home}.{alias.name}"


@pytest.mark.parametrize(("package", "other"), [("launcher", "embedded"), ("embedded", "launcher")])
def test_neither_package_imports_the_other(package: str, other: str) -> None:
    found = {str(path.relative_to(TOP)): set(imports(path)) for path in sorted((TOP / package).rglob("*.py"))}
    assert f"{package}/__init__.py" in found
    wrong = [
        (file, name) for file, names in found.items() for name in names if f"{name}.".startswith(f"aiovoy.{other}.")
    ]
    assert wrong == []
