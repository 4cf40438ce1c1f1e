"""Builds manylinux wheels for this machine's architecture into dist.

    python -m wheels.build [VERSION...]

They are built from the source distribution, for an older glibc than is installed here, which zig links for. The
interpreters they are for need not be here: pyo3 is told by a file what it would ask them.
"""

import argparse
import os
import platform
import shutil
import subprocess
import tarfile
import venv
from pathlib import Path

from aiovoy import __version__
from wheels.notices import write_notices

ROOT = Path(__file__).parents[1]
WORK = ROOT / "target/wheels"
BIN = WORK / "venv/bin"
SOURCE = WORK / f"aiovoy-{__version__}"
DIST = ROOT / "dist"

VERSIONS = ["3.11", "3.12", "3.13", "3.14"]
MACHINE = platform.machine()
GLIBC = "2.28"
PLATFORM = f"manylinux_{GLIBC.replace('.', '_')}_{MACHINE}"


def run(*command: str | Path, **variables: str) -> None:
    print("+", *command, flush=True)
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    if subprocess.run(command, cwd=WORK, env={**os.environ, "PATH": path, **variables}, check=False).returncode:
        raise SystemExit("what it says above has failed")


def make_tools() -> None:
    requirements = Path(__file__).with_name("requirements.txt")
    if not BIN.exists():
        venv.create(BIN.parent, with_pip=True)
    run(BIN / "pip", "install", "--disable-pip-version-check", "--quiet", "--requirement", requirements)


def unpack_source() -> None:
    """The source distribution into dist, and unpacked, with the notices. What cargo has built there before is kept."""
    run(BIN / "python", "-m", "build", "--sdist", "--no-isolation", "--outdir", DIST, ROOT)
    shutil.rmtree(SOURCE, ignore_errors=True)
    with tarfile.open(DIST / f"{SOURCE.name}.tar.gz") as files:
        files.extractall(WORK, filter="data")
    (WORK / "cargo").mkdir(exist_ok=True)
    (SOURCE / "target").symlink_to(WORK / "cargo")
    write_notices(SOURCE, f"{MACHINE}-unknown-linux-gnu")


def make_linker() -> Path:
    """zig's, as rustc calls it.

    By itself it would link an unwinder of its own, which knows no exception of others. The one of this machine may
    want more of glibc than there is in the older one, which does not matter where the wheel runs.
    """
    found = subprocess.run(["cc", "-print-file-name=libgcc_s.so.1"], stdout=subprocess.PIPE, text=True, check=True)
    linker = WORK / "linker"
    zig = f"cargo-zigbuild zig cc -- -target {MACHINE}-linux-gnu.{GLIBC} -Wl,--allow-shlib-undefined"
    linker.write_text(f'#!/bin/sh\nexec {zig} "$@" {found.stdout.strip()}\n')
    linker.chmod(0o755)
    return linker


def make_libpython(version: str, linker: Path) -> Path:
    """What the bridge is linked to in place of the libpython that it finds when it is loaded.

    Of its functions it has one that the bridge calls: none would be as if it were not needed.
    """
    folder = WORK / f"libpython{version}"
    folder.mkdir(exist_ok=True)
    source = folder / "libpython.c"
    source.write_text("void Py_InitializeFromConfig(void) {}\n")
    library = f"libpython{version}.so"
    run(linker, "-shared", f"-Wl,-soname,{library}.1.0", "-o", folder / library, source)
    return folder


def build_wheel(version: str, linker: Path) -> None:
    libpython = make_libpython(version, linker)
    config = libpython / "pyo3.txt"
    config.write_text(f"version={version}\nlib_name=python{version}\nlib_dir={libpython}\npointer_width=64\n")
    tag = version.replace(".", "")
    built = libpython / "dist"
    for folder in [built, SOURCE / "build"]:  # else setuptools takes the libraries of other versions, too
        shutil.rmtree(folder, ignore_errors=True)
    variables = {
        f"CARGO_TARGET_{MACHINE.upper()}_UNKNOWN_LINUX_GNU_LINKER": str(linker),
        "CARGO_PROFILE_RELEASE_STRIP": "debuginfo",
        "PYO3_CONFIG_FILE": str(config),
        "SETUPTOOLS_EXT_SUFFIX": f".cpython-{tag}-{MACHINE}-linux-gnu.so",
    }
    run(BIN / "python", "-m", "build", "--wheel", "--no-isolation", "--outdir", built, SOURCE, **variables)
    run(BIN / "wheel", "tags", "--remove", "--python-tag", f"cp{tag}", "--abi-tag", f"cp{tag}", *built.iterdir())
    # Without the exception it would take out that libpython is needed.
    audit = ["auditwheel", "repair", "--plat", PLATFORM, "--only-plat", "--exclude", f"libpython{version}.so.1.0"]
    run(*audit, "--wheel-dir", DIST, *built.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m wheels.build", description="builds wheels into dist")
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"of Python; all without: {', '.join(VERSIONS)}")
    versions = parser.parse_args().versions or VERSIONS
    if unknown := [version for version in versions if version not in VERSIONS]:
        parser.error(f"version must be one of {', '.join(VERSIONS)}, not `{unknown[0]}`")
    for tool, package in [("cargo", "Rust, see https://rustup.rs"), ("cc", "a C compiler, such as gcc")]:
        if shutil.which(tool) is None:
            raise SystemExit(f"`{tool}` is missing: install {package}")
    WORK.mkdir(parents=True, exist_ok=True)
    DIST.mkdir(exist_ok=True)
    make_tools()
    unpack_source()
    linker = make_linker()
    for version in versions:
        build_wheel(version, linker)


if __name__ == "__main__":
    main()
