"""Finds the application that a `module:attribute` names.

Runs inside Envoy, on Python's main thread, before the event loop of the first worker runs there.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from aiovoy.embedded.logs import log

App = Callable[..., Awaitable[None]]


class ImportFromStringError(Exception):
    """There is no application to be had; the message, for the log, says what was looked for and where, or is the
    traceback of what the application's module or factory raised."""


def load_app(path: str, app_dir: str, factory: bool, given: Any = None) -> App:
    """The ASGI 3 application at `path`, a `module:attribute`; `ImportFromStringError` if there is none.

    `app_dir` is where the module was to be found; it is on `sys.path` already. With `factory`, the
    attribute is called without arguments and returns the application; without, too, if it is nothing else, or if it
    takes any arguments and an application comes of it. An ASGI 2 application, a callable that returns a callable, is
    wrapped. If the object is `given`, nothing is imported.
    """
    try:
        if given is not None:
            return _asgi3(path, given, factory, "`factory=True`")
        return _asgi3(path, import_from_string(path, app_dir), factory, "--factory")
    except ImportFromStringError:
        raise
    except BaseException as error:
        if type(error).__module__.startswith("aiovoy."):  # these say to people what is wrong
            raise ImportFromStringError(f"application `{path}` could not be imported: {error}") from None
        what = "exited" if isinstance(error, SystemExit) else "could not be imported" if given is None else "failed"
        raise ImportFromStringError(f"application `{path}` {what}\n{_told(error)}") from None


def _told(error: BaseException) -> str:
    """`error` with its traceback, from where the application's own code begins."""
    rest = error.__traceback__
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith(_IMPORTERS):
        rest = rest.tb_next
    return "".join(traceback.format_exception(type(error), error, rest)).rstrip()


_IMPORTERS = (__file__, importlib.__file__, "<frozen ")


def _asgi3(path: str, app: Any, factory: bool, option: str) -> App:
    what, made = f"`{path}`", f"what the factory `{path}` makes"
    called = f"`{path}` is called to make the application: say so by {option}"
    if factory and not callable(app):
        raise ImportFromStringError(f"{what} is {_described(app)}, and no factory that could be called")
    if factory and not _takes(app, 0):
        hint = f"\nhint: without {option} `{path}` is the application" if _takes(app, 3) else ""
        raise ImportFromStringError(f"the factory {what} cannot be called without arguments{hint}")
    if factory or _makes_application(app):
        if not factory:
            log("warning", called)
        app, what = app(), made
        if inspect.iscoroutine(app):
            app.close()
            raise ImportFromStringError(f"the factory `{path}` is asynchronous; it must return the application")
    elif _takes_any(app, 0) and (application := _made_by(app)) is not None:
        log("warning", called)
        app, what = application, made
    if not callable(app):
        raise ImportFromStringError(f"{what} is {_described(app)}, and no ASGI application that could be called")
    if _makes_application(app):
        raise ImportFromStringError(f"{what} needs no arguments, so it is no ASGI application")
    if _is_wsgi(app):
        raise ImportFromStringError(
            f"{what} is a WSGI application, and only ASGI applications are served\n"
            f"hint: a framework that has both says which is which, as Django does by `asgi.py`; {_WSGI_AS_ASGI}"
        )
    if _takes_any(app, 1) and not inspect.isclass(app):
        return _either_as_asgi3(app, what)
    asgi2 = _is_asgi2(app)
    if not asgi2 and not _takes(app, 3):
        raise ImportFromStringError(f"{what} cannot be called with scope, receive and send, as ASGI applications are")
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


def _makes_application(app: Any) -> bool:
    """Whether `app` can be called without arguments, and is not just ready to pass on whatever it gets."""
    parameters = _parameters(app)
    needs = [one for one in parameters or [] if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    return parameters is not None and not needs and not (_is_async(app) and _takes(app, 3))


def _takes_any(app: Any, count: int) -> bool:
    """Whether `app` can be called with as many arguments or any more, and a call does not tell what comes of it."""
    kinds = [one.kind for one in _parameters(app) or []]
    return inspect.Parameter.VAR_POSITIONAL in kinds and not _is_async(app) and _takes(app, count)


def _made_by(app: Any) -> Any:
    """The application that a call without arguments makes, if it makes one."""
    try:
        made = app()
    except _MISSED:
        return None
    if inspect.iscoroutine(made):
        made.close()
    # What a class makes may be called with `receive` and `send`, too.
    is_wsgi = _is_wsgi(made) and not inspect.isclass(app)
    return made if callable(made) and (_takes(made, 3) or _is_asgi2(made) or is_wsgi) else None


_MISSED = (TypeError, ValueError, LookupError, AssertionError)
"""What those raise who are called with `*args` and miss some, or have too many."""


def _is_wsgi(app: Any) -> bool:
    """Whether `app` is called with `environ` and `start_response`, and cannot be with what ASGI has."""
    second = [one.name for one in _parameters(app) or []][1:2]
    takes = [count for count in (1, 2, 3) if _takes(app, count)]
    return (takes == [2] or second == ["start_response"]) and not _is_async(app)


def _is_asgi2(app: Any) -> bool:
    if inspect.isclass(app):
        return not hasattr(app, "__await__") and _takes(app, 1)
    return not _is_async(app) and _takes(app, 1)


def _is_async(app: Any) -> bool:
    """Whether a call makes a coroutine."""
    function: Any = app if inspect.isfunction(app) or inspect.ismethod(app) else type(app).__call__
    return inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(function)


def _parameters(app: Any) -> list[inspect.Parameter] | None:
    """Those of `app`, or none if it does not tell."""
    try:
        return list(inspect.signature(app).parameters.values())
    except (TypeError, ValueError):
        return None


def _takes(app: Any, count: int) -> bool:
    """Whether `app` can be called with as many arguments; what does not tell can be a factory, or is for ASGI 3."""
    try:
        inspect.signature(app).bind(*[None] * count)
    except ValueError:
        return count in (0, 3)
    except TypeError:
        return False
    return True


def _asgi2_as_asgi3(app: Callable[[Any], Callable[[Any, Any], Awaitable[None]]]) -> App:
    async def asgi3(scope: Any, receive: Any, send: Any) -> None:
        await app(scope)(receive, send)

    return asgi3


def _either_as_asgi3(app: Callable[..., Any], what: str) -> App:
    """For what passes on all that it gets, perhaps to an application of ASGI 2."""

    async def asgi3(scope: Any, receive: Any, send: Any) -> None:
        def as_asgi2() -> Any:
            try:
                return app(scope)(receive, send)
            except _MISSED as error:
                error.add_note(
                    f"{what} was called as ASGI 2 applications are, since nothing came of a call with scope, receive "
                    f"and send; if it is a WSGI application, {_WSGI_AS_ASGI}"
                )
                raise

        try:
            called = app(scope, receive, send)
        except _MISSED:
            called = as_asgi2()  # what it raises tells of the first, too
        if not inspect.isawaitable(called):
            called = as_asgi2()
        await called

    return asgi3


_WSGI_AS_ASGI = "WSGIMiddleware of `a2wsgi` makes ASGI of WSGI"


def _described(value: object) -> str:
    return f"an object of type `{type(value).__name__}`"
