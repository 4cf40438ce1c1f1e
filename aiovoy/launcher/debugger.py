"""A debugger that follows this process into its children, as VS Code's (debugpy) and PyCharm's do.

Both are pydevd, and follow only children that are started as Python. That is enough for `aiovoy upstream`; an Envoy
has to join by itself.
"""

import logging
import sys

_logger = logging.getLogger("aiovoy.error")


def follows() -> bool:
    """Whether there is one: workers may stand still for as long as somebody looks at them.

    Who has disconnected counts, too: sessions of the workers do not end with the one of this process.
    """
    pydevd = sys.modules.get("pydevd")
    setup = getattr(getattr(pydevd, "SetupHolder", None), "setup", None) or {}
    return bool(setup.get("multiprocess") or setup.get("multiproc"))


def code_to_join() -> str | None:
    """What the Python of one child has to run to be debugged, too: what pydevd would have a `python -c` run first."""
    if not follows():
        return None
    try:
        from _pydev_bundle.pydev_monkey import patch_args

        code: str = patch_args(["python", "-c", ""])[2]
    except Exception as error:
        _logger.warning("the debugger does not follow into Envoy: %r", error)
        return None
    return code or None
