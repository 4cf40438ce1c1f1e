"""Joins the debugger that the launcher runs in.

Runs inside Envoy, once, on Python's main thread, before the application is imported.
"""

from __future__ import annotations

import os
import sys

from aiovoy.embedded.logs import log

_NO_VALIDATION = "PYDEVD_DISABLE_FILE_VALIDATION"
"""A variable of pydevd's, which otherwise warns that the modules of the standard library are frozen."""


def join() -> None:
    """Returns once the debugger has its breakpoints, if there is one. Never raises: the server starts without it."""
    code = os.environ.pop("AIOVOY_DEBUGGER", None)
    if code is None:
        return
    path, validation = sys.path[:], os.environ.get(_NO_VALIDATION)
    os.environ[_NO_VALIDATION] = "1"
    try:
        exec(code, {"__name__": __name__})
    except Exception as error:
        log("warning", f"the debugger does not follow into Envoy: {error!r}")
    finally:
        if validation is None:
            del os.environ[_NO_VALIDATION]
        else:
            os.environ[_NO_VALIDATION] = validation
        # Modules of the debugger must not take the place of the application's.
        sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
