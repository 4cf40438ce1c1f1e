"""Behind a proxy: whose `x-forwarded-for` and `x-forwarded-proto` the scope follows. The meaning is uvicorn's."""

from pathlib import Path
from typing import Any

import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.exchange import Headers
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Serve, unlike_uvicorn

pytestmark = unlike_uvicorn("it is asked itself what it would do")

HERE = "127.0.0.1"


async def seen(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
    await answer(send, [scope["client"], scope["scheme"], headers])


async def by_uvicorn(trusted: str, headers: Headers) -> tuple[Any, str]:
    """Client and scheme that uvicorn would give a request from here."""
    scope: dict[str, Any] = {"type": "http", "client": (HERE, 0), "scheme": "http", "headers": headers}

    async def inner(*_: Any) -> None: ...

    await ProxyHeadersMiddleware(inner, trusted)(scope, None, None)  # type: ignore[arg-type]
    return list(scope["client"]), scope["scheme"]


FOR, PROTO = b"x-forwarded-for", b"x-forwarded-proto"

TRUSTED = {
    "default": None,
    "address": "127.0.0.1",
    "list": "192.0.2.9,127.0.0.1,10.0.0.2",
    "network": "127.0.0.0/8,10.0.0.0/8",
    "netmask": "127.0.0.0/255.0.0.0",
    "everybody": "*",
    "literals": "proxy,127.0.0.1,unknown",
    "another address": "192.0.2.9",
    "another network": "10.0.0.0/8",
    "no network": "127.0.0.1/8",
    "a star in a list": "192.0.2.9,*",
    "nobody": "",
}

FORWARDED: dict[str, list[tuple[bytes, bytes]]] = {
    "nothing": [],
    "client": [(FOR, b"192.0.2.1")],
    "scheme": [(PROTO, b"https")],
    "both": [(FOR, b"192.0.2.1"), (PROTO, b"https")],
    "a chain": [(FOR, b"198.51.100.1, 192.0.2.1, 10.0.0.2,127.0.0.1")],
    "several fields": [(FOR, b"198.51.100.1"), (FOR, b"192.0.2.1, 10.0.0.2"), (FOR, b"10.0.0.2")],
    "a proxy here, over ipv6": [(FOR, b"192.0.2.1, ::1")],
    "all trusted": [(FOR, b"127.0.0.1, 127.0.0.1")],
    "port": [(FOR, b"192.0.2.1:4711")],
    "ipv6": [(FOR, b"2001:db8::1")],
    "ipv6 in brackets": [(FOR, b"[2001:db8::1]")],
    "ipv6 with port": [(FOR, b"[2001:db8::1]:4711")],
    "literals": [(FOR, b"192.0.2.1, unknown, proxy")],
    "nonsense": [(FOR, b"no, such; address")],
    "not ascii": [(FOR, b"\xe9t\xe9")],
    "an empty element": [(FOR, b"192.0.2.1, ,")],
    "other scheme": [(PROTO, b"gopher")],
    "two schemes in a field": [(PROTO, b"https, http")],
    "scheme in capitals": [(PROTO, b"HTTPS")],
}


@pytest.mark.parametrize("trusted", TRUSTED)
async def test_client_and_scheme_are_uvicorns(serve: Serve, connect: Connect, trusted: str) -> None:
    setting = TRUSTED[trusted]
    server = serve(seen, forwarded_allow_ips=setting)
    connection = await connect(server)
    for name, headers in FORWARDED.items():
        response = await connection.get("/seen", headers)
        client, scheme, received = response.json()
        expected, expected_scheme = await by_uvicorn("127.0.0.1,::1" if setting is None else setting, headers)
        if expected == [HERE, 0]:
            # Nothing was changed; or it was to just that, by the element which says so.
            assert client in ([HERE, connection.local_port], [HERE, 0]), name
        else:
            assert client == expected, name
        assert scheme == expected_scheme, name
        sent = [[key.decode(), value.decode("latin-1")] for key, value in headers]
        forwarded = [field for field in received if field[0].startswith("x-forwarded-")]
        assert joined(forwarded) == joined(sent), name


def joined(fields: list[list[str]]) -> dict[str, str]:
    """Envoy has one field of each of these names."""
    by_name: dict[str, list[str]] = {}
    for name, value in fields:
        by_name.setdefault(name, []).append(value.replace(", ", ","))
    return {name: ",".join(values) for name, values in by_name.items()}


async def test_untrusted_peer_changes_nothing(serve: Serve, connect: Connect) -> None:
    server = serve(seen, forwarded_allow_ips="192.0.2.9")
    connection = await connect(server)
    headers = [
        (FOR, b"192.0.2.1"),
        (PROTO, b"https"),
        (b"x-forwarded-host", b"other"),
        (b"forwarded", b"for=192.0.2.1"),
    ]
    client, scheme, received = (await connection.get("/seen", headers)).json()
    assert client == [HERE, connection.local_port]
    assert scheme == "http"
    for name, value in headers:
        assert [name.decode(), value.decode()] in received


async def test_environment_has_a_default_as_uvicorns(serve: Serve) -> None:
    server = serve(seen, env={"FORWARDED_ALLOW_IPS": "192.0.2.9"})
    async with await Http1Connection.open(server.port) as connection:
        client, _, _ = (await connection.get("/seen", [(FOR, b"192.0.2.1")])).json()
        assert client == [HERE, connection.local_port]


async def test_file_of_the_applications_variables_has_none(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "variables").write_text("FORWARDED_ALLOW_IPS=192.0.2.9\nWEB_CONCURRENCY=wrong\n")
    server = serve(seen, env_file=tmp_path / "variables")
    async with await Http1Connection.open(server.port) as connection:
        client, _, _ = (await connection.get("/seen", [(FOR, b"192.0.2.1")])).json()
        assert client == ["192.0.2.1", 0]


async def test_proxy_headers_can_be_left_alone(serve: Serve) -> None:
    server = serve(seen, proxy_headers=False, forwarded_allow_ips="*")
    async with await Http1Connection.open(server.port) as connection:
        client, scheme, _ = (await connection.get("/seen", [(FOR, b"192.0.2.1"), (PROTO, b"https")])).json()
        assert client == [HERE, connection.local_port]
        assert scheme == "http"
