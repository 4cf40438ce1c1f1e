"""The port of a server, held from before Envoy starts until Envoy listens.

Envoy sets SO_REUSEPORT on its listener, so it would share a port with another server of the same user without a
word. Here the port is taken without that option first, which fails if anybody has it, and only then opened to Envoy.
The holding socket never listens, hence never gets a connection. One for UDP may get datagrams of clients that come
too early; they send them again.
"""

import errno
import socket

from .errors import StartupError


class HeldPort:
    """An address that Envoy, and nobody else, can bind while this object holds it."""

    address: str
    """The IP address."""

    port: int

    def __init__(self, host: str, port: int, *, udp: bool = False) -> None:
        """Resolves `host` and takes `port` of it, for TCP and if `udp` also for UDP; 0 takes a free one."""
        family, address = _resolve(host, port)
        try:
            self._sockets = _hold(family, address, udp)
        except OSError as error:
            raise StartupError(f"cannot listen on {authority(address[0], port)}: {reason(error)}") from None
        self.address, self.port = self._sockets[0].getsockname()[:2]

    def release(self) -> None:
        """Lets go. Envoy keeps what it has bound."""
        for held in self._sockets:
            held.close()


def authority(address: str, port: int) -> str:
    """`address:port` as it stands in a URL."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def resolve(host: str) -> str:
    """The IP address that `host` means."""
    _, address = _resolve(host, 0)
    return address[0]


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartupError(f"cannot resolve the host name `{host}`: {error.strerror}") from None
    # `localhost` is often both; one listener has one address, and IPv4 is what most clients try.
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, (str(address[0]), port)


def _hold(family: socket.AddressFamily, address: tuple[str, int], udp: bool) -> list[socket.socket]:
    tcp = _bind(family, address)
    if not udp:
        return [tcp]
    try:
        # SO_REUSEADDR would share a UDP port with anybody who asks for it, too.
        return [tcp, _open(_bind_once(family, tcp.getsockname()[:2], socket.SOCK_DGRAM))]
    except OSError as error:
        tcp.close()
        if error.errno == errno.EADDRINUSE and address[1] == 0:
            return _hold(family, address, udp)  # the free port was free for TCP only
        raise


def _bind(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    """A socket bound to `address`, to which one that sets SO_REUSEPORT can be bound as well."""
    # The kernel lets two sockets share a port that both ask for by SO_REUSEADDR, as long as none listens. So we ask
    # only if connections of an earlier server linger there, and take it back as soon as we have the port: of two
    # servers that start at the same time one gets it.
    try:
        return _open(_bind_once(family, address))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return _open(_bind_once(family, address, reuse_address=True))


def _open(bound: socket.socket) -> socket.socket:
    """Lets Envoy bind to the same address."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return bound


def _bind_once(
    family: socket.AddressFamily,
    address: tuple[str, int],
    kind: socket.SocketKind = socket.SOCK_STREAM,
    *,
    reuse_address: bool = False,
) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as Envoy does
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse_address)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def reason(error: OSError) -> str:
    """What the system says, as the end of a message."""
    text = error.strerror or str(error)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
