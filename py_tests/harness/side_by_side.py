"""Runs all tests in Python, in three lines at a time, since tests wait more than they compute.

    python -m py_tests.harness.side_by_side [COMMAND...]

What a line says comes after what the one before it has said, and what the command says last, which runs in the last
line. The exit code is that of the first run that has failed, else 0.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
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
# None of these is of the conformance page, whose tests have to be in one run. All lines take about as long.
OTHERS = [
    "py_tests/workers",
    "py_tests/router",
    "py_tests/operations",
    "py_tests/frameworks",
    "py_tests/launcher",
    "py_tests/process",
    "py_tests/repository",
]

LINES: list[list[Run]] = [
    [([*PYTEST, *(f"--ignore={folder}" for folder in OTHERS)], {})],
    [([*PYTEST, *OTHERS], {})],
    [
        ([*PYTEST, *CONFORMANCE_WITHOUT_ENVOY, "--every=3"], {"AIOVOY_TEST_FRONT": OWN}),
        ([*PYTEST, *ROUTER, "--every=2"], {"AIOVOY_TEST_RESPONSE_PATH": "router"}),
        ([*PYTEST, *WITHOUT_ENVOY, "--every=3"], {"AIOVOY_TEST_FRONT": OWN}),
    ],
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
    first, *others = LINES
    others[-1] += [(sys.argv[1:], {})] if sys.argv[1:] else []
    with ExitStack() as files:
        outputs = [files.enter_context(tempfile.TemporaryFile()) for _ in others]
        threads = [
            threading.Thread(target=run_all, args=[runs, output, codes])
            for runs, output in zip(others, outputs, strict=True)
        ]
        for thread in threads:
            thread.start()
        run_all(first, None, codes)
        for thread, output in zip(threads, outputs, strict=True):
            thread.join()
            output.seek(0)
            shutil.copyfileobj(output, sys.stdout.buffer)
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
