"""Proxies in front of `aiovoy upstream`, Envoy and nginx, and the Envoys of examples/ with what is behind them."""

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py_tests.harness.deadline import eventually
from py_tests.harness.folders import EXAMPLES, ROOT
from py_tests.harness.plain_envoy import PlainEnvoy, free_port, listens
from py_tests.harness.serving import AIOVOY, RECENT, Server, import_string

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
"""None where it is not installed."""


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def started(command: Sequence[str]) -> contextlib.AbstractContextManager[Server]:
    """A server of ours, which may not accept connections yet."""
    return _running(Server(list(command), AIOVOY, ROOT, {}))


@contextlib.contextmanager
def upstream(app: str | Callable[..., Any], *words: str) -> Iterator[Server]:
    """`aiovoy upstream`, which accepts connections."""
    command = [sys.executable, "-m", "aiovoy", "upstream", import_string(app), "--app-dir", str(ROOT), *words]
    with started(command) as server:
        server.wait_until_started()
        yield server


@contextlib.contextmanager
def envoy(path: Path, port: int, admin: int = 0) -> Iterator[PlainEnvoy]:
    """An Envoy with the configuration at `path`, which may not accept connections yet."""
    server = PlainEnvoy(path, ROOT, {}, port, workers=1)
    server.admin = admin
    with _running(server):
        yield server


class Nginx(Server):
    """One process, in the foreground, with a configuration of its own in `folder`."""

    def __init__(self, folder: Path, port: int, configuration: str) -> None:
        assert NGINX is not None
        path = folder / "nginx.conf"
        path.write_text(configuration)
        # Before there is a configuration nginx would write to the log of the system.
        command = [NGINX, "-p", str(folder), "-c", str(path), "-e", "stderr"]
        command += ["-g", "daemon off; master_process off;"]
        super().__init__(command, AIOVOY, folder, {})
        self.port = port


@contextlib.contextmanager
def nginx(folder: Path, port: int, configuration: str) -> Iterator[Nginx]:
    """An nginx with `configuration`, which may not accept connections yet."""
    with _running(Nginx(folder, port, configuration)) as server:
        yield server


@contextlib.contextmanager
def _running(server: Any) -> Iterator[Any]:
    if server not in RECENT:
        RECENT.append(server)
    try:
        yield server
    finally:
        server.stop()


# --- Examples ---


@dataclass
class Example:
    """A proxy of examples/ and what is behind it."""

    proxy: Server
    upstreams: list[Server]
    commands: list[list[str]]
    """Those that have started `upstreams`."""

    async def accepts(self) -> None:
        """Waits until the proxy accepts connections."""
        await eventually(lambda: listens(self.proxy.port))

    def statistics(self) -> dict[str, int]:
        """What Envoy counts of the cluster."""
        assert isinstance(self.proxy, PlainEnvoy)
        return self.proxy.statistics("cluster.app.")


def pasted(name: str) -> list[list[str]]:
    """The commands that an example shows in its first comment, in words."""
    comment = (EXAMPLES / name).read_text().split("\n\n")[0]
    shown = [line.removeprefix("#     ") for line in comment.splitlines() if line.startswith("#     ")]
    return [shlex.split(command) for command in "\n".join(shown).replace("\\\n", " ").splitlines()]


AROUND = """
error_log stderr warn;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {}
}}
"""
"""What the system's nginx.conf has around a file of conf.d, for a process that writes to its folder alone."""


@contextlib.contextmanager
def example(
    name: str, folder: Path, words: Mapping[str, str] | None = None, changes: Mapping[str, str] | None = None
) -> Iterator[Example]:
    """An example started by the commands that it shows, on free ports, and on a socket in `folder`.

    `words` has what is to stand in place of other words of `aiovoy upstream`; `changes` are made in the configuration.
    """
    ports = dict(zip(["8000", "9901", "8001", "8002"], map(str, free_ports(4)), strict=True))
    pipe = str(folder / "aiovoy.sock")
    text = (EXAMPLES / name).read_text().replace("{path: aiovoy.sock}", f"{{path: {pipe}}}")
    for old, new in ports.items():
        text = text.replace(f"port_value: {old}}}", f"port_value: {new}}}").replace(
            f"127.0.0.1:{old}", f"127.0.0.1:{new}"
        )
    for old, new in (changes or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    shown = pasted(name)
    if name != "nginx.conf":
        shown.remove([".venv/bin/envoy", "-c", f"examples/{name}"])
    assert {program for program, *_ in shown} == {".venv/bin/aiovoy"}
    words = {**ports, "aiovoy.sock": pipe, **(words or {})}
    commands = [[sys.executable, "-m", "aiovoy", *(words.get(word, word) for word in rest)] for _, *rest in shown]
    with contextlib.ExitStack() as stack:
        upstreams = [stack.enter_context(started(command)) for command in commands]
        for server in upstreams:
            server.wait_until_started()
        port = int(ports["8000"])
        proxy: Server
        if name == "nginx.conf":
            proxy = stack.enter_context(nginx(folder, port, AROUND.format(text)))
        else:
            path = folder / "envoy.yaml"
            path.write_text(text)
            proxy = stack.enter_context(envoy(path, port, int(ports["9901"])))
        yield Example(proxy, upstreams, commands)
