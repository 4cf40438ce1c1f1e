"""`--access-log`: a line for each request, on standard output, and only if it is asked for."""

import json
import re
import uuid
from collections.abc import Iterator

import pytest

from py_tests.harness import serving
from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.certificates import Pair
from py_tests.harness.deadline import eventually
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, http3_options
from py_tests.harness.serving import Serve, Server, of_envoy, unlike_uvicorn

every = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"not here", status=404)


async def request_id(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, [value.decode() for name, value in scope["headers"] if name == b"x-request-id"])


async def line(server: Server) -> str:
    """The only line of the log, once it is written."""
    await eventually(lambda: server.output.endswith("\n"))
    (line,) = server.output.splitlines()
    return line


async def test_access_log_has_a_line_for_each_request(serve: Serve, connect: Connect) -> None:
    server = serve(app, access_log=True, lifespan="off")
    connection = await connect(server)
    for number in range(3):
        await connection.get(f"/some/path/{number}?query")

    def lines() -> list[str]:
        return [line for line in server.output.splitlines() if "/some/path/" in line]

    await eventually(lambda: len(lines()) == 3)
    for number, line in enumerate(lines()):
        assert "GET" in line
        assert f"/some/path/{number}?query" in line
        assert "404" in line
        assert "127.0.0.1" in line


@unlike_uvicorn("it logs each request by default")
@pytest.mark.parametrize("options", [{}, {"access_log": False}])
async def test_requests_are_not_logged_by_default(serve: Serve, options: dict[str, bool]) -> None:
    server = serve(app, lifespan="off", **options)
    log = server.log
    assert (await server.get("/some/path")).status == 404
    await server.get("/some/path")
    assert server.log == log
    assert server.output == ""


HEADERS = [(b"referer", b"http://a/"), (b"user-agent", b"test/1")]

COMMON = r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /path\?query HTTP/([\d.]+)" 404 8'


@every
@unlike_uvicorn("its log has another form")
@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({}, COMMON),
        ({"access_log_format": "combined"}, COMMON + ' "http://a/" "test/1"'),
        pytest.param(
            {"access_log_format": '%RESPONSE_CODE% "%REQ(USER-AGENT)%" %PROTOCOL%'},
            r'404 "test/1" HTTP/([\d.]+)',
            marks=of_envoy("there are no formats of one's own"),
        ),
    ],
    ids=["common", "combined", "format of one's own"],
)
async def test_forms(serve: Serve, connect: Connect, options: dict[str, str], form: str) -> None:
    server = serve(app, access_log=True, lifespan="off", **options)
    connection = await connect(server)
    await connection.get("/path?query", headers=HEADERS)
    found = re.fullmatch(form, await line(server))
    assert found is not None, server.output
    assert found[1].removesuffix(".0") == connection.protocol.removeprefix("http/")


@every
@unlike_uvicorn("its log has another form")
async def test_json(serve: Serve, connect: Connect) -> None:
    server = serve(app, access_log=True, access_log_format="json", lifespan="off")
    connection = await connect(server)
    await connection.get('/"quoted"', headers=HEADERS)
    entry = json.loads(await line(server))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", entry.pop("time"))
    assert isinstance(entry.pop("milliseconds"), int)
    assert entry == {
        "client": "127.0.0.1",
        "method": "GET",
        "path": '/"quoted"',
        "protocol": {HTTP1: "HTTP/1.1", HTTP2: "HTTP/2", HTTP3: "HTTP/3"}[connection.protocol],
        "status": 404,
        "bytes": 8,
        "request_id": None,
        "referer": "http://a/",
        "user_agent": "test/1",
    }


@unlike_uvicorn("its log has another form")
async def test_client_is_the_one_of_the_scope(serve: Serve) -> None:
    server = serve(app, access_log=True, lifespan="off")
    async with await Http1Connection.open(server.port) as connection:
        await connection.get("/", headers=[(b"x-forwarded-for", b"203.0.113.7")])
    assert (await line(server)).startswith("203.0.113.7 - - [")


@unlike_uvicorn("its log has another form")
async def test_request_that_is_refused_early_is_logged(serve: Serve) -> None:
    server = serve(app, access_log=True, lifespan="off")
    async with await Http1Connection.open(server.port) as connection:
        await connection.get("/", headers=[(b"x-long", b"x" * 200_000), (b"x-forwarded-for", b"203.0.113.7")])
    assert re.fullmatch(r"127\.0\.0\.1 - - .* 431 \d+", await line(server))


# --- What clients send ---


COMBINED = re.compile(r'127\.0\.0\.1 - - \[[^]]*\] "([^"]*)" (\d+) \d+ "([^"]*)" "([^"]*)"')


@pytest.fixture(scope="module", name="combined")
def combined_fixture(pair: Pair) -> Iterator[Server]:
    options = {"access_log": True, "access_log_format": "combined", "lifespan": "off"}
    with serving.serve(f"{__name__}:app", **http3_options(pair), **options) as server:
        yield server


async def logged(server: Server, mark: str) -> re.Match[str]:
    """The line with `mark`, the only one since."""
    await eventually(lambda: mark in server.output)
    (line,) = [line for line in server.output.splitlines() if mark in line]
    assert line.isascii()
    found = COMBINED.fullmatch(line)
    assert found, line
    return found


FORGED = b'" 200 1\\'


@every
@unlike_uvicorn("its log has another form")
async def test_quotes_and_backslashes_are_escaped(combined: Server, connect: Connect, key: str) -> None:
    connection = await connect(combined)
    headers = [(b"referer", b"http://a/" + FORGED), (b"user-agent", FORGED)]
    await connection.get(f'/"{key}\\', headers=headers)
    request, status, referer, agent = (await logged(combined, key)).groups()
    version = {HTTP1: "HTTP/1.1", HTTP2: "HTTP/2", HTTP3: "HTTP/3"}[connection.protocol]
    assert request == rf"GET /\x22{key}\x5C {version}"
    assert status == "404"
    # Envoy drops one that is no URL.
    assert referer in (r"http://a/\x22 200 1\x5C", "-")
    assert agent == r"\x22 200 1\x5C"


# HTTP/3 refuses them.
@pytest.mark.protocols(HTTP1, HTTP2)
@unlike_uvicorn("its log has another form")
async def test_bytes_beyond_ascii_are_escaped(combined: Server, connect: Connect, key: str) -> None:
    connection = await connect(combined)
    await connection.get(f"/{key}", headers=[(b"user-agent", bytes(range(0x80, 0x100)) + b"\t" + b"z")])
    agent = (await logged(combined, key))[4]
    assert agent == "".join(rf"\x{byte:02X}" for byte in range(0x80, 0x100)) + r"\x09z"


@unlike_uvicorn("its log has another form")
@of_envoy("such a head is not read to its end, or, of an upgrade, served")
@pytest.mark.parametrize(
    ("request_", "logged_", "status"),
    [
        (b'GET /"%s HTTP/1.1\r\nuser-agent: "u\r\n\r\n', r"GET /\x22%s HTTP/1.1", "400"),
        (b'OPTIONS /%s HTTP/1.1\r\nhost: a\r\nhost: b\r\nuser-agent: "u\r\n\r\n', "OPTIONS /%s HTTP/1.1", "400"),
        (
            b'GET /"%s HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: wx\r\nuser-agent: "u\r\n\r\n',
            r"GET /\x22%s HTTP/1.1",
            "403",
        ),
    ],
    ids=["without host", "two hosts", "upgrade"],
)
async def test_requests_that_are_refused_are_escaped(
    combined: Server, key: str, request_: bytes, logged_: str, status: str
) -> None:
    """Whoever refuses them: the bridge, or Envoy before it."""
    async with await Http1Connection.open(combined.port) as connection:
        await connection.write(request_ % key.encode())
        await connection.until(b"\r\n")
    found = await logged(combined, key)
    assert found.groups() == (logged_ % key, status, "-", r"\x22u")


@unlike_uvicorn("its log has another form")
@pytest.mark.parametrize(
    "request_",
    [
        b'GE"T /%s HTTP/1.1\r\nhost: a\r\n\r\n',
        b"GET /\x80%s HTTP/1.1\r\nhost: a\r\n\r\n",
        b'GET /%s HTTP/1.1\r\nhost: a\r\nuser-agent: "\n127.0.0.1 - - "\r\n\r\n',
        b'GET /%s HTTP/1.1\r\nhost: a\r\nuser-agent: "\r127.0.0.1 - - "\x01\r\n\r\n',
        b'GET /"%s HTTP/1.1\r\nhost: a\r\nuser-agent: "u\r\n' + b"x: 1\r\n" * 2000 + b"\r\n",
    ],
    ids=["method", "target", "line feed", "control byte", "too many fields"],
)
async def test_nothing_is_shown_of_a_head_that_was_not_read(serve: Serve, request_: bytes) -> None:
    server = serve(app, access_log=True, access_log_format="combined", lifespan="off")
    async with await Http1Connection.open(server.port) as connection:
        await connection.write(request_.replace(b"%s", b"a"))
        await connection.until(b"\r\n")
    found = COMBINED.fullmatch(await line(server))
    assert found, server.output
    assert found.groups() == ("-", found[2], "-", "-")
    assert found[2] in ("400", "431")


# --- Request ids ---


@every
@unlike_uvicorn("it has no such option")
async def test_request_id(serve: Serve, connect: Connect) -> None:
    """One is made where there is none; the client's own stays as it is."""
    server = serve(request_id, request_id=True, access_log=True, access_log_format="json", lifespan="off")
    connection = await connect(server)
    (made,) = (await connection.get("/")).json()
    assert uuid.UUID(made).version == 4
    ids = [made]
    for given in ["mine", str(uuid.uuid4())]:
        response = await connection.get("/", headers=[(b"x-request-id", given.encode())])
        assert response.json() == [given]
        assert response.header(b"x-request-id") is None
        ids.append(given)
    await eventually(lambda: [json.loads(line)["request_id"] for line in server.output.splitlines()] == ids)


@unlike_uvicorn("it has no such option")
async def test_no_request_id_unless_asked_for(serve: Serve) -> None:
    assert (await serve(request_id, lifespan="off").get("/")).json() == []
