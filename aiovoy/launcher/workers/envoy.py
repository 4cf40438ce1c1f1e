"""Workers that are Envoys, with the bridge in them."""

import contextlib
import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ...allocators import preloaded_allocators, preloads
from ...logs import to_json
from ..binary import check_release, envoy_binary, envoy_version
from ..bootstrap import bootstrap, write_secrets
from ..config import LOG_LEVELS, Config, LogForm
from ..debugger import code_to_join
from ..descriptors import Output, inherited
from ..environ import (
    bridge_path,
    check_library,
    import_path,
    interpreter_options,
    libpython_path,
    worker_environ,
)
from ..errors import StartupError
from ..port import reason
from ..renewal import Renewal
from .common import Common, writing
from .hot_restart import HotRestartParent, check_version
from .leash import Leash
from .process import Process

_logger = logging.getLogger("aiovoy.error")


class Envoys(Common):
    """Also the Envoy binary, and the certificates."""

    name = "Envoy"

    def __init__(self, config: Config, stdout: Output, stderr: Output) -> None:
        self.binary = envoy_binary(config.envoy)
        check_release(config.envoy)
        check_library(bridge_path())
        if config.envoy is not None:
            check_version(self.binary)
        super().__init__(config, stdout, stderr)
        with contextlib.ExitStack() as failed:
            failed.callback(self.close)
            with writing():
                self.secrets = self.folder.path / "secrets"
                self.secrets.mkdir(0o700)
                if secrets := write_secrets(config, self.secrets):
                    self._made.callback(Renewal(secrets).close)
            failed.pop_all()

    @staticmethod
    def versions(config: Config) -> list[str]:
        return [f"Envoy {envoy_version(config.envoy)}"]

    def start(self, slot: int, generation: int) -> Process:
        return EnvoyProcess(self, slot, generation)


class EnvoyProcess(Process):
    """An Envoy. It is given its sockets by Envoy's hot restart protocol."""

    def __init__(self, common: Envoys, slot: int, generation: int) -> None:
        self._envoys = common
        super().__init__(common, slot, generation)

    def _start(self, control: Path, made: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        common, config = self._envoys, self._envoys.config
        if (udp := common.listening.udp) is not None:
            self.lane = udp.take()
            made.callback(udp.give_back, self.lane)
        with writing(), contextlib.ExitStack() as written:
            leash = Leash()
            made.callback(leash.take_off)
            self._parent = HotRestartParent(self._folder, self._finder(leash.take_off))
            made.callback(self._parent.close)
            self._loop.add_reader(self._parent, self._parent.answer)
            made.callback(self._loop.remove_reader, self._parent)
            bootstrap_file = self._folder / "bootstrap.yaml"
            pause = None
            if common.listening.are_shared:
                pause = self._pause_file
                pause.write_text("0")
            access_log = self._access_log(made)
            stderr = self._stderr(made, written)
            document = bootstrap(
                config,
                addresses=common.listening.addresses,
                admin=self._folder / "admin.sock",
                python=sys.executable,
                python_options=interpreter_options(),
                python_path=import_path(),
                secrets=common.secrets,
                log_form=common.log_form,
                access_log=access_log,
                pause=pause,
                lane=self.lane,
            )
            bootstrap_file.write_text(document, "utf-8")
            arguments = envoy_arguments(config, bootstrap_file, common.log_form)
            words = [self._title(), *arguments, *self._parent.arguments()]
            try:
                popen = subprocess.Popen(
                    leash.command(common.binary, words),
                    executable=leash.python,
                    env={**envoy_environ(config, control, self.slot), **common.leftovers},
                    stdin=inherited(0),
                    stdout=common.stdout,
                    stderr=stderr,
                    pass_fds=[common.folder.fileno(), self._parent.fileno(), *leash.filenos()],
                )
            except OSError as error:
                raise StartupError(f"cannot run `{common.binary}`: {reason(error)}") from None
        leash.tie(popen.pid)
        return popen

    def _finder(self, found_all: Callable[[], None]) -> Callable[[str], socket.socket | None]:
        """Finds the sockets that Envoy asks for. `found_all` is called after the last one: then it waits no more."""
        missing = self._common.listening.names

        def find(name: str) -> socket.socket | None:
            missing.discard(name)
            if not missing:
                self._loop.call_soon(found_all)
            return self._common.listening.find(name, self.slot - 1, self.lane)

        return find

    def _on_connect(self) -> None:
        self._parent.opened()

    def _title(self) -> str:
        """What `ps` shows first."""
        return f"aiovoy: worker {self.slot} {self._common.config.first_app}"

    @property
    def _pause_file(self) -> Path:
        return self._folder / "pause"

    def _pause(self, wanted: bool) -> None:
        new = self._pause_file.with_suffix(".new")
        try:
            new.write_text(str(int(wanted)))
            new.rename(self._pause_file)  # Envoy looks when something is renamed there
        except OSError as error:
            _logger.warning("worker %d (pid %d) goes on to get connections: %s", self.slot, self.pid, reason(error))


def envoy_arguments(config: Config, bootstrap_file: Path, log_form: LogForm) -> list[str]:
    """Envoy's command line."""
    # Envoy's own warnings are worth reading, its news are not. Nor are those it has of the bridge while it starts: the
    # level `info` of the bridge begins after that, see `log_refusals` in `bootstrap`.
    level = min(config.log_level, "warning", key=LOG_LEVELS.index)
    bridge_level = "warning" if config.log_level == "info" else config.log_level
    # Longer than any request may take, though the bridge ends them.
    drain = math.ceil(config.timeout_graceful_shutdown or 30)
    return [
        *("-c", str(bootstrap_file)),
        *("--concurrency", "1"),
        *("--drain-strategy", "immediate"),
        *("--drain-time-s", str(drain)),
        *("--log-level", level),
        # `main` warns of the signals that stop Envoy, and repeats errors that are written to standard error anyway.
        # `misc` warns of fields of the configuration that are new.
        *("--component-log-level", f"dynamic_modules:{bridge_level},main:off,misc:error"),
        *("--log-format", _JSON_LINE if log_form == "json" else "[%Y-%m-%d %T.%e] [%l] %v"),
        # The access log, if there is one: Envoy's default is ten seconds.
        *("--file-flush-interval-msec", "100"),
    ]


_JSON_LINE = to_json("%l", "envoy", "%j", time="%Y-%m-%dT%T.%e%z")


def envoy_environ(config: Config, control: Path, worker: int) -> dict[str, str]:
    """The variables Envoy starts with: those of a worker, and what the bridge needs to be loaded.

    The loader finds a library by `LD_LIBRARY_PATH` before it looks anywhere else, so the bridge gets this
    interpreter's libpython even where another one of the same version is installed. Programs that the application
    starts should not inherit that: the bridge puts back what stands in `AIOVOY_LD_LIBRARY_PATH`. The same goes for
    allocators in `LD_PRELOAD`, which Envoy can't be started with. A debugger that follows is joined by what stands in
    `AIOVOY_DEBUGGER`.
    """
    environ = worker_environ(config, control, worker)
    library_path = environ.get("LD_LIBRARY_PATH")
    if library_path is None:
        environ.pop("AIOVOY_LD_LIBRARY_PATH", None)
    else:
        environ["AIOVOY_LD_LIBRARY_PATH"] = library_path
    environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(libpython_path().parent), library_path]))
    environ.pop("AIOVOY_DEBUGGER", None)
    if code := code_to_join():
        environ["AIOVOY_DEBUGGER"] = code
    environ.pop("AIOVOY_LD_PRELOAD", None)
    if allocators := preloaded_allocators(str(envoy_binary(config.envoy)), environ):
        preload = environ["AIOVOY_LD_PRELOAD"] = environ["LD_PRELOAD"]
        environ["LD_PRELOAD"] = ":".join(entry for entry in preloads(preload) if entry not in allocators)
    return environ
