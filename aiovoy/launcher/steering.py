"""Which socket of a group of SO_REUSEPORT gets a new connection.

The kernel asks a classic BPF program for the index of a socket, which is its place in the order of the calls of
`listen`. Without one, or if the index is none, it takes a hash of the addresses, over all sockets of the group.
"""

import ctypes
import socket
import struct
from collections.abc import Sequence

_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_ATTACH_FILTER = 26

# linux/filter.h, linux/bpf_common.h
_LOAD_WORD, _LOAD_BYTE, _MOD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x30, 0x94, 0x54, 0x15, 0x06
_RANDOM = (-0x1000 + 56) & 0xFFFFFFFF

_Instruction = tuple[int, int, int, int]
"""Code, how many to skip if true, if false, and a number."""


def steer(group: socket.socket, live: Sequence[int]) -> None:
    """Has connections go to one of the sockets `live` at random, by their indices; `group` is any socket of it.

    It takes the place of the program that was there. Raises `OSError` where the kernel has none of this.
    """
    program: list[_Instruction] = [(_LOAD_WORD, 0, 0, _RANDOM), (_MOD, 0, 0, len(live))]
    for number, index in enumerate(live[:-1]):
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, index)]
    program.append((_RETURN, 0, 0, live[-1]))
    _attach(group, _SO_ATTACH_REUSEPORT_CBPF, program)


def accept_no_more(listener: socket.socket) -> None:
    """Has the kernel drop what would begin a connection, so that who comes waits, and tries again in a second."""
    # The flags of the TCP header: SYN without ACK (RFC 9293, section 3.1).
    syn = [(_LOAD_BYTE, 0, 0, 13), (_AND, 0, 0, 0x12), (_JUMP_EQUAL, 0, 1, 0x02)]
    _attach(listener, _SO_ATTACH_FILTER, [*syn, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, 0xFFFFFFFF)])


def _attach(sock: socket.socket, option: int, program: Sequence[_Instruction]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    # struct sock_fprog, whose second field is a pointer; the kernel copies what it points to.
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@HP", len(program), ctypes.addressof(code)))
