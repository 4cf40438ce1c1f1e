"""An Envoy that is started by hand, with a configuration file."""

import re
import socket
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from aiovoy.environ import libpython_path
from aiovoy.launcher.binary import envoy_binary
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.folders import EXAMPLES, ROOT
from py_tests.harness.serving import AIOVOY, RECENT, Server, ServerEnded, clean_environment, command

EXAMPLE = (EXAMPLES / "envoy.yaml").read_text()
ROUTER_EXAMPLE = (EXAMPLES / "envoy-router.yaml").read_text()


def environment() -> dict[str, str]:
    """As the example says: an active environment, and the folder of its libpython."""
    env = clean_environment()
    env.pop("PYTHONHOME", None)
    env["VIRTUAL_ENV"] = sys.prefix
    env["PATH"] = f"{sys.prefix}/bin:{env['PATH']}"
    env["LD_LIBRARY_PATH"] = str(libpython_path().parent)
    return env


def free_port() -> int:
    """One that nobody else is given before, or after, the server that is to listen on it.

    It stays bound until this process ends, to a socket that does not listen, and that servers may share it with.
    """
    sock = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    sock.bind(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    sock.detach()
    return port


def free_ports() -> tuple[int, int]:
    return free_port(), free_port()


class PlainEnvoy(Server):
    """An Envoy with a configuration file."""

    def __init__(
        self,
        path: Path,
        cwd: Path,
        env: dict[str, str],
        port: int,
        workers: int = 2,
        stderr: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        words = [str(envoy_binary(None)), "-c", str(path), "--disable-hot-restart", "--log-level", "warning"]
        words += ["--component-log-level", "misc:error", "--concurrency", str(workers)]
        if stderr is not None:
            words = ["sh", "-c", f'exec "$@" 2>{stderr}', "sh", *words]
        super().__init__(words, AIOVOY, cwd, env, pass_fds=pass_fds)
        self.port = port
        self.admin: int | Path = 0
        """The port of its admin interface, or the socket."""
        RECENT.append(self)

    async def accepts(self) -> None:
        """Waits until it accepts connections."""

        def accepts() -> bool:
            if self.process.poll() is not None:
                raise ServerEnded(self)
            return listens(self.port)

        await eventually(accepts)

    def statistics(self, prefix: str) -> dict[str, int]:
        """Envoy's counters and gauges whose names begin with `prefix`, by what follows it."""
        pipe = str(self.admin) if isinstance(self.admin, Path) else None
        query = {"format": "json", "filter": f"^{re.escape(prefix)}"}
        with httpx.Client(transport=httpx.HTTPTransport(uds=pipe), timeout=DEADLINE) as client:
            found = client.get(f"http://127.0.0.1:{80 if pipe else self.admin}/stats", params=query).json()["stats"]
        return {one["name"].removeprefix(prefix): one["value"] for one in found if "value" in one}


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def configuration(port: int, admin: int, changes: dict[str, str], example: str = EXAMPLE) -> str:
    """The example on other ports, for this Python, and with `changes` made in its text."""
    text = example
    name = f"bridge{sysconfig.get_config_var('EXT_SUFFIX')}"
    changes = {
        **changes,
        "aiovoy/bridge.cpython-311-x86_64-linux-gnu.so": f"aiovoy/{name}",
        "port_value: 8000": f"port_value: {port}",
        "port_value: 9901": f"port_value: {admin}",
        "127.0.0.1:9901": f"127.0.0.1:{admin}",
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextmanager
def envoy(
    folder: Path,
    changes: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
    workers: int = 2,
    example: str = EXAMPLE,
    pass_fds: Sequence[int] = (),
) -> Iterator[PlainEnvoy]:
    """An Envoy with the example's configuration, in the repository's root as the example says."""
    port, admin = free_ports()
    path = folder / "envoy.yaml"
    path.write_text(configuration(port, admin, changes or {}, example))
    server = PlainEnvoy(path, ROOT, env or environment(), port, workers, pass_fds=pass_fds)
    server.admin = admin
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def printed(
    folder: Path,
    app: str | Callable[..., Any],
    *,
    changes: dict[str, str] | None = None,
    filters: str = "",
    clusters: str = "",
    workers: int = 1,
    stderr: Path | None = None,
    **options: Any,
) -> Iterator[PlainEnvoy]:
    """An Envoy with the configuration that the command line prints for `app` and `options`.

    `changes` are made in its text. `filters`, items of YAML, come before the bridge in each connection manager;
    `clusters` are added.
    """
    port, ssl_port = free_ports()
    options = {"port": port, **options}
    if "ssl_port" in options:
        options["ssl_port"] = ssl_port
    words = [*command(app, AIOVOY, **options), "--print-envoy-config"]
    text = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    for old, new in (changes or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    text = text.replace("  clusters:\n", "  clusters:\n" + textwrap.indent(clusters, "  "))
    path = folder / "printed.yaml"
    path.write_text(re.sub(r"( *)http_filters:\n", lambda key: key[0] + textwrap.indent(filters, key[1]), text))
    server = PlainEnvoy(path, folder, environment(), port, workers, stderr)
    server.admin = folder / "aiovoy-admin.sock"
    server.ssl_port = options.get("ssl_port", port)
    try:
        yield server
    finally:
        server.stop()
