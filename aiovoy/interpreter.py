"""Prepares the embedded interpreter for the application.

Runs inside Envoy, once, on its main thread, right after the interpreter has started.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

inside_envoy = False
"""Whether this is the interpreter that the bridge has started."""


def prepare(app: str, app_dir: str, libpython: str | None) -> None:
    """Makes `sys` and `os.environ` what the application expects.

    `libpython` is the file of the library that is loaded, if it is one of its own.
    Raises `RuntimeError` if it is not that of the environment.
    """
    global inside_envoy
    inside_envoy = True
    if libpython is not None:
        check_libpython(libpython)
    sys.argv = ["aiovoy", app]
    sys.path.insert(0, os.fspath(app_dir))
    _restore_environment()
    # The import of `signal` has given SIGINT to Python.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal = _signal_outside_main_thread(signal.signal)


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


def _restore_environment() -> None:
    """Undoes what the launcher set for Envoy alone, so that subprocesses do not inherit it."""
    original = os.environ.pop("AIOVOY_LD_LIBRARY_PATH", None)
    if os.environ.pop("AIOVOY_CONTROL", None) is not None:
        if original is None:
            os.environ.pop("LD_LIBRARY_PATH", None)
        else:
            os.environ["LD_LIBRARY_PATH"] = original


def _signal_outside_main_thread(signal_signal: Any) -> Any:
    """`signal.signal` that warns where it would raise.

    Python takes signals on its main thread only, which is Envoy's; applications run on others.
    Libraries that install a handler when they are imported or started need not fail for that:
    SIGINT and SIGTERM lead to `lifespan.shutdown` all the same.
    """

    def signal_(signalnum: Any, handler: Any, /) -> Any:
        if threading.current_thread() is threading.main_thread():
            return signal_signal(signalnum, handler)
        warn_of_handler(signalnum)
        return signal.getsignal(signalnum)

    return signal_


def warn_of_handler(signalnum: int) -> None:
    """Says that no handler for this signal is installed, and what to do instead."""
    print(
        f"aiovoy: no handler installed for {signal.Signals(signalnum).name}: signals belong to Envoy\n"
        "hint: `lifespan.shutdown` tells that the server stops",
        file=sys.stderr,
    )
