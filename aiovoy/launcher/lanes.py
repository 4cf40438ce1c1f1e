"""Connection ids of QUIC that say which process has the connection.

QUIC runs over UDP, where the kernel knows of no connections. So each process has a lane: a socket of its own, and
connection ids that lead there. Envoy makes the ids as draft-ietf-quic-load-balancers has it, with AES:

    first byte     lane: its version in the upper 3 bits, its length in the others
    length bytes   encrypted, with a key that is the process's own
    one byte       which of Envoy's threads; there is but one

Nothing of an id can be guessed but the first byte. That matters, since the token that resets a connection (RFC 9000,
section 10.3) Envoy derives from an id without any secret. Its unencrypted ids can be computed from an earlier one.
"""

from dataclasses import dataclass

VERSIONS = 7
"""How many configurations the draft lets live at a time; the eighth means ids that lead nowhere."""

SHORTEST, LONGEST = 8, 17
"""Bytes that are encrypted: no fewer, so that ids can't be guessed, and as many as Envoy allows."""

LANES = VERSIONS * (LONGEST - SHORTEST + 1)

MOST_WORKERS = 64
"""What is left of the lanes is for workers that come while others retire."""


@dataclass(frozen=True)
class Lane:
    """A lane, by the index of its socket among those of the port."""

    index: int

    @property
    def version(self) -> int:
        return self.index % VERSIONS

    @property
    def length(self) -> int:
        return SHORTEST + self.index // VERSIONS

    @property
    def first_byte(self) -> int:
        """What its ids begin with, and no other's."""
        return self.version << 5 | self.length
