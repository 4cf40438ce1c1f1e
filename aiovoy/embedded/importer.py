"""Finds the application that a `module:attribute` names.

Runs inside Envoy, on Python's main thread, before the event loop of the first worker runs there.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any

App = Callable[..., Awaitable[None]]


class ImportFromStringError(Exception):
    """The application is not where it was looked for; the message says what and where."""


def load_app(path: str, app_dir: str, factory: bool) -> App:
    """The ASGI 3 application at `path`, a `module:attribute`.

    `app_dir` is where the module was to be found; it is on `sys.path` already. With `factory`, the
    attribute is called without arguments and returns the application. An ASGI 2 application, a
    callable that returns a callable, is wrapped.

    Raises `ImportFromStringError` if there is no such application, and whatever the module or the
    factory raises.
    """
    app = import_from_string(path, app_dir)
    if factory:
        if not callable(app):
            raise ImportFromStringError(f"`{path}` is {_described(app)}, and no factory that could be called")
        app = app()
        if inspect.iscoroutine(app):
            app.close()
            raise ImportFromStringError(f"the factory `{path}` is asynchronous; it must return the application")
    if not callable(app):
        raise ImportFromStringError(f"`{path}` is {_described(app)}, and no ASGI application that could be called")
    if _needs_nothing(app):
        hint = "" if factory else "\nhint: use --factory if it makes the application"
        raise ImportFromStringError(f"`{path}` needs no arguments, so it is no ASGI application{hint}")
    asgi2 = _is_asgi2(app)
    if not asgi2 and not _takes(app, 3):
        raise ImportFromStringError(f"`{path}` cannot be called with scope, receive and send, as ASGI applications are")
    return _asgi2_as_asgi3(app) if asgi2 else app


def import_from_string(path: str, app_dir: str) -> Any:
    """The object at `path`, a `module:attribute`; the attribute may have dots."""
    module_name, _, attributes = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # One that the application itself tries to import is an error of its own.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        looked_in = "\n".join(f"  {place}" for place in sys.path)
        raise ImportFromStringError(
            f"no module `{error.name}` for the application `{path}`; looked in\n{looked_in}\n"
            f"hint: --app-dir says where the application is; it was `{app_dir}`"
        ) from None
    instance = module
    for attribute in attributes.split("."):
        try:
            instance = getattr(instance, attribute)
        except AttributeError:
            where = getattr(module, "__file__", None) or module_name
            raise ImportFromStringError(
                f"no attribute `{attributes}` in the module `{module_name}` ({where}) for the application `{path}`"
            ) from None
    return instance


def _needs_nothing(app: Any) -> bool:
    """Whether `app` can be called without arguments, and is not just ready to pass on whatever it gets."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(one.default is not one.empty or one.kind is one.VAR_KEYWORD for one in parameters)


def _is_asgi2(app: Any) -> bool:
    if inspect.isclass(app):
        return not hasattr(app, "__await__") and _takes(app, 1)
    function: Any = app if inspect.isfunction(app) or inspect.ismethod(app) else type(app).__call__
    if inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(function):
        return False
    return _takes(app, 1)


def _takes(app: Any, count: int) -> bool:
    """Whether `app` can be called with as many arguments; what does not tell is for ASGI 3."""
    try:
        inspect.signature(app).bind(*[None] * count)
    except ValueError:
        return count == 3
    except TypeError:
        return False
    return True


def _asgi2_as_asgi3(app: Callable[[Any], Callable[[Any, Any], Awaitable[None]]]) -> App:
    async def asgi3(scope: Any, receive: Any, send: Any) -> None:
        await app(scope)(receive, send)

    return asgi3


def _described(value: object) -> str:
    return f"an object of type `{type(value).__name__}`"
