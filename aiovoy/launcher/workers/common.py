"""What the workers of one server have in common, from before the first until after the last."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ... import logs
from ..config import Config, LogForm
from ..descriptors import Output, fill_standard, inherited, is_terminal, waits
from ..errors import StartupError
from ..folder import RunFolder
from ..listening import Listening
from ..port import reason
from ..relay import Relay, paint, to_objects

if TYPE_CHECKING:
    from .process import Process


class Common(ABC):
    """Takes the addresses, makes the private folder, and begins to relay logs. `StartupError` says what is wrong."""

    name: str
    """What a process is to people."""

    def __init__(self, config: Config, stdout: Output, stderr: Output) -> None:
        """Processes inherit standard input, and also `stdout` and `stderr` unless those are given."""
        self.config = config
        fill_standard()
        self.stdout = inherited(1) if stdout is None else stdout
        self.stderr = inherited(2) if stderr is None else stderr
        self.is_json = logs.writes_json()
        self.log_end = Tail(self.stderr)
        with contextlib.ExitStack() as made:
            self.listening = Listening(config, config.worker_count)
            made.callback(self.listening.close)
            with writing():
                self.folder = RunFolder()
                made.callback(self.folder.remove)
                self.access_log = self.log = None
                if config.access_log:
                    self.access_log = Relay(self.stdout, "the access log", "standard output")
                    if config.use_colors and is_terminal(self.stdout):
                        self.access_log.rewrite = paint
                    made.callback(self.access_log.close)
                if waits(self.stderr) or self.is_json:
                    self.log = Relay(self.stderr, "the log", "standard error")
                    made.callback(self.log.close)
                if self.is_json:
                    self.log_json()
            # By these the last worker knows what to remove if this process is killed: see `src/life/leftovers.rs`.
            left = [str(self.folder.path), *self.listening.files]
            self.leftovers = {}
            if os.pathsep not in "".join(left):
                self.leftovers = {"AIOVOY_LOCK": str(self.folder.fileno()), "AIOVOY_REMOVE": os.pathsep.join(left)}
            self._made = made.pop_all()

    def log_json(self) -> None:
        """All lines of the log are objects of JSON from now on."""
        self.is_json = True
        logs.become_json()
        if self.log is not None:
            self.log.rewrite = to_objects

    @property
    def log_form(self) -> LogForm:
        """What the lines of a worker look like that no handler of `logging` takes."""
        return "json" if self.is_json else "colored" if self.config.use_colors else "text"

    @staticmethod
    def versions(config: Config) -> list[str]:
        """Programs besides Python, with their versions."""
        return []

    @abstractmethod
    def start(self, slot: int, generation: int) -> "Process":
        """Starts a process in a slot, numbered from 1; `generation` tells those of a slot apart."""

    def close(self) -> None:
        """Removes all of it. The processes have ended."""
        self._made.close()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """The files of the server are made here."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"cannot make the files of the server: {reason(error)}\nhint: $TMPDIR says where") from None


class Tail:
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
                return os.stat(self._path).st_size
        return 0
