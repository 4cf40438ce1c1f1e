"""The name of an application object: Envoy is another process, and imports the application by that name."""

import sys
from pathlib import Path
from types import ModuleType

from .errors import ConfigError


def check_application(app: object) -> None:
    """`ConfigError` for what can't be called, and so is none."""
    if not callable(app):
        hint = "\nhint: what makes it may lack its `return`" if app is None else ""
        kind = type(app).__name__
        raise ConfigError(f"expected an application, got an object of type `{kind}`, which can't be called{hint}")


def app_name(app: object) -> tuple[str, str]:
    """`module:attribute` of `app`, and the folder to import that module from.

    The module is the one that `app` says it is from, else any module that has `app` under a name. A script that runs
    as `__main__` counts as the module that its file would be.
    """
    check_application(app)
    for module in _candidates(app):
        for attribute, value in list(vars(module).items()):
            if value is app:
                name, folder = _importable(module)
                return f"{name}:{attribute}", str(folder)
    raise ConfigError(f"found no module with the application {app!r} in it\nhint: pass it as `module:attribute`")


def _candidates(app: object) -> list[ModuleType]:
    """The modules to look in, the likeliest first."""
    home = sys.modules.get(getattr(app, "__module__", None) or "")
    # A module that imports the application from another one has begun to be imported before it: search backwards.
    # Under its real name a module is better than as `__main__`.
    found = [home, *reversed(list(sys.modules.values()))]
    modules = [module for module in found if isinstance(module, ModuleType)]
    return sorted(modules, key=lambda module: module.__name__ == "__main__")


def _importable(module: ModuleType) -> tuple[str, Path]:
    """The name to import `module` by, and the folder that must be on `sys.path`."""
    spec = module.__spec__
    name = module.__name__ if spec is None else spec.name
    file = getattr(module, "__file__", None)
    if file is None:
        raise ConfigError(f"the application's module `{name}` has no file\nhint: pass it as `module:attribute`")
    path = Path(file).resolve()
    if name == "__main__":  # a script
        if not path.stem.isidentifier():
            raise ConfigError(f"`{path.name}` cannot be imported by its name\nhint: pass `module:attribute`")
        return path.stem, path.parent
    depth = name.count(".") + (path.stem == "__init__")
    return name, path.parents[depth]
