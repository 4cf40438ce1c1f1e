"""A gigabyte in each direction, between a side that pauses and one that does not: the server holds little of it.

The client is a bare HTTP/1.1 socket. For HTTP/2 and 3 another Envoy stands before the server and speaks them, since
clients in Python would take minutes for the frames; what that one holds does not count.
"""

import asyncio
import contextlib
import json
import socket
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, file_exists, gate, note, routes, start
from py_tests.harness.certificates import Pair, authority_file
from py_tests.harness.deadline import DEADLINE, settled
from py_tests.harness.plain_envoy import PlainEnvoy, free_ports
from py_tests.harness.protocols import http3_options
from py_tests.harness.serving import Server, serve, unlike_uvicorn

pytestmark = [
    unlike_uvicorn("uvicorn has neither HTTP/2 nor HTTP/3"),
    pytest.mark.protocols("http/1.1", "http/2", "http/3"),
]

MEGABYTE = 1024 * 1024
TOTAL = 1024 * MEGABYTE

# What the server may grow by. For HTTP/3 Envoy itself widens the window of a stream to 16 MiB where the client is fast,
# and the allocator keeps some of what has gone through for a while.
GROWTH = {"http/1.1": 24 * MEGABYTE, "http/2": 24 * MEGABYTE, "http/3": 40 * MEGABYTE}

# The slow side stops at its beginning until the other one does not get on, and then for a moment after as many bytes.
STRIDE = 2 * MEGABYTE
PAUSE = 0.005

PIECE = 256 * 1024
CONTENT = bytes(zlib.crc32(b"%d" % number) & 0xFF for number in range(PIECE + 256))


def piece(number: int) -> memoryview:
    """Each piece begins elsewhere in CONTENT, so that none can take the place of the next one."""
    return memoryview(CONTENT)[number % 251 :][:PIECE]


def checksum_of_all() -> int:
    checksum = 0
    for number in range(TOTAL // PIECE):
        checksum = zlib.crc32(piece(number), checksum)
    return checksum


# --- The application ---


async def takes(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads slowly, and answers with what it has read."""
    await file_exists(gate(scope))
    size = checksum = 0
    pause_at = STRIDE
    more = True
    while more:
        message = await receive()
        size += len(message["body"])
        checksum = zlib.crc32(message["body"], checksum)
        more = message["more_body"]
        if size >= pause_at:
            pause_at += STRIDE
            await asyncio.sleep(PAUSE)
    await answer(send, {"size": size, "checksum": checksum})


async def gives(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends as fast as it may; notes when that does not get on."""
    await start(send, headers=[(b"content-length", b"%d" % TOTAL)])
    for number in range(TOTAL // PIECE):
        sending = asyncio.ensure_future(body(send, bytes(piece(number)), more=True))
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        if not done:
            note(scope, "waiting")
        await sending
    await body(send)


app = routes(takes, gives)


# --- The server, and what it holds ---


class Memory:
    """The greatest growth of the server's resident memory within the block."""

    def __init__(self, server: Server) -> None:
        self.processes = server.processes()
        self.before = self.most = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def resident(self) -> int:
        total: int = sum(process.memory_info().rss for process in self.processes)
        return total

    def watch(self) -> None:
        while not self.over.wait(0.005):
            self.most = max(self.most, self.resident())

    @property
    def growth(self) -> int:
        return self.most - self.before

    def __enter__(self) -> "Memory":
        self.before = self.most = self.resident()
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self.thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """On one port without and on one with TLS, where HTTP/3 is, too."""
    with serve(f"{__name__}:app", **http3_options(Pair(tmp_path))) as server:
        yield server


# --- The client ---

PROXY = """
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: %(port)d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: client
          stream_idle_timeout: 0s
          route_config:
            virtual_hosts:
            - name: server
              domains: ["*"]
              routes: [{match: {prefix: /}, route: {cluster: server, timeout: 0s}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: server
    connect_timeout: 10s
    load_assignment:
      cluster_name: server
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {socket_address: {address: 127.0.0.1, port_value: %(server)d, protocol: %(transport)s}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {%(protocol)s: {}}
"""
QUIC = """
    transport_socket:
      name: envoy.transport_sockets.quic
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport
        upstream_tls_context:
          sni: localhost
          common_tls_context: {validation_context: {trusted_ca: {filename: "%(authority)s"}}}
"""


@contextlib.asynccontextmanager
async def port_for(protocol: str, server: Server, folder: Path) -> AsyncIterator[int]:
    """A port that takes HTTP/1.1 and hands it to the server in `protocol`."""
    if protocol == "http/1.1":
        yield server.port
        return
    port, _ = free_ports()
    quic = protocol == "http/3"
    values = {
        "port": port,
        "server": server.ssl_port if quic else server.port,
        "transport": "UDP" if quic else "TCP",
        "protocol": "http3_protocol_options" if quic else "http2_protocol_options",
        "authority": authority_file(folder),
    }
    path = folder / "proxy.yaml"
    path.write_text((PROXY + QUIC if quic else PROXY) % values)
    proxy = PlainEnvoy(path, folder, {}, port, workers=1)
    try:
        await proxy.accepts()
        yield port
    finally:
        proxy.stop()


class Client:
    """One request on a blocking socket, made in a thread."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self.sent = 0
        self.go_on = threading.Event()

    def upload(self, path: str, gate: Path) -> Any:
        """Sends everything as fast as it can; gives the answer."""
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nx-gate: {gate}\r\ncontent-length: {TOTAL}\r\n\r\n"
        self.sock.sendall(head.encode())
        for number in range(TOTAL // PIECE):
            self.sock.sendall(piece(number))
            self.sent += PIECE
        return json.loads(self.after_head() or self.sock.recv(PIECE))

    def download(self, path: str) -> tuple[int, int]:
        """Reads nothing before `go_on`, then slowly; gives size and checksum of the body."""
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        self.go_on.wait(DEADLINE)
        data = self.after_head()
        size = checksum = 0
        pause_at = STRIDE
        while True:
            size += len(data)
            checksum = zlib.crc32(data, checksum)
            if size >= TOTAL:
                return size, checksum
            if size >= pause_at:
                pause_at += STRIDE
                time.sleep(PAUSE)
            data = self.sock.recv(PIECE)
            assert data, f"the end after {size} bytes"

    def after_head(self) -> bytes:
        """Reads the head of a good response; gives what has come of the body with it."""
        received = b""
        while b"\r\n\r\n" not in received:
            data = self.sock.recv(PIECE)
            assert data, received
            received += data
        head, _, rest = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return rest

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()


async def test_gigabyte_to_a_slow_application(protocol: str, server: Server, key: str, tmp_path: Path) -> None:
    async with port_for(protocol, server, tmp_path) as port:
        with Client(port) as client, Memory(server) as memory:
            uploading = asyncio.create_task(asyncio.to_thread(client.upload, f"/takes?{key}", tmp_path / "gate"))
            assert await settled(lambda: client.sent) < TOTAL // 8
            (tmp_path / "gate").touch()
            assert await uploading == {"size": TOTAL, "checksum": checksum_of_all()}
    assert memory.growth < GROWTH[protocol]


async def test_gigabyte_to_a_slow_client(protocol: str, server: Server, key: str, tmp_path: Path) -> None:
    async with port_for(protocol, server, tmp_path) as port:
        with Client(port) as client, Memory(server) as memory:
            downloading = asyncio.create_task(asyncio.to_thread(client.download, f"/gives?{key}"))
            await server.noted(key, "waiting")
            client.go_on.set()
            assert await downloading == (TOTAL, checksum_of_all())
    assert memory.growth < GROWTH[protocol]
