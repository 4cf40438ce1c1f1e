"""Which socket of a group of SO_REUSEPORT gets a new connection, or, of UDP, a packet.

The kernel asks a classic BPF program for the index of a socket, which is its place in the order of the calls of
`listen`, and on UDP of `bind`. Without one, or if the index is none, it takes a hash of the addresses, over all sockets
of the group.
"""

import socket
import struct
from array import array
from collections.abc import Sequence

from .lanes import Lane

_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_ATTACH_FILTER = 26

# linux/filter.h, linux/bpf_common.h
_LOAD_WORD, _LOAD_BYTE, _MOD, _AND, _ADD, _TO_X = 0x20, 0x30, 0x94, 0x54, 0x04, 0x07
_JUMP, _JUMP_EQUAL, _JUMP_EQUAL_X, _JUMP_SET, _RETURN = 0x05, 0x15, 0x1D, 0x45, 0x06
_RANDOM = (-0x1000 + 56) & 0xFFFFFFFF

_Instruction = tuple[int, int, int, int]
"""Code, how many to skip if true, if false, and a number."""


def steer(group: socket.socket, live: Sequence[int]) -> None:
    """Has connections go to one of the sockets `live` at random, by their indices; `group` is any socket of it.

    It takes the place of the program that was there. Raises `OSError` where the kernel has none of this.
    """
    _attach(group, _SO_ATTACH_REUSEPORT_CBPF, [(_LOAD_WORD, 0, 0, _RANDOM), *_one_of(live)])


def steer_packets(group: socket.socket, takers: Sequence[Lane], living: Sequence[Lane]) -> None:
    """Has QUIC packets with an id of a lane that is `living` go there, and all others to one of `takers`.

    Which one, the packet's id says: so all go to the same until the client has heard from the server, and sends to the
    id that it has been given. Raises `OSError` where the kernel has none of this.
    """
    lanes: list[_Instruction] = []
    for lane in living:
        lanes += [(_JUMP_EQUAL, 0, 1, lane.first_byte), (_RETURN, 0, 0, lane.index)]
    program = [
        # RFC 9000, section 17: a long header has the id's length in byte 5, then the id; a short one has it in byte 1.
        (_LOAD_BYTE, 0, 0, 0),
        (_JUMP_SET, 2, 0, 0x80),
        (_LOAD_BYTE, 0, 0, 1),
        (_JUMP, 0, 0, 8),
        # The id of a long header may be one that the client has made up: those of lanes have a length that fits.
        (_LOAD_BYTE, 0, 0, 6),
        (_AND, 0, 0, 0x1F),
        (_ADD, 0, 0, 2),
        (_TO_X, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, 5),
        (_JUMP_EQUAL_X, 1, 0, 0),
        (_JUMP, 0, 0, 1 + len(lanes)),
        (_LOAD_BYTE, 0, 0, 6),
        *lanes,
        # What a client makes up has eight bytes at least, which can't be foreseen (section 7.2): these are the last.
        (_LOAD_WORD, 0, 0, 10),
        *_one_of([lane.index for lane in takers]),
    ]
    _attach(group, _SO_ATTACH_REUSEPORT_CBPF, program)


def _one_of(indices: Sequence[int]) -> list[_Instruction]:
    """Returns one of these, as the number at hand says."""
    program: list[_Instruction] = [(_MOD, 0, 0, len(indices))]
    for number, index in enumerate(indices[:-1]):
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, index)]
    return [*program, (_RETURN, 0, 0, indices[-1])]


def accept_no_more(listener: socket.socket) -> None:
    """Has the kernel drop what would begin a connection, so that who comes waits, and tries again in a second."""
    # The flags of the TCP header: SYN without ACK (RFC 9293, section 3.1).
    syn = [(_LOAD_BYTE, 0, 0, 13), (_AND, 0, 0, 0x12), (_JUMP_EQUAL, 0, 1, 0x02)]
    _attach(listener, _SO_ATTACH_FILTER, [*syn, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, 0xFFFFFFFF)])


def _attach(sock: socket.socket, option: int, program: Sequence[_Instruction]) -> None:
    code = array("B", b"".join(struct.pack("=HBBI", *line) for line in program))
    address, _ = code.buffer_info()
    # struct sock_fprog, whose second field is a pointer; the kernel copies what it points to.
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@HP", len(program), address))
