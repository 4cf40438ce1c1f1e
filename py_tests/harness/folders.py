"""Where the repository's folders are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "py_tests"
EXAMPLES = ROOT / "examples"
