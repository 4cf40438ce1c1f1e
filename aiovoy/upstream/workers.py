"""Workers that are processes of Python's, each with a server that was given its sockets."""

import contextlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from ..launcher.config import Config
from ..launcher.descriptors import Output, inherited
from ..launcher.environ import check_library, extension_path, import_path, interpreter_options, worker_environ
from ..launcher.errors import StartupError
from ..launcher.port import reason
from ..launcher.server import Server
from ..launcher.workers.common import Common, writing
from ..launcher.workers.process import Process
from .settings import Settings


class Upstreams(Common):
    """What they have in common is the sockets, the folder and the logs."""

    name = "a worker"

    def __init__(self, config: Config, stdout: Output, stderr: Output) -> None:
        check_library(extension_path())
        super().__init__(config, stdout, stderr)

    def start(self, slot: int, generation: int) -> Process:
        return UpstreamProcess(self, slot, generation)


class UpstreamServer(Server):
    """An application, served by processes without Envoy."""

    kind = Upstreams


class UpstreamProcess(Process):
    """A process of Python's. It inherits its sockets, and hears of the launcher's end by the control channel."""

    def _start(self, control: Path, made: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        common = self._common
        with writing(), contextlib.ExitStack() as written:
            stderr = self._stderr(made, written)
            file = self._folder / "settings.json"
            settings = asdict(Settings.of(common.config, common.log_form, self._access_log(made)))
            file.write_text(json.dumps({"python_path": import_path(), "settings": settings}), "utf-8")
            filenos = common.listening.filenos(self.slot - 1)
            words = [common.config.first_app, str(file), *map(str, filenos)]
            try:
                return subprocess.Popen(
                    [sys.executable, *interpreter_options(), str(Path(__file__).with_name("worker.py")), *words],
                    env={**worker_environ(common.config, control, self.slot), **common.leftovers},
                    stdin=inherited(0),
                    stdout=common.stdout,
                    stderr=stderr,
                    pass_fds=[common.folder.fileno(), *filenos],
                )
            except OSError as error:
                raise StartupError(f"cannot run `{sys.executable}`: {reason(error)}") from None

    def _on_connect(self) -> None:
        pass

    def _pause(self, wanted: bool) -> None:
        self._control.send("pause" if wanted else "resume")
