"""The cases of the Autobahn test suite that are quick; `make autobahn` runs those of speed and compression, too."""

import subprocess
import sys

import pytest

from py_tests.harness.folders import ROOT
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

QUICK = {
    "protocol": [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)],
    "compressible": ["12.1.5", "12.3.5", "12.4.5"],
    "incompressible": ["12.2.5", "12.5.5"],
    "parameters": [f"13.{choice}.{size}" for choice in range(1, 8) for size in (2, 5)],
}
"""In groups, each for a server that has compressed nothing yet."""


@pytest.mark.parametrize("cases", QUICK.values(), ids=QUICK)
def test_quick_cases_pass(cases: list[str]) -> None:
    # Interrupted, not killed, if it does not end: so it stops its server.
    command = ["timeout", "--signal=INT", "300", sys.executable, "-m", "py_tests.harness.autobahn", *cases]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
