"""Runs all tests in Python, in two lines at a time, since tests wait more than they compute.

    python -m py_tests.harness.side_by_side [COMMAND...]

What the second line says comes after the first one's, and what the command says last, which runs in the second line
too. The exit code is that of the first run that has failed, else 0.
"""

import os
import subprocess
import sys
import tempfile
import threading
from typing import IO

from py_tests.harness.conformance import RESULTS
from py_tests.harness.folders import ROOT
from py_tests.harness.serving import OWN

Run = tuple[list[str], dict[str, str]]
"""A command, and variables for it."""

PYTEST = [sys.executable, "-m", "pytest"]

# What applications and clients see is the same if requests go through Envoy's router; of that, half.
ROUTER = [
    "py_tests/http",
    "py_tests/websocket",
    "py_tests/frameworks/test_grpc.py",
    "py_tests/lifecycle/test_shutdown.py",
]

# So it is without Envoy: a third of what the conformance page is made of, and of the rest.
CONFORMANCE_WITHOUT_ENVOY = ["py_tests/http", "py_tests/websocket", "py_tests/lifecycle", "py_tests/network"]
WITHOUT_ENVOY = [
    "py_tests/hostile",
    "py_tests/frameworks",
    "py_tests/process",
    "py_tests/operations",
    "py_tests/workers",
]
# None of these is of the conformance page, whose tests have to be in one run. Both lines take about as long.
OTHERS = ["py_tests/workers", "py_tests/router", "py_tests/operations"]

FIRST: list[Run] = [
    ([*PYTEST, *(f"--ignore={folder}" for folder in OTHERS)], {}),
    ([*PYTEST, *CONFORMANCE_WITHOUT_ENVOY, "--every=3"], {"AIOVOY_TEST_FRONT": OWN}),
]
SECOND: list[Run] = [
    ([*PYTEST, *OTHERS], {}),
    ([*PYTEST, *ROUTER, "--every=2"], {"AIOVOY_TEST_RESPONSE_PATH": "router"}),
    ([*PYTEST, *WITHOUT_ENVOY, "--every=3"], {"AIOVOY_TEST_FRONT": OWN}),
]


def run_all(runs: list[Run], output: IO[bytes] | None, codes: list[int]) -> None:
    for command, variables in runs:
        ended = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **variables}, stdout=output, stderr=output, check=False
        )
        codes.append(ended.returncode)


def main() -> int:
    codes: list[int] = []
    for results in RESULTS.values():
        results.unlink(missing_ok=True)
    more: list[Run] = [(sys.argv[1:], {})] if sys.argv[1:] else []
    with tempfile.TemporaryFile() as output:
        second = threading.Thread(target=run_all, args=[[*SECOND, *more], output, codes])
        second.start()
        run_all(FIRST, None, codes)
        second.join()
        output.seek(0)
        sys.stdout.buffer.write(output.read())
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
