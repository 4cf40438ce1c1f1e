"""`Server`: a server in asyncio code."""

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from .config import Config
from .descriptors import Output
from .errors import StartupError
from .workers.common import Common
from .workers.envoy import Envoys
from .workers.process import Ready
from .workers.supervisor import Supervisor

T = TypeVar("T")


class Server:
    """An application, served by Envoys that this object starts and stops.

        async with Server("main:app", port=0) as server:
            print(server.url)

    `app` is `module:attribute`; or an application that a module has under some name, since Envoy is another process,
    which imports it; or a `Config`. `settings` are the fields of `Config`, whose `port` is 8000 by default. Envoys
    inherit the standard streams, unless `stdout` or `stderr` is a file for them to write to.

    A cancelled `start` or `stop` kills them.
    """

    kind: type[Common] = Envoys
    """What its workers are."""

    def __init__(self, app: object, *, stdout: Output = None, stderr: Output = None, **settings: Any) -> None:
        self.config = Config.of(app, **settings)
        self._stdout = stdout
        self._stderr = stderr
        self._supervisor: Supervisor | None = None

    @property
    def host(self) -> str:
        """The IP address that it listens on."""
        return self._started.host

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._started.port

    @property
    def ssl_port(self) -> int | None:
        """The port that speaks TLS; it may be the same."""
        return self._started.ssl_port

    @property
    def url(self) -> str:
        """`http://host:port`, `https://host:port` if that port speaks TLS, or `unix:path`."""
        return self._started.url

    @property
    def urls(self) -> list[str]:
        """`url`, and that of the TLS port if it is another one."""
        return self._started.urls

    @property
    def pid(self) -> int:
        """Process id of the first worker, or the last one in its place: an Envoy, in which the application runs."""
        return self._started.pid

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers, without those that are being replaced after a crash."""
        return self._started.pids

    async def start(self) -> Ready:
        """Starts the workers and waits until they accept connections; `StartupError` if they never do."""
        if self._supervisor is not None and not self._supervisor.exited.done():
            raise RuntimeError("the server is running already")
        self._supervisor = Supervisor(self.config, stdout=self._stdout, stderr=self._stderr, kind=self.kind)
        try:
            return await _finish(self._supervisor, self._supervisor.ready)
        except StartupError as error:
            raise error.with_traceback(None) from None  # how the supervisor came upon it explains nothing

    async def stop(self) -> int:
        """Stops gracefully. Returns the exit status, as `wait` does."""
        self.shutdown()
        return await _finish(self._started, self._started.exited)

    async def wait(self) -> int:
        """Waits until all has ended, for whatever reason.

        Returns the exit status of the first worker that did not end in 0 when it was told to, negative if a signal
        killed it; else 0.
        """
        return await _result(self._started.exited)

    def shutdown(self) -> None:
        """Begins to stop gracefully; `wait` sees the end. May be called while `start` waits."""
        self._started.shutdown()

    def abort(self) -> None:
        """Begins to stop at once; `wait` sees the end. May be called while `start` waits."""
        self._started.abort()

    def roll(self) -> None:
        """Begins to replace all workers, one after the other, by new ones with the code as it is now."""
        self._started.roll()

    def grow(self) -> None:
        """Begins to add a worker."""
        self._started.grow()

    def shrink(self) -> None:
        """Begins to take a worker away, if there is more than one."""
        self._started.shrink()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def _started(self) -> Supervisor:
        if self._supervisor is None:
            raise RuntimeError("the server has not been started")
        return self._supervisor


async def _finish(supervisor: Supervisor, future: "Future[T]") -> T:
    """Waits for `future`; if that is cancelled, the process does not survive it."""
    try:
        return await _result(future)
    except asyncio.CancelledError:
        supervisor.kill()
        await _result(supervisor.exited)
        raise


async def _result(future: "Future[T]") -> T:
    """Waits for `future` without cancelling it when the wait is cancelled, as `asyncio.wrap_future` would."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_: object) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    await done.wait()
    return future.result()
