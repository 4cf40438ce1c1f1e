"""The environment of a worker: its variables, what it loads of ours, and the libpython that the bridge needs."""

import itertools
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from .config import Config
from .errors import StartupError
from .port import reason

SYSTEMD = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""Variables by which systemd passes sockets (sd_listen_fds(3))."""


def worker_environ(config: Config, control: Path, worker: int) -> dict[str, str]:
    """The variables a worker starts with: our own, those of `env_file` that are not set yet, and the bridge's.

    `worker` is the number of its slot, from 1, by which processes of one server tell themselves apart.
    """
    environ = {**read_env_file(config.env_file), **os.environ}
    environ["AIOVOY_CONTROL"] = str(control)
    environ["AIOVOY_WORKER"] = str(worker)
    entries = environ.get("PYTHONPATH", "").split(os.pathsep)
    if (folder := _sitecustomize_of_pythonpath()) is not None and folder not in entries:
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, *entries]))
    for name in SYSTEMD:  # what it has passed is the launcher's
        environ.pop(name, None)
    return environ


def _sitecustomize_of_pythonpath() -> str | None:
    """The folder by which a wrapper, such as `opentelemetry-instrument`, has had a `sitecustomize` run here.

    Some take it out of PYTHONPATH then, lest it run in the programs that this one starts. In workers it has to.
    """
    file = getattr(sys.modules.get("sitecustomize"), "__file__", None)
    folder = os.path.dirname(file or "")
    # What stands before the standard library is of PYTHONPATH.
    first = itertools.takewhile(lambda entry: entry != sysconfig.get_path("stdlib"), sys.path)
    return folder if folder and folder in first else None


def interpreter_options() -> list[str]:
    """The options of the command line that this interpreter was given, for another one."""
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    named = [name if value is True else f"{name}={value}" for name, value in sys._xoptions.items()]
    # It leaves some out.
    return [*options, *(word for name in named if name not in options for word in ("-X", name))]


def import_path() -> list[str]:
    """Where modules are looked for here, but for the folder of the script or the working directory."""
    entries = [entry for entry in sys.path if isinstance(entry, str) and _is_text(entry)]
    main = sys.modules["__main__"]
    own = {"", os.getcwd()}
    if main.__spec__ is None and (script := getattr(main, "__file__", None)) is not None:
        own = {os.path.dirname(os.path.realpath(script))}
    if not sys.flags.safe_path and (added := next((entry for entry in entries if entry in own), None)) is not None:
        entries.remove(added)  # once: PYTHONPATH, or who calls this, may have it, too
    return list(dict.fromkeys(entries))


def _is_text(path: str) -> bool:
    """Whether it can be written in UTF-8, as Envoy's configuration is."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def bridge_path() -> Path:
    """Where the bridge is, built for the running interpreter or not."""
    return Path(__file__).parents[1] / f"bridge{EXTENSION_SUFFIXES[0]}"


def extension_path() -> Path:
    """Where the extension module is for servers without Envoy, built for the running interpreter or not."""
    return bridge_path().with_name(f"network{EXTENSION_SUFFIXES[0]}")


def check_library(library: Path) -> None:
    """Says what is wrong if the bridge is missing, or the extension module."""
    if library.is_file():
        return
    message = f"found no `{library}`"
    others = sorted(path.name for path in library.parent.glob(f"{library.name.partition('.')[0]}.*.so"))
    if others:
        message += f"\nthis is Python {sysconfig.get_python_version()}; built are only: {', '.join(others)}"
    raise StartupError(f"{message}\nhint: install aiovoy with this interpreter, or run `make build` in its repository")


def libpython_path(config_vars: Mapping[str, object] | None = None, base_prefix: str = sys.base_prefix) -> Path:
    """The shared libpython of the running interpreter.

    `config_vars` and `base_prefix` describe another interpreter in tests.
    """
    config_vars = sysconfig.get_config_vars() if config_vars is None else config_vars
    # An interpreter that is linked statically names a libpython*.a, yet may have the shared one beside it.
    names = [f"libpython{config_vars.get('LDVERSION')}.so.1.0"]
    installed = str(config_vars.get("INSTSONAME"))
    if ".so" in installed and installed not in names:
        names.insert(0, installed)
    # LIBDIR is where the interpreter was built to be, which relocatable builds are not.
    folders = [str(config_vars.get("LIBDIR")), os.path.join(base_prefix, "lib")]
    for folder in folders:
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                return path
    version = config_vars.get("py_version_short")
    raise StartupError(
        f"found no shared libpython for `{sys.executable}`: no {' or '.join(names)} in {' or '.join(folders)}\n"
        f"hint: on Debian and Ubuntu `apt install libpython{version}`; "
        f"with pyenv `PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {version}`"
    )


def read_env_file(path: str | os.PathLike[str] | None) -> dict[str, str]:
    """The variables of a file; none without one."""
    if path is None:
        return {}
    from dotenv import dotenv_values  # only those who use it pay for it

    why = "it is not in UTF-8"
    try:
        variables = {name: value for name, value in dotenv_values(path).items() if value is not None}
        if not any("\0" in name + value for name, value in variables.items()):
            return variables
    except OSError as error:
        why = reason(error)
    except UnicodeDecodeError:
        pass
    raise StartupError(f"cannot read `env_file` `{os.fspath(path)}`: {why}")
