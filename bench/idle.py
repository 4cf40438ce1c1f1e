"""Measures the memory of idle connections. `make bench-idle` runs it.

Each server gets so many connections, and then one request on each, or one message of a WebSocket. What its processes
have grown by is divided by the number of connections; what the kernel keeps of a connection is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from harness import websocket
from harness.cases import CASES, Case
from harness.options import names_of, positive
from harness.process import RunningServer
from harness.rounds import rotated
from harness.servers import BUILT_IN, Server, ServerUnavailableError
from harness.table import align

SERVERS = ["aiovoy", "upstream", "pyvoy", "granian", "uvicorn", "envoy+granian", "envoy+uvicorn"]

# So that connections are kept which nobody uses, and as many of them as are opened.
PATIENT = {
    "aiovoy": ["--timeout-keep-alive=600"],
    "upstream": ["--timeout-keep-alive=600"],
    "granian": ["--backlog=32768"],
    "uvicorn": ["--timeout-keep-alive=600"],
}

# Connections before the first look, so that what the first ones load or allocate for all is there.
FIRST = 50

TIMEOUT = 10.0


@dataclass(frozen=True)
class Kind:
    """Of connections."""

    title: str
    connections: int
    case: Case
    open: Callable[[int, Case], socket.socket]
    exchange: Callable[[socket.socket, Case], object]


def connect(port: int, _: Case) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


def ask(connection: socket.socket, case: Case) -> None:
    """A request on a connection that is kept, and its answer."""
    connection.sendall(f"GET {case.path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(case.answer):
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError(f"a server closed a connection after {answer!r}")
        answer += piece


def open_websocket(port: int, case: Case) -> socket.socket:
    return websocket.connect(port, case, strict=False)


KINDS = {
    "http": Kind("connections, HTTP/1.1", 10_000, CASES["hello"], connect, ask),
    "ws": Kind("WebSockets, no compression", 5_000, CASES["text"], open_websocket, websocket.exchange),
    "ws-deflate": Kind(
        "WebSockets, compression offered, as browsers do",
        5_000,
        CASES["text-deflate"],
        open_websocket,
        websocket.exchange,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the memory of idle connections.")
    parser.add_argument("--connections", type=positive, help="instead of 10,000, of WebSockets 5,000")
    parser.add_argument("--rounds", type=positive, default=3, help="how often everything is measured")
    parser.add_argument("--kinds", type=names_of(KINDS), default=list(KINDS), metavar="NAMES", help=", ".join(KINDS))
    parser.add_argument("--servers", type=names_of(SERVERS), default=SERVERS, metavar="NAMES", help="commas between")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    servers = [patient(BUILT_IN[name]()) for name in options.servers]
    for kind in (KINDS[name] for name in options.kinds):
        count = options.connections or kind.connections
        taken: dict[str, list[tuple[float, float]]] = {server.name: [] for server in servers}
        for number in range(options.rounds):
            for server in rotated(servers, number):
                with RunningServer(server, kind.case.app, kind.case.path) as running:
                    # A server that does not compress is asked all the same, and then gets a plain message.
                    asked = kind.case if server.deflate or not kind.case.deflate else CASES["text"]
                    taken[server.name].append(measure(running, kind, asked, count))
        lines = [["server", "KiB each, idle", "after use"]]
        for server_name, rounds in taken.items():
            idle, used = (statistics.median(values) / 1024 for values in zip(*rounds, strict=True))
            lines.append([server_name, f"{idle:.1f}", f"{used:.1f}"])
        print(f"{count:,} {kind.title}\n{align(lines)}\n", flush=True)
    return 0


def patient(server: Server) -> Server:
    """`server`, with connections that it keeps for as long as this takes."""
    options = PATIENT.get(server.name, [])
    return replace(server, command=lambda place: [*server.command(place), *options])


def measure(running: RunningServer, kind: Kind, asked: Case, count: int) -> tuple[float, float]:
    """Bytes of each connection, before and after its first use."""
    with contextlib.ExitStack() as first:
        use(connections(running, kind, FIRST, first), kind, asked)
    before = settled(running)
    with contextlib.ExitStack() as stack:
        opened = connections(running, kind, count, stack)
        idle = settled(running)
        use(opened, kind, asked)
        used = settled(running)
        # All of them are still there.
        use(opened, kind, asked)
    return (idle - before) / count, (used - before) / count


def connections(running: RunningServer, kind: Kind, count: int, stack: contextlib.ExitStack) -> list[socket.socket]:
    return [stack.enter_context(kind.open(running.port, kind.case)) for _ in range(count)]


def use(opened: list[socket.socket], kind: Kind, asked: Case) -> None:
    for connection in opened:
        kind.exchange(connection, asked)


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
