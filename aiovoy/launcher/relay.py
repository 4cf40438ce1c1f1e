"""What workers write, on its way to a standard stream.

Envoy waits for who reads what it writes, with a lock that others want, too; or it keeps all that its access log does
not take, without a bound. So a worker writes to a FIFO that is always read, and what the stream does not take is kept
here, up to a bound. Lines beyond it are dropped, and their number is told. Each worker has a FIFO of its own: what two
write to one would mix in the middle of a line.
"""

import logging
import os
import re
import select
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..logs import is_object, to_json
from .descriptors import duplicate, write_all
from .port import reason

LIMIT = 1024 * 1024
"""Bytes that may wait; once there are more, lines are dropped until all of these are written."""

STUCK_SECONDS = 2.0
"""How long the end of the server waits for a standard output that takes nothing."""

_PIECE = 64 * 1024

_LINE_MILLISECONDS = 20

_logger = logging.getLogger("aiovoy.error")


class Relay:
    """Relays lines to an output in a thread of its own, from any number of sources."""

    rewrite: Callable[[bytes], bytes] | None = None
    """What is made of lines before they are relayed."""

    def __init__(self, output: IO[Any] | int, what: str, stream: str) -> None:
        """`output` is where to write, as `subprocess` takes it; the relay has a descriptor of its own for that.

        `what` is relayed to which `stream`, in the words of a message.
        """
        self._what, self._stream = what, stream
        self._output = duplicate(output)
        self._changed = threading.Condition()  # guards the next five
        self._pieces: deque[bytes] = deque()
        self._bytes = 0  # of them, and of the one that is being written
        self._lines = 0  # likewise
        self._dropped = 0
        self._ended = False
        self._writer = threading.Thread(target=self._write, name="aiovoy-log-writer", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Writes what has been put, unless the output takes nothing any more. Sources are closed before."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            while self._bytes and self._changed.wait(STUCK_SECONDS):
                pass
            lost = self._lines + self._dropped if self._bytes else 0
            self._pieces.clear()
        teller = self._writer  # it may have something to tell itself
        if lost:
            teller = threading.Thread(target=self._tell_of, args=[lost], name="aiovoy-log-teller", daemon=True)
            teller.start()
        teller.join(STUCK_SECONDS)  # unless a logger is held up, too

    def put(self, piece: bytes) -> None:
        """Adds `piece`, whole lines, or drops them."""
        if self.rewrite is not None:
            piece = self.rewrite(piece)
        with self._changed:
            if self._dropped or (self._bytes and self._bytes + len(piece) > LIMIT):
                self._dropped += piece.count(b"\n")
            elif piece:
                self._pieces.append(piece)
                self._bytes += len(piece)
                self._lines += piece.count(b"\n")
                self._changed.notify_all()

    def _write(self) -> None:
        lost, failed = 0, False
        while piece := self._next():
            try:
                write_all(self._output, piece)
                failed = False
            except OSError as error:
                if not failed:
                    _logger.warning("cannot write %s: %s", self._what, reason(error))
                failed = True
                lost += piece.count(b"\n")
            lost += self._done(piece)
            if lost and not failed:
                self._tell_of(lost)
                lost = 0
        if lost:
            self._tell_of(lost)
        os.close(self._output)

    def _next(self) -> bytes:
        """The next piece to write; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._ended)
            return self._pieces.popleft() if self._pieces else b""

    def _done(self, piece: bytes) -> int:
        """Takes `piece` off the account. Returns how many lines were dropped, once nothing waits any more."""
        with self._changed:
            self._bytes -= len(piece)
            self._lines -= piece.count(b"\n")
            self._changed.notify_all()
            if self._bytes:
                return 0
            dropped, self._dropped = self._dropped, 0
            return dropped

    def _tell_of(self, lines: int) -> None:
        many = "s"[: lines != 1]
        _logger.warning("dropped %d line%s of %s: %s took no more", lines, many, self._what, self._stream)


class Fifo:
    """A source of a relay: makes a FIFO for a worker to write to, which a thread of its own reads."""

    def __init__(self, path: Path, relay: Relay) -> None:
        self.is_heard = True
        """Whether what is read goes to the relay."""
        self._relay = relay
        os.mkfifo(path, 0o600)
        # For writing, too: so it has no end while the worker has it not open, or opens it anew.
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._closing, self._close = os.pipe()
        self._reader = threading.Thread(target=self._read, name="aiovoy-log-reader", daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Reads what the worker has written until its end."""
        os.write(self._close, b".")  # closing it would not do: a child that was forked has it open, too
        self._reader.join()
        os.close(self._close)
        os.close(self._closing)
        os.close(self._fifo)

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._fifo, select.POLLIN)
        poll.register(self._closing, select.POLLIN)
        rest = b""  # of a line whose end is to come, which is not waited for long
        while True:
            # What is rewritten is so by the line.
            is_waited_for = rest and self._relay.rewrite is None
            events = dict(poll.poll(_LINE_MILLISECONDS if is_waited_for else None))
            if self._fifo in events and len(rest) < (_PIECE if self._relay.rewrite is None else LIMIT):
                lines, end, rest = (rest + os.read(self._fifo, _PIECE)).rpartition(b"\n")
                self._put(lines + end)
                continue
            self._put(rest)
            rest = b""
            if self._closing in events and self._fifo not in events:
                return

    def _put(self, lines: bytes) -> None:
        if self.is_heard:
            self._relay.put(lines)


_ENVOYS_LINE = re.compile(r"\[[-\d]+ [.:\d]+\] \[(\w+)\] (.*)")


def to_objects(lines: bytes) -> bytes:
    """Makes an object of JSON of each line that is none: what Envoy, a library or a `print` has written."""
    texts = (line.decode("utf-8", "backslashreplace") for line in lines.split(b"\n") if line)
    return b"".join(f"{text if is_object(text) else _object(text)}\n".encode() for text in texts)


def _object(text: str) -> str:
    found = _ENVOYS_LINE.fullmatch(text)
    return to_json(found[1], "envoy", found[2]) if found else to_json("info", "stderr", text)


_STATUS = re.compile(rb'(?<=" )[1-5]\d\d(?= \d+(?: "|$))', re.MULTILINE)
_COLORS = {b"1": 36, b"2": 32, b"3": 36, b"4": 33, b"5": 31}


def paint(lines: bytes) -> bytes:
    """Gives the status in lines of the common or combined log format a colour."""
    return _STATUS.sub(lambda status: b"\x1b[%dm%b\x1b[0m" % (_COLORS[status[0][:1]], status[0]), lines)
