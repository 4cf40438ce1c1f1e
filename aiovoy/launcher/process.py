"""One Envoy process and all that belongs to it. No asyncio here: threads and futures, for callers of any kind."""

import atexit
import contextlib
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import aiovoy

from .binary import envoy_binary
from .bootstrap import bootstrap, write_secrets
from .config import LOG_LEVELS, Config
from .control import ControlChannel, Event
from .descriptors import Output, fill_standard, inherited, waits
from .environ import check_bridge, envoy_environ
from .errors import StartupError
from .folder import CONTROL_SOCKET, RunFolder
from .port import HeldPort, authority, reason
from .relay import Relay
from .renewal import Renewal
from .uds import HeldUds

_logger = logging.getLogger("aiovoy")


@dataclass(frozen=True, slots=True)
class Ready:
    """What the bridge says of itself once Envoy accepts connections."""

    python: str
    workers: int
    loop: str


class EnvoyProcess:
    """An Envoy that has been started with a `Config`.

    Creating it starts Envoy and returns at once. Nothing needs to be closed: when Envoy has exited, a thread of this
    object removes whatever was made for it. An Envoy that still runs when this interpreter exits is killed.
    """

    ready: "Future[Ready]"
    """Done when Envoy accepts connections; fails with `StartupError` when it exits before."""

    exited: "Future[int]"
    """Done when Envoy has exited and everything is cleaned up: its exit status, negative if a signal killed it."""

    host: str
    """The IP address it listens on."""

    port: int
    """0 on a Unix domain socket."""

    ssl_port: int | None
    """The port that speaks TLS."""

    def __init__(self, config: Config, *, stdout: Output = None, stderr: Output = None) -> None:
        """Starts Envoy; it inherits standard input, and also `stdout` and `stderr` unless those are given."""
        if aiovoy.inside_envoy:
            # It would import the application, which would start the next one, and so on.
            raise StartupError(
                "a server was started where the application runs, inside Envoy\n"
                'hint: a script that is its own application starts it below `if __name__ == "__main__":`'
            )
        self.config = config
        self.ready = Future()
        self.exited = Future()
        self._held_ports: list[HeldPort] = []
        self._failure: str | None = None
        fill_standard()
        stdout = inherited(1) if stdout is None else stdout
        stderr = inherited(2) if stderr is None else stderr
        self._stderr = _Tail(stderr)
        log_waits = waits(stderr)
        binary = envoy_binary(config.envoy)
        check_bridge()
        with contextlib.ExitStack() as made, contextlib.ExitStack() as written:
            made.callback(self._release_ports)
            self._hold_ports()
            if config.uds is not None:
                made.callback(HeldUds(config.uds).release)
            with _writing():
                run_folder = RunFolder()
                made.callback(run_folder.remove)
                folder = run_folder.path
                self._control = ControlChannel(folder / CONTROL_SOCKET, self._on_event)
                made.callback(self._control.close)
                bootstrap_file = folder / "bootstrap.yaml"
                secrets = write_secrets(config, folder)
                if secrets:
                    made.callback(Renewal(secrets).close)
                access_log = folder / "access.log" if config.access_log else None
                if access_log is not None:
                    made.callback(Relay(access_log, stdout, "the access log", "standard output").close)
                if log_waits:
                    log = folder / "stderr"
                    made.callback(Relay(log, stderr, "the log", "standard error").close)
                    stderr = written.enter_context(log.open("wb"))
                document = bootstrap(
                    config,
                    host=self.host,
                    port=self.port,
                    ssl_port=self.ssl_port,
                    admin=folder / "admin.sock",
                    python=sys.executable,
                    secrets=folder,
                    access_log=access_log,
                )
                bootstrap_file.write_text(document, "utf-8")
            try:
                self._process = subprocess.Popen(
                    [binary, *envoy_arguments(config, bootstrap_file)],
                    env=envoy_environ(config, folder / CONTROL_SOCKET),
                    stdin=inherited(0),
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=[run_folder.fileno()],
                )
            except OSError as error:
                raise StartupError(f"cannot run `{binary}`: {error.strerror}") from None
            self._made = made.pop_all()
        _running.add(self)
        threading.Thread(target=self._wait, name="aiovoy-wait", daemon=True).start()

    @property
    def url(self) -> str:
        if self.config.uds is not None:
            return f"unix:{self.config.uds}"
        scheme = "https" if self.port == self.ssl_port else "http"
        return f"{scheme}://{authority(self.host, self.port)}"

    @property
    def urls(self) -> list[str]:
        """`url`, and that of the TLS port if it is another one."""
        if self.ssl_port in (None, self.port):
            return [self.url]
        return [self.url, f"https://{authority(self.host, self.ssl_port)}"]

    @property
    def pid(self) -> int:
        """Process id of Envoy, in which the application runs."""
        return self._process.pid

    def shutdown(self) -> None:
        """Asks for a graceful stop: requests in flight finish, lifespan shutdown runs. Does not wait.

        Kills Envoy if that takes longer than all time limits of the bridge together and `SPARE_SECONDS`.
        """
        if not self._control.send("shutdown"):
            self._process.terminate()
        self._kill_after(graceful_seconds(self.config) + SPARE_SECONDS)

    def abort(self) -> None:
        """Asks for a stop at once, and kills Envoy if that takes more than `ABORT_SECONDS`. Does not wait."""
        if self._control.send("abort"):
            self._kill_after(ABORT_SECONDS)
        else:
            self.kill()

    def kill(self) -> None:
        """Kills Envoy. Does not wait."""
        self._process.kill()

    def _kill_after(self, seconds: float) -> None:
        def kill() -> None:
            self.kill()  # first: a logger may wait for whom nobody knows
            _logger.error("Envoy has not ended %g s after it was asked to: killed", seconds)

        killer = threading.Timer(seconds, kill)
        killer.daemon = True
        killer.start()
        self.exited.add_done_callback(lambda _: killer.cancel())

    def stop(self) -> int:
        """Stops gracefully and waits for the end. Returns the exit status."""
        self.shutdown()
        return self.exited.result()

    def _hold_ports(self) -> None:
        config = self.config
        apart = config.ssl_port is not None
        self.host, self.port, self.ssl_port = config.host, 0, None
        if config.uds is None:
            self.host, self.port = self._hold(config.port, udp=config.http3 and not apart)
            self.ssl_port = self.port if config.certificates else None
        if config.ssl_port is not None:
            self.host, self.ssl_port = self._hold(config.ssl_port, udp=config.http3)

    def _hold(self, port: int, *, udp: bool) -> tuple[str, int]:
        held = HeldPort(self.config.host, port, udp=udp)
        self._held_ports.append(held)
        return held.address, held.port

    def _release_ports(self) -> None:
        for held in self._held_ports:
            held.release()

    def _on_event(self, event: Event) -> None:
        match event:
            case {"event": "started"}:
                self._control.send("listen")
            case {"event": "ready", "python": str(python), "workers": int(workers), "loop": str(loop)}:
                self._release_ports()
                if not self.ready.done():
                    self.ready.set_result(Ready(python, workers, loop))
            case {"event": "failed", "message": str(message)}:
                self._failure = message

    def _wait(self) -> None:
        code = self._process.wait()
        try:
            self._made.close()
        finally:  # somebody may wait for these
            _running.discard(self)
            if not self.ready.done():
                self.ready.set_exception(self._startup_error(code))
            self.exited.set_result(code)

    def _startup_error(self, code: int) -> StartupError:
        if self._failure is not None:
            return StartupError(self._failure, exit_code=code, reported=True)
        return StartupError(f"Envoy {exit_text(code)} before it was ready{self._stderr.read()}", exit_code=code)


ABORT_SECONDS = 2.0
SPARE_SECONDS = 4.0


def graceful_seconds(config: Config) -> float:
    """The longest that the bridge takes to end, by its own clocks: see `src/life/stop.rs` and `drain.rs`."""
    requests = 30 if config.timeout_graceful_shutdown is None else config.timeout_graceful_shutdown
    cancelled, lifespan, loops, python = 1, max(requests, 10), 10, 10
    return requests + cancelled + lifespan + loops + python


def envoy_arguments(config: Config, bootstrap_file: Path) -> list[str]:
    """Envoy's command line."""
    # Envoy's own warnings are worth reading, its news are not. Nor are those it has of the bridge while it starts: the
    # level `info` of the bridge begins after that, see `log_refusals` in `bootstrap`.
    level = min(config.log_level, "warning", key=LOG_LEVELS.index)
    bridge_level = "warning" if config.log_level == "info" else config.log_level
    # Longer than any request may take, though the bridge ends them; the second one must exceed the first.
    drain = math.ceil(config.timeout_graceful_shutdown or 30)
    return [
        *("-c", str(bootstrap_file)),
        *("--concurrency", "1"),
        "--disable-hot-restart",
        *("--drain-strategy", "immediate"),
        *("--drain-time-s", str(drain)),
        *("--parent-shutdown-time-s", str(drain + 5)),
        *("--log-level", level),
        # `main` warns of the signals that stop Envoy, and repeats errors that are written to standard error anyway.
        # `misc` warns of fields of the configuration that are new.
        *("--component-log-level", f"dynamic_modules:{bridge_level},main:off,misc:error"),
        *("--log-format", "[%Y-%m-%d %T.%e] [%l] %v"),
        # The access log, if there is one: Envoy's default is ten seconds.
        *("--file-flush-interval-msec", "100"),
    ]


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """The files of the server are made here."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"cannot make the files of the server: {reason(error)}\nhint: $TMPDIR says where") from None


def exit_text(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exited with status {code}"
    return f"was killed by signal {-code}"


class _Tail:
    """The end of what is written to a file from now on, if the file has a name and may be read."""

    def __init__(self, output: Output) -> None:
        name = getattr(output, "name", None)
        self._path = Path(name) if isinstance(name, str) else None
        self._start = self._size()

    def read(self) -> str:
        """The last lines, each after a line break."""
        size = self._size()
        if self._path is None or size <= self._start:
            return ""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(max(self._start, size - 16384))
            lines = file.read().decode(errors="replace").splitlines()
            return "".join(f"\n{line}" for line in lines[-20:])
        return ""

    def _size(self) -> int:
        with contextlib.suppress(OSError):
            if self._path is not None and self._path.is_file():
                return self._path.stat().st_size
        return 0


_running: set[EnvoyProcess] = set()


@atexit.register
def _kill_all() -> None:
    for process in list(_running):
        process.kill()
        with contextlib.suppress(TimeoutError):
            process.exited.result(timeout=5)
