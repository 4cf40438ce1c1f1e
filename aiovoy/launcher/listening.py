"""Where a server listens, for its whole life: the sockets that it gives to its workers."""

import contextlib
import dataclasses
import socket
from collections.abc import Sequence
from typing import Protocol

from .addresses import Address, Place
from .config import Config
from .inherited import GivenSocket
from .lanes import MOST_WORKERS, Lane
from .port import HeldPort
from .udp import HeldUdp
from .uds import HeldUds

QUEUE_SECONDS = 0.05
"""How long workers get to accept the connections that wait when the server stops."""


class Held(Protocol):
    """What all kinds of addresses have in common. Nobody is let in before `listen`."""

    address: Address

    def grow(self, slots: int) -> None:
        """Sees to it that there is a socket for each of so many slots; raises `OSError`."""

    def socket(self, slot: int) -> socket.socket:
        """The socket of a slot; it may be all slots'."""

    def listen(self) -> None: ...

    def steer(self, live: Sequence[int]) -> None:
        """Has new connections go to these slots alone, where slots have sockets of their own."""

    def close_soon(self) -> None:
        """Lets in no connection any more, while those that wait can still be accepted."""

    def close(self) -> None: ...


class Listening:
    """The sockets of one server."""

    addresses: list[Address]
    """In the order of the settings, that of `ssl_port` last."""

    udp: HeldUdp | None
    """Where HTTP/3 is, at the first port that speaks TLS."""

    def __init__(self, config: Config, slots: int) -> None:
        """Takes the addresses of `config`, but does not listen yet; `StartupError` says which one can't be taken."""
        self._held: list[Held] = []
        self.udp = None
        tls = bool(config.certificates) and config.ssl_port is None
        with contextlib.ExitStack() as taken:
            taken.callback(self.close)
            self.addresses = [self._take(config, place, tls, slots) for place in config.places]
            if config.ssl_port is not None:
                self.addresses.append(self._take(config, Place(config.host, config.ssl_port), True, slots))
            self.grow(slots)
            taken.pop_all()

    def _take(self, config: Config, place: Place, tls: bool, slots: int) -> Address:
        held: Held
        if place.descriptor is not None:
            held = GivenSocket(place.descriptor)
        elif place.path is not None:
            held = HeldUds(place.path, config.uds_permissions)
        else:
            held = HeldPort(place.host, place.port, udp=config.http3 and tls and self.udp is None)
            if held.udp is not None:
                self.udp = HeldUdp(held.udp, several=slots > 1)
        self._held.append(held)
        return dataclasses.replace(held.address, tls=tls)

    @property
    def names(self) -> set[str]:
        """All that an Envoy asks for, as it writes it."""
        names = {address.name for address in self.addresses}
        return names if self.udp is None else {*names, self.udp.name}

    @property
    def are_shared(self) -> bool:
        """Whether some of the sockets are all slots', so that only a worker itself can leave connections to others."""
        return any(not isinstance(held, HeldPort) for held in self._held)

    @property
    def files(self) -> list[str]:
        """The files of its Unix domain sockets."""
        return [held.address.path for held in self._held if isinstance(held, HeldUds)]

    @property
    def host(self) -> str:
        """The IP address of the first port; nothing if there is none."""
        return next((address.host for address in self.addresses if address.host), "")

    @property
    def port(self) -> int:
        """The first port; 0 if there is none, or one for TLS besides."""
        return self.addresses[0].port

    @property
    def ssl_port(self) -> int | None:
        """The first port that speaks TLS; it may be the same."""
        return next((address.port for address in self.addresses if address.tls and address.port), None)

    @property
    def urls(self) -> list[str]:
        return [address.url for address in self.addresses]

    def grow(self, slots: int) -> None:
        """Sees to it that there are sockets for so many slots; raises `OSError`."""
        if self.udp is not None and slots > MOST_WORKERS:
            raise OSError(f"HTTP/3 allows {MOST_WORKERS} workers")
        for held in self._held:
            held.grow(slots)

    def find(self, name: str, slot: int, lane: Lane | None) -> socket.socket | None:
        """The socket for an address as Envoy writes it, of a process that has a slot, and a lane if there is HTTP/3.

        None if there is none, or none any more.
        """
        if self.udp is not None and lane is not None and name == self.udp.name:
            return self.udp.socket(lane)
        for held in self._held:
            if name == held.address.name:
                return held.socket(slot)
        return None

    def filenos(self, slot: int) -> list[int]:
        """The descriptors of a slot's sockets, in the order of the addresses."""
        return [held.socket(slot).fileno() for held in self._held]

    def listen(self) -> None:
        """Opens all of them."""
        for held in self._held:
            held.listen()

    def steer(self, live: Sequence[int]) -> None:
        """Has new connections go to these slots alone, where slots have sockets of their own."""
        for held in self._held:
            held.steer(live)

    def close_soon(self) -> None:
        """Lets in no connection any more, while those that wait can still be accepted."""
        for held in self._held:
            held.close_soon()

    def close_listeners(self) -> None:
        """Lets go of what connections wait in. Packets of those that there are still get to their processes."""
        for held in self._held:
            held.close()
        self._held.clear()

    def close(self) -> None:
        """Lets go of all. May be called again."""
        self.close_listeners()
        if self.udp is not None:
            self.udp.close()
