"""Where a server is to listen, as settings say it, and where a listener of Envoy is."""

import re
from dataclasses import dataclass

from .errors import ConfigError


@dataclass(frozen=True)
class Place:
    """One of a port of a host (a name, or an IP address), a path of a Unix domain socket, and an inherited socket."""

    host: str = ""
    port: int = 0
    path: str | None = None
    descriptor: int | str | None = None
    """Its number, or the name that systemd has given it."""


@dataclass(frozen=True)
class Address:
    """An address of a listener."""

    host: str = ""
    """The IP address; nothing for a Unix domain socket."""

    port: int = 0
    path: str = ""
    """Absolute; an abstract one begins with `@`."""

    tls: bool = False

    inherited: bool = False
    """Whether the socket was there before the server. Such a port is TCP alone."""

    @property
    def url(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"{'https' if self.tls else 'http'}://{authority(self.host, self.port)}"

    @property
    def name(self) -> str:
        """As Envoy writes it."""
        return f"unix://{self.path}" if self.path else f"tcp://{authority(self.host, self.port)}"


def authority(address: str, port: int) -> str:
    """`address:port` as it stands in a URL."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def parse_bind(text: str, default_port: int) -> Place:
    """`HOST`, `HOST:PORT` with IPv6 addresses in brackets, `unix:PATH`, or `fd://NUMBER` or `fd://NAME`."""
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest:
        return Place(path=rest.removeprefix("//") if rest.startswith("///") else rest)
    if scheme == "fd" and rest.startswith("//") and rest != "//":
        name = rest.removeprefix("//")
        return Place(descriptor=int(name) if name.isdecimal() else name)
    match = _HOST_PORT.fullmatch(text)
    if match is None or (match["port"] and int(match["port"]) > 65535) or not text:
        raise ConfigError(f"expected an address as `HOST:PORT`, `unix:PATH` or `fd://NUMBER`, got `{text}`")
    return Place(match["ipv6"] or match["host"] or "", int(match["port"]) if match["port"] else default_port)


_HOST_PORT = re.compile(r"(\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:/\[\]]*))(:(?P<port>\d{1,5}))?")
