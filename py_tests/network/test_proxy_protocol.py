"""`--proxy-protocol`: the client's address comes in a header before everything else, in two versions."""

import asyncio
import contextlib
import ipaddress
import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from py_tests.harness import serving
from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.certificates import Pair, client_context
from py_tests.harness.deadline import DEADLINE
from py_tests.harness.serving import Serve, Server, of_envoy, unlike_uvicorn

pytestmark = [unlike_uvicorn("it does not speak it"), of_envoy("it does not speak it")]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    seen = json.dumps([scope["client"], scope["server"], scope["scheme"]]).encode()
    await answer(send, seen, headers=[(b"content-length", b"%d" % len(seen))])


@pytest.fixture(scope="module")
def server(pair: Pair) -> Iterator[Server]:
    with serving.serve(app, proxy_protocol=True, ssl_port=0, lifespan="off", **pair.options) as server:
        yield server


def version_1(client: str, server: str, client_port: int = 1111, server_port: int = 2222) -> bytes:
    family = f"TCP{ipaddress.ip_address(client).version}"
    return f"PROXY {family} {client} {server} {client_port} {server_port}\r\n".encode()


def version_2(client: str, server: str, client_port: int = 1111, server_port: int = 2222) -> bytes:
    addresses = [ipaddress.ip_address(one) for one in (client, server)]
    family = b"\x11" if addresses[0].version == 4 else b"\x21"
    block = b"".join(one.packed for one in addresses)
    block += client_port.to_bytes(2, "big") + server_port.to_bytes(2, "big")
    return SIGNATURE + b"\x21" + family + len(block).to_bytes(2, "big") + block


async def ask(port: int, header: bytes, *, tls: ssl.SSLContext | None = None, fields: str = "") -> bytes:
    """All that comes back for one request after `header`; nothing if the connection is cut."""
    request = f"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n".encode()
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(header)
            if tls is not None:
                await writer.start_tls(tls, server_hostname="localhost")
            writer.write(request)
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


def seen(answered: bytes) -> Any:
    head, _, body = answered.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answered
    return json.loads(body)


@pytest.mark.parametrize("version", [version_1, version_2])
@pytest.mark.parametrize(("client", "to"), [("203.0.113.7", "198.51.100.1"), ("2001:db8::7", "2001:db8::1")])
async def test_addresses_are_those_of_the_header(
    server: Server, version: Callable[[str, str], bytes], client: str, to: str
) -> None:
    assert seen(await ask(server.port, version(client, to))) == [[client, 1111], [to, 2222], "http"]


async def test_under_tls_the_header_comes_before_the_handshake(server: Server) -> None:
    header = version_2("203.0.113.7", "198.51.100.1")
    answered = await ask(server.ssl_port, header, tls=client_context("http/1.1"))
    assert seen(answered) == [["203.0.113.7", 1111], ["198.51.100.1", 2222], "https"]


LOCAL = [b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\x00\x00\x00"]


@pytest.mark.parametrize("header", LOCAL, ids=["version 1", "version 2"])
async def test_proxy_that_speaks_for_itself(server: Server, header: bytes) -> None:
    client, address, _ = seen(await ask(server.port, header))
    assert (client[0], address) == ("127.0.0.1", ["127.0.0.1", server.port])


async def test_peer_is_trusted_by_the_address_of_the_header(server: Server) -> None:
    """The proxy that is to be believed about `x-forwarded-for` is the one in the header."""
    field = "x-forwarded-for: 192.0.2.9\r\n"
    stranger = seen(await ask(server.port, version_1("203.0.113.7", "198.51.100.1"), fields=field))
    assert stranger == [["203.0.113.7", 1111], ["198.51.100.1", 2222], "http"]
    trusted = seen(await ask(server.port, version_1("127.0.0.1", "198.51.100.1"), fields=field))
    assert trusted == [["192.0.2.9", 0], ["198.51.100.1", 2222], "http"]


WRONG = {
    "none": b"",
    "not the word": b"PROXI TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "no address": b"PROXY TCP4 localhost 5.6.7.8 1 2\r\n",
    "two families": b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
    "port too high": b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
    "too long": b"PROXY TCP4 " + b"1" * 200 + b" 5.6.7.8 1 2\r\n",
    "version 3": SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
    "block too short": SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
}


@pytest.mark.parametrize("name", WRONG)
async def test_connection_without_a_good_header_is_cut(server: Server, name: str) -> None:
    assert await ask(server.port, WRONG[name]) == b""


async def test_header_must_come_in_time(serve: Serve) -> None:
    server = serve(app, proxy_protocol=True, timeout_request_headers=1, lifespan="off")
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"PROXY TCP4 1.2.")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
