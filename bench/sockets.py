"""Puts the load of a WebSocket case on a server: `python sockets.py PORT CASE CONNECTIONS SECONDS MESSAGES`.

On each connection one message is on its way at a time. The load ends after so many seconds or so many messages, 0 being
no limit. Prints one line of JSON, with times in seconds.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time

from harness.cases import CASES, Case
from harness.load import percentile
from harness.websocket import COMPRESSED, FIN, PING, PONG, WrongFrameError, connect, frame, frame_length, message

RECEIVE = 2**18


class Connection:
    def __init__(self, port: int, case: Case) -> None:
        self.socket = connect(port, case)
        # A whole message fits in, so that a server that is slow to read does not hold up the other connections.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(case.answer))
        self.received = bytearray()
        self.sent = 0.0


def main(port: int, case: Case, connections: int, seconds: float, messages: int) -> None:
    request = message(case)
    kind = request[0] & ~COMPRESSED
    by_number = {one.socket.fileno(): one for one in (Connection(port, case) for _ in range(connections))}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    gc.disable()
    clock = time.perf_counter
    times: list[float] = []
    begin = now = clock()
    for one in by_number.values():
        one.sent = clock()
        one.socket.sendall(request)
    while now < begin + (seconds or 1e9) and len(times) < (messages or 1e9):
        ready = poll.poll(10.0)
        if not ready:
            raise WrongFrameError("no answer in 10 s")
        for number, _ in ready:
            one = by_number[number]
            data = one.socket.recv(RECEIVE, socket.MSG_DONTWAIT)
            if not data:
                raise WrongFrameError("the server closed a connection")
            received = one.received
            received += data
            head, end = frame_length(received)
            while end and len(received) >= end:
                first = received[0]
                if first & ~COMPRESSED == kind:
                    if not first & COMPRESSED and received[head:end] != case.answer:
                        raise WrongFrameError(f"expected what was sent, got {received[:40]!r}")
                    now = clock()
                    times.append(now - one.sent)
                    one.sent = now
                    one.socket.sendall(request)
                elif first == FIN | PING:
                    one.socket.sendall(frame(FIN | PONG, bytes(received[head:end])))
                else:
                    raise WrongFrameError(f"expected a message, got {received[:40]!r}")
                del received[:end]
                head, end = frame_length(received)
    microseconds = sorted(int(one * 1e6) for one in times)
    result = {"requests": len(times), "seconds": now - begin}
    result |= {f"p{percent}": percentile(microseconds, percent) / 1e6 for percent in (50, 99)}
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), CASES[sys.argv[2]], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
