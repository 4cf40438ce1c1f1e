"""What `aiovoy upstream` takes from the proxy in front: the client's certificate."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from py_tests.harness import serving
from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.certificates import Pair
from py_tests.harness.protocols import HTTP1, HTTP2, Connect
from py_tests.harness.serving import OWN, Server, unlike_uvicorn

pytestmark = [unlike_uvicorn("this is about aiovoy"), pytest.mark.protocols(HTTP1, HTTP2)]

FIELD = b"x-forwarded-client-cert"
HTTPS = (b"x-forwarded-proto", b"https")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    fields = [value.decode() for name, value in scope["headers"] if name == FIELD]
    await answer(send, {"tls": scope["extensions"].get("tls"), "fields": fields})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving.serve(app, front=OWN, lifespan="off") as server:
        yield server


def element(pair: Pair, subject: str) -> str:
    """As Envoy writes it (`set_current_client_cert_details` with `cert`, `chain` and `subject`)."""
    leaf, chain = (quote(pem.decode(), safe="") for pem in (pair.issued.cert_chain_pems[0].bytes(), pair.chain))
    return f'By=spiffe://a/b;Hash=00ff;Cert="{leaf}";Chain="{chain}";Subject="{subject}";URI=spiffe://a/c'


async def test_certificate_of_a_trusted_proxy(server: Server, connect: Connect, pair: Pair) -> None:
    value = element(pair, r"CN=\"c\",O=d")
    told = (await (await connect(server)).get("/", headers=[HTTPS, (FIELD, value.encode())])).json()
    assert told["tls"] == {
        "server_cert": None,
        "client_cert_chain": [blob.bytes().decode() for blob in pair.issued.cert_chain_pems],
        "client_cert_name": 'CN="c",O=d',
        "client_cert_error": None,
        "tls_version": None,
        "cipher_suite": None,
    }
    assert told["fields"] == [value]


async def test_word_of_the_nearest_proxy_counts(server: Server, connect: Connect, pair: Pair) -> None:
    values = [(FIELD, f'Subject="CN=forged",{element(pair, "CN=peer")}'.encode())]
    told = (await (await connect(server)).get("/", headers=[HTTPS, *values])).json()
    assert told["tls"]["client_cert_name"] == "CN=peer"


@pytest.mark.parametrize("headers", [[], [(b"x-forwarded-proto", b"http")]], ids=["no scheme", "http"])
async def test_connection_in_the_clear_has_none(
    server: Server, connect: Connect, pair: Pair, headers: list[tuple[bytes, bytes]]
) -> None:
    told = (await (await connect(server)).get("/", headers=[*headers, (FIELD, element(pair, "CN=a").encode())])).json()
    assert told["tls"] is None


async def test_nobody_else_is_believed(connect: Connect, pair: Pair) -> None:
    with serving.serve(app, front=OWN, lifespan="off", forwarded_allow_ips="203.0.113.1") as server:
        headers = [HTTPS, (FIELD, element(pair, "CN=a").encode())]
        told = (await (await connect(server)).get("/", headers=headers)).json()
    assert told["tls"] is None
