"""Prepares the embedded interpreter for the application.

Runs inside Envoy, once, on Python's main thread, right after the interpreter has started.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import aiovoy
from aiovoy.embedded import child, debugger, signals, stacks
from aiovoy.embedded.logs import log

_PRELOAD_FILE = Path("/etc/ld.so.preload")


def prepare(app: str, app_dir: str, libpython: str | None) -> None:
    """Makes `sys` and `os.environ` what the application expects.

    `libpython` is the file of the library that is loaded, if it is one of its own.
    Raises `RuntimeError` if it is not that of the environment.
    """
    aiovoy.inside_server = True
    if libpython is not None:
        check_libpython(libpython)
    sys.argv = ["aiovoy", app]
    sys.path.insert(0, os.fspath(app_dir))
    _warn_of_allocators()
    if _restore_environment():
        stacks.dump_at_signal()
    signals.share()
    child.watch()
    debugger.join()


def check_libpython(loaded: str) -> None:
    """Raises `RuntimeError` if `loaded` is another file than the environment's libpython.

    The dynamic loader takes the first library of the right name that it finds. One from another
    installation of the same Python version would seem to work.
    """
    for expected in _libpython_files():
        if expected.exists():
            if not expected.samefile(loaded):
                raise RuntimeError(
                    f"libpython of the environment `{sys.prefix}` is `{expected}`, but `{loaded}` is loaded\n"
                    f"hint: start Envoy with LD_LIBRARY_PATH={expected.parent}"
                )
            return


def _libpython_files() -> Iterator[Path]:
    """Where the environment's libpython may be: where it was built for, else beside its stdlib."""
    name = sysconfig.get_config_var("INSTSONAME")
    if name:
        for directory in (sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib")):
            if directory:
                yield Path(directory, name)


def _warn_of_allocators() -> None:
    """Says which preloaded allocators the launcher has kept from Envoy, and which have got here without it."""
    original, preload = os.environ.get("AIOVOY_LD_PRELOAD"), os.environ.get("LD_PRELOAD")
    if original is None and not preload and not _PRELOAD_FILE.exists():
        return
    from aiovoy.allocators import loaded_allocators, preloads

    for entry in preloads(original):
        if entry not in preloads(preload):
            log(
                "warning",
                f"`{entry}` of LD_PRELOAD is for subprocesses only: it is an allocator, and Envoy has its own",
            )
    for file in loaded_allocators():
        log(
            "warning",
            f"`{file}` is preloaded: it is an allocator, and Envoy has its own, so C++ extensions may crash\n"
            f"hint: take it out of LD_PRELOAD or {_PRELOAD_FILE}",
        )


def _restore_environment() -> bool:
    """Undoes what the launcher set for Envoy alone, so that subprocesses do not inherit it.

    Returns whether there is a launcher.
    """
    library_path = os.environ.pop("AIOVOY_LD_LIBRARY_PATH", None)
    preload = os.environ.pop("AIOVOY_LD_PRELOAD", None)
    if not forget_launcher():
        return False
    if library_path is None:
        os.environ.pop("LD_LIBRARY_PATH", None)
    else:
        os.environ["LD_LIBRARY_PATH"] = library_path
    if preload is not None:
        os.environ["LD_PRELOAD"] = preload
    return True


def forget_launcher() -> bool:
    """Takes from the environment what leads to the launcher. Returns whether there is one."""
    for name in ("AIOVOY_REMOVE", "AIOVOY_LOCK"):
        os.environ.pop(name, None)
    return os.environ.pop("AIOVOY_CONTROL", None) is not None
