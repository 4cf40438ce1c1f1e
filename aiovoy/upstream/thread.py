"""Serves an application that is an object of this process, in a thread of it."""

import atexit
import os
import threading
from concurrent.futures import Future, wait
from functools import partial
from types import FunctionType
from typing import Any

from ..launcher.appname import check_application
from ..launcher.config import Config
from ..launcher.environ import check_library, extension_path
from ..launcher.errors import AiovoyError, ConfigError, StartupError
from ..launcher.listening import Listening
from ..launcher.logs import configure
from ..launcher.workers.process import ABORT_SECONDS, SPARE_SECONDS, graceful_seconds
from .cli import FORMS, REFUSED, SUPERVISED
from .server import new_server
from .settings import Settings


class ThreadServer:
    """An application object, served where it is, without Envoy.

    Creating it takes the addresses and returns; a thread does the rest. Apart from threads the process stays as it is:
    its signals, its import path, asyncio's policy. Several may run at a time. If the interpreter exits before, they are
    stopped at once.
    """

    ready: "Future[None]"
    """Done when the server accepts connections; fails with `StartupError` when it ends before."""

    exited: "Future[int]"
    """Done when all has ended: 0, or 3 if the application's lifespan has failed, or 1."""

    ssl_port: int | None = None

    def __init__(self, app: object, **settings: Any) -> None:
        """`ConfigError` if `app` is no application, or something in `settings` needs Envoy, or another process."""
        self._config = _config(app, settings)
        configure(self._config)
        self.pid = _claim_process()
        check_library(extension_path())
        self.ready, self.exited = Future(), Future()
        self._listening = Listening(self._config, 1)
        self.host, self.port, self.urls = self._listening.host, self._listening.port, self._listening.urls
        atexit.register(self._end_with_interpreter)
        try:
            # The server is not to refer to this object: nothing would find the circle.
            self._server: Any = new_server(
                Settings.of(self._config),
                self._listening.filenos(0),
                opening=self._listening.listen,
                ready=partial(self.ready.set_result, None),
                closing=self._listening.close,
                app=app,
            )
            # A daemon, since an application that can't be stopped is not to keep the interpreter from its end.
            threading.Thread(target=self._run, name="aiovoy-loop", daemon=True).start()
        except BaseException:
            self._let_go()
            raise

    @property
    def url(self) -> str:
        return self.urls[0]

    def stop(self) -> int:
        """Stops gracefully and waits for the end, of which `exited` tells. Who is interrupted has it stop at once."""
        server = self._server
        if server is None:
            return self.exited.result()
        if self.pid != os.getpid():
            raise AiovoyError("this process was forked from the one that serves the application, and can't stop it")
        server.stop()
        limit = graceful_seconds(self._config) + SPARE_SECONDS
        try:
            return self.exited.result(limit)
        except KeyboardInterrupt:
            server.abort()
            raise
        except TimeoutError:
            raise AiovoyError(
                f"the application has not let go of its event loop, or threads, for {limit:g} s"
            ) from None

    def _run(self) -> None:
        code = 1
        try:
            code = self._server.run(_nothing)
        finally:
            self._let_go()
            failure = self._server.failure
            self._server = None  # who keeps this object keeps no descriptors, and no application
            if not self.ready.done():
                reason = failure or "told to stop before it was ready"
                self.ready.set_exception(StartupError(reason, exit_code=code, reported=True))
            self.exited.set_result(code)

    def _let_go(self) -> None:
        self._listening.close()
        atexit.unregister(self._end_with_interpreter)

    def _end_with_interpreter(self) -> None:
        server = self._server
        if self.pid == os.getpid() and server is not None:
            server.abort()
            wait([self.exited], ABORT_SECONDS)


ELSEWHERE = {
    *REFUSED,
    *SUPERVISED,
    *("mount", "app_dir", "env_file", "replace_first", "reload_dir", "reload_include", "reload_exclude"),
    *("stdout", "stderr"),
}
"""Settings that mean Envoy, or a process of the server's own."""


def _config(app: object, settings: dict[str, Any]) -> Config:
    check_application(app)
    named = app if isinstance(app, type | FunctionType) else type(app)
    here = {name: value for name, value in settings.items() if name not in ELSEWHERE}
    for name in settings.keys() - here:
        if settings[name] != getattr(Config, name, None):
            raise ConfigError(
                f"`{name}` is not for an application object, which is served in this process and without Envoy\n"
                "hint: give its name, `module:attribute`, which Envoy imports in a process of its own; what tests "
                "replace in it belongs into that module then"
            )
    config = Config(f"{named.__module__}:{named.__qualname__}", workers=1, **here)
    if config.access_format not in FORMS:
        raise ConfigError(f"`access_log_format` is {', '.join(FORMS)} here, got `{config.access_format}`")
    return config


_pid = 0


def _claim_process() -> int:
    """The process, which has the threads of the module from now on."""
    global _pid
    if _pid not in (0, os.getpid()):
        raise StartupError(
            "this process was forked from one that has served applications, whose threads it does not have"
        )
    _pid = os.getpid()
    return _pid


def _nothing() -> None:
    pass
