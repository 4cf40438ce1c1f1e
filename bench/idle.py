"""Measures the memory of idle WebSockets. `make bench-idle` runs it.

Each server gets so many connections, and then one message on each. What its processes have grown by is divided by the
number of connections; what the kernel keeps of a connection is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import statistics
import sys
import time

from harness import websocket
from harness.cases import CASES, Case
from harness.options import names_of, positive
from harness.process import RunningServer
from harness.rounds import rotated
from harness.servers import BUILT_IN, ServerUnavailableError
from harness.table import align

SERVERS = ["aiovoy", "pyvoy", "granian", "uvicorn"]

KINDS = {"text": "no compression", "text-deflate": "compression offered, as browsers do"}

# Connections before the first look, so that what the first ones load or allocate for all is there.
FIRST = 50


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the memory of idle WebSockets.")
    parser.add_argument("--connections", type=positive, default=5000)
    parser.add_argument("--rounds", type=positive, default=3, help="how often everything is measured")
    parser.add_argument("--servers", type=names_of(SERVERS), default=SERVERS, metavar="NAMES", help="commas between")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    servers = [BUILT_IN[name]() for name in options.servers]
    for name, title in KINDS.items():
        taken: dict[str, list[tuple[float, float]]] = {server.name: [] for server in servers}
        for number in range(options.rounds):
            for server in rotated(servers, number):
                with RunningServer(server, CASES[name].app, CASES[name].path) as running:
                    # A server that does not compress is asked all the same, and then gets a plain message.
                    message = CASES[name] if server.deflate else CASES["text"]
                    taken[server.name].append(measure(running, CASES[name], message, options.connections))
        lines = [["server", "KiB each, idle", "after a message"]]
        for server_name, rounds in taken.items():
            idle, used = (statistics.median(values) / 1024 for values in zip(*rounds, strict=True))
            lines.append([server_name, f"{idle:.1f}", f"{used:.1f}"])
        print(f"{options.connections:,} WebSockets, {title}\n{align(lines)}\n", flush=True)
    return 0


def measure(running: RunningServer, handshake: Case, message: Case, connections: int) -> tuple[float, float]:
    """Bytes of each connection, before and after its first message."""
    with contextlib.ExitStack() as first:
        exchange(open_sockets(running, handshake, FIRST, first), message)
    before = settled(running)
    with contextlib.ExitStack() as stack:
        sockets = open_sockets(running, handshake, connections, stack)
        idle = settled(running)
        exchange(sockets, message)
        used = settled(running)
    return (idle - before) / connections, (used - before) / connections


def open_sockets(running: RunningServer, case: Case, count: int, stack: contextlib.ExitStack) -> list[socket.socket]:
    return [stack.enter_context(websocket.connect(running.port, case, strict=False)) for _ in range(count)]


def exchange(sockets: list[socket.socket], case: Case) -> None:
    for connection in sockets:
        websocket.exchange(connection, case)


def settled(running: RunningServer) -> int:
    """The memory of the server, once it has been the same for half a second."""
    last = -1
    for _ in range(20):
        now = running.memory_bytes()
        if now == last:
            break
        last = now
        time.sleep(0.5)
    return last


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ServerUnavailableError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
