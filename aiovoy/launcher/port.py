"""The ports of a server, which the launcher has for the server's whole life and gives to each Envoy.

Envoys come and go, and what waits in a socket's queue is served by the next one. Each slot of workers has a socket of
its own, in one group of SO_REUSEPORT, so that connections spread evenly. With that option another server of the same
user could share the port without a word. So it is taken without that option first, which fails if anybody has it.
"""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Sequence

from .addresses import Address, authority
from .errors import StartupError
from .steering import accept_no_more, steer

BACKLOG = 4096
"""Connections that wait in each socket, at most; the kernel has a limit of its own, `net.core.somaxconn`."""

_logger = logging.getLogger("aiovoy.error")


class HeldPort:
    """A TCP port: an IP address and a number, with a socket for each slot."""

    address: Address

    udp: socket.socket | None
    """Bound to the UDP port of the same number, and in a group of its own; whoever asked for it owns it."""

    def __init__(self, host: str, port: int, *, udp: bool = False) -> None:
        """Resolves `host` and takes `port` of it, for TCP and if `udp` also for UDP; 0 takes a free one."""
        self._family, address = _resolve(host, port)
        try:
            self._sockets, self.udp = _hold(self._family, address, udp)
        except OSError as error:
            raise StartupError(f"cannot listen on {authority(address[0], port)}: {_why(error, *address)}") from None
        self.address = Address(*self._sockets[0].getsockname()[:2])
        self._listens = self._steers = self._has_complained = False

    def socket(self, slot: int) -> socket.socket:
        """The listening socket of a slot, which `grow` has made."""
        return self._sockets[slot]

    def grow(self, slots: int) -> None:
        """Sees to it that there are as many sockets; raises `OSError`."""
        while len(self._sockets) < slots:
            # All in the group have the option, hence share the address.
            more = bind_to_group(self._family, (self.address.host, self.address.port), socket.SOCK_STREAM)
            self._sockets.append(more)
            if self._listens:
                _listen(more)

    def listen(self) -> None:
        """Opens the port. The order of the calls gives the sockets their indices in the group."""
        for held in self._sockets:
            _listen(held)
        self._listens = True

    def steer(self, live: Sequence[int]) -> None:
        """Has new connections go to these slots alone."""
        if not live or (len(self._sockets) == 1 and not self._steers):
            return
        try:
            steer(self._sockets[0], live)
            self._steers = True
        except OSError as error:
            if not self._has_complained:
                _logger.warning("cannot say which worker gets a connection, so the kernel does: %s", reason(error))
            self._has_complained = True

    def close_soon(self) -> None:
        """Lets in no connection any more, while those that wait can still be accepted."""
        for held in self._sockets:
            with contextlib.suppress(OSError):  # those that come late are reset, then
                accept_no_more(held)

    def close(self) -> None:
        """Lets go. An Envoy that has been given a socket keeps it."""
        for held in self._sockets:
            held.close()


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


def _hold(
    family: socket.AddressFamily, address: tuple[str, int], udp: bool
) -> tuple[list[socket.socket], socket.socket | None]:
    tcp = _bind(family, address)
    if not udp:
        return [tcp], None
    try:
        # SO_REUSEADDR would share a UDP port with anybody who asks for it, too.
        return [tcp], _open(_bind_once(family, tcp.getsockname()[:2], socket.SOCK_DGRAM))
    except OSError as error:
        tcp.close()
        if error.errno == errno.EADDRINUSE and address[1] == 0:
            return _hold(family, address, udp)  # the free port was free for TCP only
        raise


def _bind(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    """A socket bound to `address`, to which others that set SO_REUSEPORT can be bound as well."""
    # The kernel lets two sockets share a port that both ask for by SO_REUSEADDR, as long as none listens. So we ask
    # only if connections of an earlier server linger there, and take it back as soon as we have the port: of two
    # servers that start at the same time one gets it.
    try:
        return _open(_bind_once(family, address))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return _open(_bind_once(family, address, reuse_address=True))


def bind_to_group(family: socket.AddressFamily, address: tuple[str, int], kind: socket.SocketKind) -> socket.socket:
    """One more socket for an address that another one is bound to; raises `OSError`."""
    return _open(_bind_once(family, address, kind, reuse_port=True))


def _open(bound: socket.socket) -> socket.socket:
    """Lets others of the group bind to the same address."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Of the open file, which Envoys share: one that finds the queue emptied by another must not wait.
    bound.setblocking(False)
    return bound


def _listen(bound: socket.socket) -> None:
    # Its connections have the option from it, and so do not keep the port from the next server when they linger. Of two
    # that are bound by it, the second can't listen.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.listen(BACKLOG)


def _bind_once(
    family: socket.AddressFamily,
    address: tuple[str, int],
    kind: socket.SocketKind = socket.SOCK_STREAM,
    *,
    reuse_address: bool = False,
    reuse_port: bool = False,
) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as Envoy does
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse_address)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _why(error: OSError, host: str, port: int) -> str:
    """What `error` means for who wants this port of this address."""
    if error.errno == errno.EADDRNOTAVAIL:
        everywhere = "::" if ":" in host else "0.0.0.0"
        return f"this machine has no address `{host}`\nhint: `{everywhere}` stands for all that it has"
    if isinstance(error, PermissionError) and port < 1024:
        return (
            f"user {os.geteuid()} may not take ports below 1024\n"
            "hint: another port; or the capability CAP_NET_BIND_SERVICE, which systemd gives by AmbientCapabilities"
        )
    return reason(error)


def reason(error: OSError) -> str:
    """What the system says, as the end of a message."""
    text = error.strerror or str(error)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
