"""The UDP port of HTTP/3."""

import logging
import socket
from collections.abc import Sequence

from .addresses import authority
from .errors import StartupError
from .lanes import LANES, Lane
from .port import bind_to_group, reason
from .steering import steer_packets

_logger = logging.getLogger("aiovoy.error")


class HeldUdp:
    """A UDP port with a socket for each process that speaks HTTP/3, all in one group of SO_REUSEPORT.

    The invariants: no two processes have the same lane at the same time. The index of a socket in its group is that of
    its lane, so none is closed before the last process has gone. What comes with an id of a living process goes to
    that process; all else, such as a client's first packet, or one of a connection whose process has gone, to one that
    takes connections, which answers the latter with a reset.
    """

    def __init__(self, first: socket.socket, *, several: bool) -> None:
        """Owns the socket `first`, which is bound.

        `StartupError` if there are to be `several` processes at a time, and the kernel can't be told which of them
        gets a packet.
        """
        self._family = first.family
        self._address = first.getsockname()[:2]
        self._sockets = [first]
        self._free = [Lane(0)]
        """The one that was given back last comes last, and is taken first: what waits in its socket is read then."""
        self._has_complained = False
        try:
            # Before there is a connection whose packets could get to the wrong process, which would reset it.
            self._add()  # a socket alone makes no group
            steer_packets(first, [Lane(0)], ())
        except OSError as error:
            if several:
                self.close()
                raise StartupError(f"cannot share the port of HTTP/3 among workers: {reason(error)}") from None
            for unused in self._sockets[1:]:
                unused.close()
            del self._sockets[1:], self._free[:-1]

    @property
    def name(self) -> str:
        """As Envoy writes it."""
        return f"udp://{authority(*self._address)}"

    @property
    def is_full(self) -> bool:
        """Whether all lanes are taken."""
        return not self._free and len(self._sockets) == LANES

    def take(self) -> Lane:
        """A lane for a process, until it is given back; `StartupError` if there is no socket for it."""
        try:
            self._see_to_next()
        except OSError as error:
            raise StartupError(f"cannot listen on {authority(*self._address)}: {reason(error)}") from None
        return self._free.pop()

    def give_back(self, lane: Lane) -> None:
        """Its process has exited."""
        self._free.append(lane)

    def socket(self, lane: Lane) -> socket.socket:
        return self._sockets[lane.index]

    def steer(self, takers: Sequence[Lane], living: Sequence[Lane]) -> None:
        """Has new connections go to one of `takers`, and those that there are to their processes, the `living`.

        Without a taker they wait for whoever takes the next lane.
        """
        try:
            if not takers and not self.is_full:
                self._see_to_next()
                takers = self._free[-1:]
            if takers and len(self._sockets) > 1:
                steer_packets(self._sockets[0], takers, living)
        except OSError as error:
            if not self._has_complained:
                _logger.warning("cannot say which worker gets a packet of HTTP/3: %s", reason(error))
            self._has_complained = True

    def _see_to_next(self) -> None:
        """Sees to it that a lane is free, unless all are taken; raises `OSError`."""
        if not self._free:
            self._add()

    def _add(self) -> None:
        # All in the group have the option, hence share the address.
        self._sockets.append(bind_to_group(self._family, self._address, socket.SOCK_DGRAM))
        self._free.insert(0, Lane(len(self._sockets) - 1))

    def close(self) -> None:
        """The processes have ended."""
        for held in self._sockets:
            held.close()
