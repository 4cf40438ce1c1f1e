"""TLS: certificates, names, client certificates, and the ports and protocols that it is spoken on."""

import functools
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from aiovoy import Config, ConfigError
from py_tests.harness import serving
from py_tests.harness.apps import Receive, Scope, Send, answer, routes
from py_tests.harness.certificates import Pair, authority, authority_file
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http3 import Http3Connection
from py_tests.harness.plain_envoy import printed
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Serve, Server, of_envoy, unlike_uvicorn
from py_tests.harness.tls_clients import CLIENTS, serial
from py_tests.harness.wire import Tls

pytestmark = [unlike_uvicorn("this is about aiovoy"), of_envoy("it has no TLS")]

over_tls = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)

Refused = (ConnectionError, OSError, ResponseCut)


async def seen(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    await answer(send, {"scheme": scope["scheme"], "server": scope["server"], "headers": headers})


app = routes(seen)

APP = f"{__name__}:app"

# --- Ports and protocols ---


@over_tls
async def test_port_speaks_tls(serve: Serve, connect: Connect, pair: Pair) -> None:
    server = serve(APP, **pair.options, http3=True, ssl_port=None)
    assert server.port == server.ssl_port
    connection = await connect(server, Tls())
    answered = (await connection.get("/seen")).json()
    assert (answered["scheme"], answered["server"]) == ("https", ["127.0.0.1", server.port])
    assert serial(connection) == pair.serial
    assert f"running on https://127.0.0.1:{server.port} (" in server.log


async def test_plain_port_beside_the_tls_port(serve: Serve, connect: Connect, pair: Pair) -> None:
    server = serve(APP, **pair.options, ssl_port=0)
    assert f"running on http://127.0.0.1:{server.port} and https://127.0.0.1:{server.ssl_port} (" in server.log
    plain, tls = await connect(server), await connect(server, Tls())
    assert (await plain.get("/seen")).json()["scheme"] == "http"
    assert (await tls.get("/seen")).json()["scheme"] == "https"


async def test_clear_text_on_the_tls_port_is_cut(serve: Serve, pair: Pair) -> None:
    server = serve(APP, **pair.options)
    connection = await Http1Connection.open(server.port)
    with pytest.raises(ResponseCut):
        await connection.get("/seen")
    await connection.close()


@over_tls
async def test_http3_is_told_of_by_the_others(serve: Serve, connect: Connect, pair: Pair) -> None:
    server = serve(APP, **pair.options, ssl_port=0, http3=True)
    connection = await connect(server, Tls())
    told = (await connection.get("/seen")).header(b"alt-svc")
    expected = f'h3=":{server.ssl_port}"; ma=86400'.encode()
    assert told == (None if connection.protocol == HTTP3 else expected)


async def test_early_data_is_not_taken(serve: Serve, pair: Pair) -> None:
    """A client may send it only if its ticket says so."""
    server = serve(APP, **pair.options, http3=True, ssl_port=None)
    async with await Http3Connection.open(server.ssl_port, Tls()) as connection:
        await eventually(lambda: connection.tickets)
    assert not any(ticket.max_early_data_size for ticket in connection.tickets)


async def test_clear_text_does_not_tell_of_http3(serve: Serve, pair: Pair) -> None:
    server = serve(APP, **pair.options, ssl_port=0, http3=True)
    assert (await server.get("/seen")).header(b"alt-svc") is None


def test_port_for_http3_is_ours_alone(serve: Serve, pair: Pair) -> None:
    server = serve(APP, **pair.options, http3=True)
    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM]:
        with socket.socket(type=kind) as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", server.ssl_port))


async def test_printed_configuration_runs_under_plain_envoy(pair: Pair, tmp_path: Path) -> None:
    options: dict[str, Any] = {"http3": True, **pair.options}
    with printed(tmp_path, APP, **options) as server:
        await server.accepts()
        for client in CLIENTS:
            async with await client.open(server.port, Tls()) as connection:
                assert (await connection.get("/seen")).status == 200


# --- Certificates ---


@over_tls
async def test_clients_choose_the_certificate_by_name(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    pairs = [Pair(tmp_path, name, name=name) for name in ("localhost", "shop.test", "*.shop.test")]
    certfiles, keyfiles = [pair.certfile for pair in pairs], [pair.keyfile for pair in pairs]
    server = serve(APP, ssl_certfile=certfiles, ssl_keyfile=keyfiles, ssl_port=0, http3=True)
    for name, pair in [("localhost", 0), ("shop.test", 1), ("api.shop.test", 2)]:
        async with await connect(server, Tls(name)) as connection:
            assert serial(connection) == pairs[pair].serial


def test_client_without_a_name_gets_the_first_certificate(serve: Serve, tmp_path: Path) -> None:
    first, second = Pair(tmp_path, "127.0.0.1", name="first"), Pair(tmp_path, "localhost", name="second")
    server = serve(APP, ssl_certfile=[first.certfile, second.certfile], ssl_keyfile=[first.keyfile, second.keyfile])
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-noservername"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    certificate = done.stdout[done.stdout.index(b"-----BEGIN") :]
    assert x509.load_pem_x509_certificate(certificate).serial_number == first.serial


def in_one_file(pair: Pair, folder: Path) -> dict[str, Any]:
    path = folder / "both.pem"
    path.write_bytes(pair.key + pair.chain)
    return {"ssl_certfile": path}


def encrypted(pair: Pair, folder: Path) -> dict[str, Any]:
    key = serialization.load_pem_private_key(pair.key, None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    path = folder / "encrypted.key"
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return {"ssl_certfile": pair.certfile, "ssl_keyfile": path, "ssl_keyfile_password": "secret"}


@pytest.mark.protocols(HTTP1, HTTP3)
@pytest.mark.parametrize("form", [in_one_file, encrypted])
async def test_forms_of_keys(
    serve: Serve, connect: Connect, tmp_path: Path, form: Callable[[Pair, Path], dict[str, Any]]
) -> None:
    pair = Pair(tmp_path)
    server = serve(APP, ssl_port=0, http3=True, **{"ssl_keyfile": None, **form(pair, tmp_path)})
    connection = await connect(server, Tls())
    assert (await connection.get("/seen")).status == 200
    assert serial(connection) == pair.serial


def issued(folder: Path, key: Any) -> dict[str, Any]:
    """Options for a certificate of the authority that has this key."""
    by = serialization.load_pem_private_key(authority().private_key_pem.bytes(), None)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    signer = x509.load_pem_x509_certificate(authority().cert_pem.bytes())
    made = (
        x509.CertificateBuilder(signer.subject, x509.Name([]), key.public_key(), x509.random_serial_number())
        .not_valid_before(signer.not_valid_before_utc)
        .not_valid_after(signer.not_valid_after_utc)
        .add_extension(names, critical=True)
        .sign(by, hashes.SHA256())  # type: ignore[arg-type]
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, *form) + made.public_bytes(serialization.Encoding.PEM)
    (folder / "issued.pem").write_bytes(pem)
    return {"ssl_certfile": folder / "issued.pem"}


TAKEN: dict[str, Callable[[], Any]] = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", TAKEN)
async def test_kinds_of_keys(serve: Serve, connect: Connect, tmp_path: Path, kind: str) -> None:
    server = serve(APP, ssl_port=0, **issued(tmp_path, TAKEN[kind]()))
    assert (await (await connect(server, Tls())).get("/seen")).status == 200


REFUSED: dict[str, Callable[[], Any]] = {
    "RSA of 1024 bits": lambda: rsa.generate_private_key(65537, 1024),
    "RSA of 2047 bits": lambda: rsa.generate_private_key(65537, 2047),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "Ed448": ed448.Ed448PrivateKey.generate,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_key_that_envoy_does_not_take_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match=r"the kind of key that `ssl_certfile` `.*issued\.pem` has, only RSA of 2048"):
        Config("main:app", **issued(tmp_path, REFUSED[kind]()))


def test_key_that_http3_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the kind of key .* and without `http3` Ed25519"):
        Config("main:app", http3=True, **issued(tmp_path, TAKEN["Ed25519"]()))


def no_certificate(folder: Path) -> dict[str, Any]:
    return {"ssl_certfile": folder / "nothing.pem"}


def wrong_certificate(folder: Path) -> dict[str, Any]:
    pair = Pair(folder)
    return {"ssl_certfile": pair.keyfile, "ssl_keyfile": pair.keyfile}


def no_key(folder: Path) -> dict[str, Any]:
    return {"ssl_certfile": Pair(folder).certfile}


def mismatch(folder: Path) -> dict[str, Any]:
    return {"ssl_certfile": Pair(folder).certfile, "ssl_keyfile": Pair(folder, name="other").keyfile}


def garbage(folder: Path) -> dict[str, Any]:
    pair = Pair(folder)
    pair.certfile.write_bytes(pair.chain.replace(b"M", b"!"))
    return pair.options


def with_text(folder: Path) -> dict[str, Any]:
    pair = Pair(folder)
    pair.certfile.write_bytes(b"# -----BEGIN CERTIFICATE----- is what comes\r\n" + pair.chain.replace(b"\n", b"\r\n"))
    return pair.options


async def test_text_before_a_certificate(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    server = serve(APP, ssl_port=0, **with_text(tmp_path))
    assert (await (await connect(server, Tls())).get("/seen")).status == 200


def marked_chain(folder: Path) -> dict[str, Any]:
    """With a byte-order mark."""
    pair = Pair(folder)
    pair.certfile.write_bytes(b"\xef\xbb\xbf" + pair.chain)
    return pair.options


def marked_key(folder: Path) -> dict[str, Any]:
    pair = Pair(folder)
    pair.keyfile.write_bytes(b"\xef\xbb\xbf" + pair.key)
    return pair.options


def cut_chain(folder: Path) -> dict[str, Any]:
    pair = Pair(folder)
    pair.certfile.write_bytes(pair.chain + pair.chain[:200])
    return pair.options


def cut_key(folder: Path) -> dict[str, Any]:
    pair = Pair(folder)
    pair.keyfile.write_bytes(pair.key[:200])
    return pair.options


def wrong_password(folder: Path) -> dict[str, Any]:
    return {**encrypted(Pair(folder), folder), "ssl_keyfile_password": "guess"}


def no_password(folder: Path) -> dict[str, Any]:
    return {**encrypted(Pair(folder), folder), "ssl_keyfile_password": None}


def too_few_keys(folder: Path) -> dict[str, Any]:
    pair = Pair(folder)
    return {"ssl_certfile": [pair.certfile, pair.certfile], "ssl_keyfile": [pair.keyfile]}


def no_authorities(folder: Path) -> dict[str, Any]:
    return {**Pair(folder).options, "ssl_cert_reqs": "optional"}


def wrong_authorities(folder: Path) -> dict[str, Any]:
    pair = Pair(folder)
    return {**pair.options, "ssl_cert_reqs": 2, "ssl_ca_certs": pair.keyfile}


def wrong_authorities_of_nobody(folder: Path) -> dict[str, Any]:
    return {**wrong_authorities(folder), "ssl_cert_reqs": "none"}


def cut_authorities(folder: Path) -> dict[str, Any]:
    (folder / "authority.pem").write_bytes(Pair(folder).chain[:200])
    return {**Pair(folder).options, "ssl_cert_reqs": 2, "ssl_ca_certs": folder / "authority.pem"}


def unknown_requirement(folder: Path) -> dict[str, Any]:
    return {**Pair(folder).options, "ssl_cert_reqs": 3}


WRONG: dict[Callable[[Path], dict[str, Any]], str] = {
    no_certificate: r"cannot read `ssl_certfile` `.*nothing\.pem`: No such file",
    wrong_certificate: r"expected a certificate in PEM in `ssl_certfile`, got `.*server\.key`",
    no_key: r"found no private key in `.*server\.pem`",
    mismatch: r"`ssl_certfile` `.*server\.pem` with `ssl_keyfile` `.*other\.key`: the key belongs to another",
    garbage: r"a certificate in `ssl_certfile` `.*server\.pem` is damaged, or a part of it is missing",
    marked_chain: r"expected a certificate in PEM in `ssl_certfile`, got `.*server\.pem`",
    marked_key: r"expected a private key in PEM in `ssl_keyfile`, got `.*server\.key`",
    cut_chain: r"a certificate in `ssl_certfile` `.*server\.pem` is damaged, or a part of it is missing",
    cut_key: r"with `ssl_keyfile` `.*server\.key`: the key is damaged, or a part of it is missing",
    wrong_password: r"`.*encrypted\.key`: `ssl_keyfile_password` is wrong",
    no_password: r"expected `ssl_keyfile_password` for the encrypted key in `.*encrypted\.key`",
    too_few_keys: r"expected an `ssl_keyfile` for each `ssl_certfile`, got 1",
    no_authorities: r"`ssl_cert_reqs` of `optional` needs `ssl_ca_certs`",
    wrong_authorities: r"expected a certificate in PEM in `ssl_ca_certs`, got `.*server\.key`",
    wrong_authorities_of_nobody: r"expected a certificate in PEM in `ssl_ca_certs`, got `.*server\.key`",
    cut_authorities: r"a certificate in `ssl_ca_certs` `.*authority\.pem` is damaged, or a part of it is missing",
    unknown_requirement: r"expected `ssl_cert_reqs` to be one of none, optional, required, got `3`",
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_wrong_files_are_named(make: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=WRONG[make]):
        Config("main:app", **make(tmp_path))


@pytest.mark.parametrize("setting", [{"ssl_port": 0}, {"http3": True}, {"ssl_ca_certs": __file__}])
def test_tls_needs_a_certificate(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ConfigError, match=f"`{name}` needs `ssl_certfile`"):
        Config("main:app", **setting)


# --- Client certificates ---


@pytest.fixture(scope="module")
def asking(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """A server that asks for client certificates: `asking("optional")`."""
    ca_certs = authority_file(tmp_path_factory.mktemp("authority"))
    options = {**pair.options, "ssl_port": 0, "http3": True, "ssl_ca_certs": ca_certs}
    with ExitStack() as servers:
        yield functools.cache(lambda wanted: servers.enter_context(serving.serve(APP, **options, ssl_cert_reqs=wanted)))


@over_tls
@pytest.mark.parametrize("wanted", ["optional", "required", "2"])
async def test_client_with_a_certificate(
    asking: Callable[[str], Server], connect: Connect, tmp_path: Path, wanted: str
) -> None:
    connection = await connect(asking(wanted), Tls(certificate=Pair(tmp_path, "me@shop.test", name="client")))
    assert (await connection.get("/seen")).status == 200


@over_tls
@pytest.mark.parametrize("wanted", ["none", "optional"])
async def test_client_that_need_not_have_a_certificate(
    asking: Callable[[str], Server], connect: Connect, wanted: str
) -> None:
    """What it says of certificates is a header like others."""
    connection = await connect(asking(wanted), Tls())
    name, value = "x-forwarded-client-cert", 'Hash="a'
    headers = (await connection.get("/seen", headers=[(name.encode(), value.encode())])).json()["headers"]
    assert [name, value] in headers


@over_tls
async def test_client_that_must_have_a_certificate(asking: Callable[[str], Server], connect: Connect) -> None:
    server = asking("required")
    with pytest.raises(Refused):
        await (await connect(server, Tls())).get("/seen")


@over_tls
@pytest.mark.parametrize("wanted", ["optional", "required"])
async def test_client_with_a_certificate_of_another_authority(
    asking: Callable[[str], Server], connect: Connect, tmp_path: Path, wanted: str
) -> None:
    server = asking(wanted)
    stranger = Pair(tmp_path, "me@shop.test", name="client", by=trustme.CA())
    with pytest.raises(Refused):
        await (await connect(server, Tls(certificate=stranger))).get("/seen")
