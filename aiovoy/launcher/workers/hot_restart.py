"""Envoy's hot restart protocol, from the side of a parent that is none.

An Envoy with a restart epoch above 0 asks its parent for each socket that it is to listen on, and binds none that it
is given. The launcher answers in the place of that parent, so that sockets outlive Envoys. Each Envoy has a base id
of its own, and knows nothing of others.

A message is a datagram: its length in 8 bytes, then `envoy.HotRestartMessage` (source/server/hot_restart.proto) as
protobuf. Envoy waits for the answer.
"""

import array
import contextlib
import ctypes
import mmap
import os
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import StartupError
from ..port import reason

VERSION = 11
"""What must be the same for parent and child; changed by Envoy where they would not understand each other."""

_MEMORY = "/dev/shm/envoy_shared_memory_"

# Fields of the messages.
_REQUEST, _REPLY = 1, 2
_PASS_LISTEN_SOCKET, _SHUTDOWN_ADMIN = 1, 2

FindSocket = Callable[[str], socket.socket | None]
"""The socket for an address as Envoy writes it, such as `tcp://127.0.0.1:8000` or `unix:///run/shop.sock`."""


class HotRestartParent:
    """The parent of one Envoy, which must inherit `fileno`.

    Envoy asks while it reads its configuration, by its main thread, and `answer` must be called whenever the
    descriptor is readable. At its end it tells its parent to end as well, for which nothing has to be done; but it
    tries for 10 s and then aborts if there is no such socket. It is there as long as Envoy has inherited it.
    """

    def __init__(self, folder: Path, find_socket: FindSocket) -> None:
        """Makes a socket in `folder`, and memory that Envoy expects a parent to have made."""
        self._find_socket = find_socket
        self._path = folder / "hot"
        self._base, self._memory = _make_memory()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(f"{self._path}_parent_{self._base * 10}")
            self._socket.setblocking(False)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor to inherit."""
        return self._socket.fileno()

    def arguments(self) -> list[str]:
        """What of this stands in Envoy's command line."""
        return [
            *("--restart-epoch", "1"),
            *("--base-id", str(self._base)),
            *("--socket-path", str(self._path)),
            *("--socket-mode", "600"),
            "--skip-hot-restart-parent-stats",
            # As soon as it serves, it does not talk to its parent any more, so that it does not miss one that has gone;
            # nor does it read UDP before.
            *("--parent-shutdown-time-s", "0"),
        ]

    def answer(self) -> None:
        """Answers what has come."""
        with contextlib.suppress(BlockingIOError):
            while True:
                message = self._socket.recv(65536)
                request = _find(_REQUEST, message[8:])
                if isinstance(request, bytes):
                    self._answer(request)

    def _answer(self, request: bytes) -> None:
        if isinstance(asked := _find(_PASS_LISTEN_SOCKET, request), bytes):
            address = _find(1, asked)
            held = self._find_socket(address.decode()) if isinstance(address, bytes) else None
            # -1: there is none, bind it yourself. Another number is replaced by that of the descriptor which comes.
            fd = _field(1, 0 if held else -1)
            self._reply(_field(_PASS_LISTEN_SOCKET, fd), held)
        elif _find(_SHUTDOWN_ADMIN, request) is not None:
            started, reuse_port = _field(1, int(time.time())), _field(2, 1)
            self._reply(_field(_SHUTDOWN_ADMIN, started + reuse_port), None)

    def _reply(self, reply: bytes, held: socket.socket | None) -> None:
        message = _field(_REPLY, reply)
        rights = [] if held is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [held.fileno()]))]
        child = f"{self._path}_child_{self._base * 10 + 1}"
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):  # it has just died
            self._socket.sendmsg([struct.pack(">Q", len(message)) + message], rights, 0, child)

    def opened(self) -> None:
        """Envoy has the memory: its name can go."""
        if self._memory is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._memory)
            self._memory = None

    def close(self) -> None:
        self.opened()
        self._socket.close()


def check_version(binary: Path) -> None:
    """Raises `StartupError` if the Envoy `binary` does not understand what is said here."""
    # It says it on standard error.
    asked = subprocess.run([binary, "--hot-restart-version"], capture_output=True, text=True, check=False)
    version = (asked.stdout + asked.stderr).strip()
    if version != f"{VERSION}.{_SIZE}":
        raise StartupError(
            f"`{binary}` takes no sockets: its hot restart version is `{version}`, not {VERSION}.{_SIZE}"
        )


def remove_memory(folder: Path) -> None:
    """Removes what an Envoy whose folder this was has left."""
    for path in folder.glob("hot_parent_*"):
        with contextlib.suppress(OSError):
            os.unlink(_MEMORY + path.name.removeprefix("hot_parent_"))


_MUTEX = {"aarch64": 48}.get(os.uname().machine, 40)
"""Bytes of a `pthread_mutex_t`."""

_SIZE = 24 + 2 * _MUTEX


def _make_memory() -> tuple[int, str | None]:
    """Makes the shared memory of a new base id; returns both.

    Its content is `SharedMemory` of Envoy's source/server/hot_restart_impl.h: its own size, the version, two mutexes
    by which parent and child would take turns to write logs, and flags.
    """
    while True:
        base = secrets.randbelow(2 * 10**8)  # Envoy takes it times ten, as a signed number
        path = f"{_MEMORY}{base * 10}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        except OSError as error:
            raise StartupError(f"cannot make `{path}`, by which Envoy gets its sockets: {reason(error)}") from None
        try:
            os.ftruncate(descriptor, _SIZE)
            with mmap.mmap(descriptor, _SIZE) as memory:
                memory[:16] = struct.pack("=QQ", _SIZE, VERSION)
                for offset in (16, 16 + _MUTEX):
                    _make_mutex(memory, offset)
        finally:
            os.close(descriptor)
        return base, path


def _make_mutex(memory: mmap.mmap, offset: int) -> None:
    """One that processes share, and that is free again when its holder has died."""
    libc = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(16)
    mutex = (ctypes.c_char * _MUTEX).from_buffer(memory, offset)
    libc.pthread_mutexattr_init(attributes)
    libc.pthread_mutexattr_setpshared(attributes, 1)
    libc.pthread_mutexattr_setrobust(attributes, 1)
    libc.pthread_mutex_init(mutex, attributes)
    del mutex  # the memory can't be unmapped before


def _field(number: int, value: int | bytes) -> bytes:
    """A field in the wire format of protobuf: a varint, or bytes with their length."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value & 0xFFFFFFFFFFFFFFFF)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _find(number: int, message: bytes) -> int | bytes | None:
    """The value of a field of `message`, None if it has none."""
    return dict(_fields(message)).get(number)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def read_varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = read_varint()
        value = read_varint()
        if key & 7 == 2:
            at += value
            yield key >> 3, message[at - value : at]
        else:
            yield key >> 3, value
