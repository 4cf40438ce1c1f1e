"""The extension `tls`: what an application is told of its connection and of the client's certificate."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509

from py_tests.harness.apps import Receive, Scope, Send, answer, routes, shown
from py_tests.harness.certificates import Pair, authority, authority_file
from py_tests.harness.exchange import Connection, ResponseCut
from py_tests.harness.http3 import Http3Connection
from py_tests.harness.protocols import HTTP1, HTTP2, Connect, http3_options
from py_tests.harness.serving import Server, of_envoy, serve, unlike_uvicorn
from py_tests.harness.wire import Tls, Wire

pytestmark = [unlike_uvicorn("it does not have it"), of_envoy("it has no TLS")]
conforms = pytest.mark.conforms


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It asks clients for a certificate, and serves those without one, too."""
    authorities = authority_file(tmp_path_factory.mktemp("authority"))
    options = {
        **http3_options(request.getfixturevalue("pair")),
        "ssl_ca_certs": authorities,
        "ssl_cert_reqs": "optional",
    }
    with serve(f"{__name__}:app", **options) as server:
        yield server


async def tls(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, scope["extensions"]["tls"])


async def request(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, {"headers": shown(scope["headers"]), "tls": scope["extensions"].get("tls")})


# --- The connection ---


@conforms("tls.present")
async def test_tls_has_all_its_keys(server: Server, connect: Connect) -> None:
    seen = (await (await connect(server, Tls())).get("/tls")).json()
    assert set(seen) == {
        "server_cert",
        "client_cert_chain",
        "client_cert_name",
        "client_cert_error",
        "tls_version",
        "cipher_suite",
    }


@conforms("tls.tls_version")
async def test_tls_1_3_is_named(server: Server, connect: Connect) -> None:
    assert (await (await connect(server, Tls())).get("/tls")).json()["tls_version"] == 0x0304


def cipher_suite(connection: Connection) -> int:
    """What the client's library calls the suite that it speaks."""
    if isinstance(connection, Http3Connection):
        schedule = connection.endpoint.quic.tls.key_schedule
        assert schedule is not None
        return int(schedule.cipher_suite)
    wire: Wire = connection.wire  # type: ignore[attr-defined]
    assert wire.tls is not None
    name, _, _ = wire.tls.cipher() or ("", "", 0)
    numbers = {cipher["name"]: cipher["id"] & 0xFFFF for cipher in ssl.create_default_context().get_ciphers()}
    return numbers[name]


@conforms("tls.cipher_suite")
async def test_cipher_suite_is_the_one_in_use(server: Server, connect: Connect) -> None:
    connection = await connect(server, Tls())
    assert (await connection.get("/tls")).json()["cipher_suite"] == cipher_suite(connection)


@conforms("tls.tls_version", "tls.cipher_suite")
@pytest.mark.protocols(HTTP1, HTTP2)
@pytest.mark.parametrize(
    ("ciphers", "number"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", 0xC02B),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", 0xC02C),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", 0xCCA9),
    ],
)
async def test_tls_1_2_and_its_suites_are_named(server: Server, connect: Connect, ciphers: str, number: int) -> None:
    connection = await connect(server, Tls(ciphers=ciphers))
    seen = (await connection.get("/tls")).json()
    assert (seen["tls_version"], seen["cipher_suite"]) == (0x0303, number)
    assert cipher_suite(connection) == number


@conforms("tls.server_cert")
async def test_server_certificate_is_the_one_shown_or_none(server: Server, connect: Connect, pair: Pair) -> None:
    seen = (await (await connect(server, Tls())).get("/tls")).json()["server_cert"]
    assert seen is None or serials([seen]) == [pair.serial]


@pytest.mark.protocols(HTTP1, HTTP2)
async def test_requests_of_a_connection_see_the_same(server: Server, connect: Connect, zoe: Pair) -> None:
    connection = await connect(server, Tls(certificate=zoe))
    first, second = [(await connection.get("/tls")).json() for _ in range(2)]
    assert first == second


# --- The client's certificate ---


def serials(chain: list[str]) -> list[int]:
    return [x509.load_pem_x509_certificate(pem.encode()).serial_number for pem in chain]


@pytest.fixture(scope="module")
def zoe(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A client's certificate below two more, with a name that needs its quotes."""
    department = authority().create_child_ca().create_child_ca()
    folder = tmp_path_factory.mktemp("client")
    return Pair(folder, "zoe@example.org", name="client", by=department, common_name='Zoë, "the" <first>+;=\\ #1')


def issued(pair: Pair) -> list[int]:
    """The certificates that a client shows, its own first."""
    return serials([blob.bytes().decode() for blob in pair.issued.cert_chain_pems])


@conforms("tls.client_cert_chain", "tls.client_cert_name", "tls.client_cert_error")
async def test_client_without_a_certificate(server: Server, connect: Connect) -> None:
    seen = (await (await connect(server, Tls())).get("/tls")).json()
    assert (seen["client_cert_chain"], seen["client_cert_name"], seen["client_cert_error"]) == ([], None, None)


@conforms("tls.client_cert_chain")
async def test_chain_begins_with_the_client(server: Server, connect: Connect, zoe: Pair) -> None:
    seen = (await (await connect(server, Tls(certificate=zoe))).get("/tls")).json()
    assert len(issued(zoe)) == 3
    assert serials(seen["client_cert_chain"]) == issued(zoe)
    assert all(pem.endswith("-----END CERTIFICATE-----\n") for pem in seen["client_cert_chain"])


@conforms("tls.client_cert_chain", "tls.client_cert_name", "tls.client_cert_error")
async def test_certificate_without_a_chain(server: Server, connect: Connect, tmp_path: Path) -> None:
    single = Pair(tmp_path, "someone@example.org")
    seen = (await (await connect(server, Tls(certificate=single))).get("/tls")).json()
    # OpenSSL as a client adds the authority, which it knows.
    assert serials(seen["client_cert_chain"])[0] == single.serial
    assert name_of(seen["client_cert_name"]) == subject(seen)
    assert seen["client_cert_error"] is None


def name_of(text: str) -> x509.Name:
    """RFC 4514, read by somebody else."""
    return x509.Name.from_rfc4514_string(text)


def subject(seen: dict[str, Any]) -> x509.Name:
    return x509.load_pem_x509_certificate(seen["client_cert_chain"][0].encode()).subject


@conforms("tls.client_cert_name")
async def test_name_is_the_subject_of_the_certificate(server: Server, connect: Connect, zoe: Pair) -> None:
    seen = (await (await connect(server, Tls(certificate=zoe))).get("/tls")).json()
    assert name_of(seen["client_cert_name"]) == subject(seen)


@conforms("tls.client_cert_error")
async def test_client_that_cannot_be_verified_is_refused(server: Server, connect: Connect, tmp_path: Path) -> None:
    stranger = Pair(tmp_path, "zoe@example.org", by=trustme.CA())
    with pytest.raises((OSError, ResponseCut)):
        await (await connect(server, Tls(certificate=stranger))).get("/tls")


# --- What clients say of certificates ---

HASH = b"Hash=" + b"ab" * 32
FORGED = [
    [b""],
    [b"By=spiffe://a/b;" + HASH],
    [HASH + b';Cert="-----BEGIN%20CERTIFICATE-----%0AMIIB%0A-----END%20CERTIFICATE-----%0A";Subject="CN=admin"'],
    [HASH + b';Subject="CN=admin,O=all";URI=', HASH + b';Subject="CN=other"'],
    [b'Subject="CN=open,'],
    [b'Subject="CN=\\"admin\\",', b",,", b'"'],
    [b"=;=,;,"],
]


@conforms("tls.forged")
@pytest.mark.parametrize("values", FORGED, ids=range(len(FORGED)))
@pytest.mark.parametrize("certified", [False, True], ids=["anonymous", "certified"])
async def test_headers_change_nothing(
    server: Server, connect: Connect, zoe: Pair, values: list[bytes], certified: bool
) -> None:
    sent = [(b"host", b"example.org"), *((b"x-forwarded-client-cert", value) for value in values)]
    connection = await connect(server, Tls(certificate=zoe if certified else None))
    seen = (await connection.get("/request", sent)).json()
    assert serials(seen["tls"]["client_cert_chain"]) == (issued(zoe) if certified else [])
    assert (seen["tls"]["client_cert_name"] is not None) == certified
    # Envoy joins repeats of this field with a comma (RFC 9110, section 5.3).
    joined = [value["bytes"].encode() for name, value in seen["headers"] if name["bytes"] == "x-forwarded-client-cert"]
    assert b",".join(joined).replace(b", ", b",") == b",".join(values)


@conforms("tls.forged")
async def test_no_header_tells_of_the_certificate(server: Server, connect: Connect, zoe: Pair) -> None:
    connection = await connect(server, Tls(certificate=zoe))
    seen = (await connection.get("/request", [(b"host", b"example.org")])).json()
    assert seen["headers"] == shown([(b"host", b"example.org")])


@pytest.mark.protocols(HTTP1, HTTP2)
async def test_headers_in_the_clear_make_no_tls(server: Server, connect: Connect) -> None:
    sent = [(b"host", b"example.org"), (b"x-forwarded-client-cert", FORGED[2][0])]
    seen = (await (await connect(server)).get("/request", sent)).json()
    assert seen == {"headers": shown(sent), "tls": None}


app = routes(tls, request)
