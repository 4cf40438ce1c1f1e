"""The cases of the Autobahn test suite that are quick; `make autobahn` runs those of speed and compression, too."""

import subprocess
import sys

from conftest import unlike_uvicorn
from serving import TESTS

pytestmark = unlike_uvicorn("this is about aiovoy")

QUICK = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)]
# Messages of 4 KiB of each kind of data, and of 64 bytes and 4 KiB with each choice of parameters.
QUICK += [f"12.{data}.5" for data in range(1, 6)]
QUICK += [f"13.{parameters}.{size}" for parameters in range(1, 8) for size in (2, 5)]


def test_quick_cases_pass() -> None:
    # Interrupted, not killed, if it does not end: so it stops its server.
    command = ["timeout", "--signal=INT", "120", sys.executable, str(TESTS / "autobahn.py"), *QUICK]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
