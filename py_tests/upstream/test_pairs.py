"""Hostile requests to nginx and to Envoy with `aiovoy upstream` behind them: nothing is smuggled past the proxy."""

from collections import Counter
from pathlib import Path

import pytest

from py_tests.harness.hostile import KEPT, Row
from py_tests.harness.in_front import NGINX
from py_tests.harness.pairs import Request2, hold, is_forwarded
from py_tests.harness.serving import unlike_uvicorn
from py_tests.hostile.test_hostile_requests import CHUNKED, GET, HOST, NEXT, POST, TABLE, raw

pytestmark = unlike_uvicorn("this is about aiovoy")

KINDS = [
    # `make check` has it installed.
    pytest.param("nginx", marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed")),
    "envoy-http1",
    "envoy-http2",
]

# --- What could mean one thing to the proxy and another to the server ---

LENGTH = f"content-length: {len(raw(NEXT))}|"
"""Of a body that looks like a request."""
OF_BOTH = f"content-length: {len(raw(f'0||{NEXT}'))}|"
"""The same behind what ends a body of chunks."""
SIZE = f"{len(raw(NEXT)):x}"

FRAMING = {
    "chunked": f"{POST}{OF_BOTH}transfer-encoding: chunked||0||{NEXT}",
    "chunked first": f"{POST}transfer-encoding: chunked|{OF_BOTH}|0||{NEXT}",
    "vertical tab": f"{POST}{OF_BOTH}transfer-encoding: \x0bchunked||0||{NEXT}",
    "form feed": f"{POST}{OF_BOTH}transfer-encoding: \x0cchunked||0||{NEXT}",
    "tab": f"{POST}{OF_BOTH}transfer-encoding:\tchunked||0||{NEXT}",
    "nul": f"{POST}{OF_BOTH}transfer-encoding: chunked\0||0||{NEXT}",
    "carriage return before": f"{POST}{OF_BOTH}transfer-encoding: \rchunked||0||{NEXT}",
    "carriage return behind": f"{POST}{OF_BOTH}transfer-encoding: chunked\r||0||{NEXT}",
    "space before the colon": f"{POST}{OF_BOTH}transfer-encoding : chunked||0||{NEXT}",
    "tab before the colon": f"{POST}{OF_BOTH}transfer-encoding\t: chunked||0||{NEXT}",
    "space before the name": f"{POST}{OF_BOTH} transfer-encoding: chunked||0||{NEXT}",
    "space before the first name": f"POST /a HTTP/1.1| transfer-encoding: chunked|{HOST}{OF_BOTH}|0||{NEXT}",
    "folded behind the colon": f"{POST}{OF_BOTH}transfer-encoding:| chunked||0||{NEXT}",
    "folded into another": f"{POST}{OF_BOTH}x: 1| transfer-encoding: chunked||0||{NEXT}",
    "folded length": f"{POST}content-length: 0| {len(raw(NEXT))}||{NEXT}",
    "line feed before": f"{POST}{OF_BOTH}x: 1\ntransfer-encoding: chunked||0||{NEXT}",
    "carriage return for a line's end": f"{POST}{OF_BOTH}x: 1\rtransfer-encoding: chunked||0||{NEXT}",
    "underscore": f"{POST}{OF_BOTH}transfer_encoding: chunked||0||{NEXT}",
    "underscore in length": f"{POST}content_length: {len(raw(NEXT))}||{NEXT}",
    "quoted": f'{POST}{OF_BOTH}transfer-encoding: "chunked"||0||{NEXT}',
    "unknown": f"{POST}{OF_BOTH}transfer-encoding: xchunked||0||{NEXT}",
    "identity": f"{POST}{OF_BOTH}transfer-encoding: identity||0||{NEXT}",
    "two codings": f"{POST}{OF_BOTH}transfer-encoding: gzip, chunked||0||{NEXT}",
    "identity behind": f"{POST}{OF_BOTH}transfer-encoding: chunked, identity||0||{NEXT}",
    "twice": f"{POST}{OF_BOTH}transfer-encoding: chunked|transfer-encoding: identity||0||{NEXT}",
    "twice, the first empty": f"{POST}{OF_BOTH}transfer-encoding:|transfer-encoding: chunked||0||{NEXT}",
    "of HTTP/1.0": f"POST /a HTTP/1.0|{HOST}connection: keep-alive|{OF_BOTH}transfer-encoding: chunked||0||{NEXT}",
    "plus": f"{POST}content-length: +{len(raw(NEXT))}||{NEXT}",
    "plus 0": f"{POST}content-length: +0||{NEXT}",
    "minus": f"{POST}content-length: -5||{NEXT}",
    "hexadecimal": f"{POST}content-length: 0x2e||{NEXT}",
    "zeros": f"{POST}content-length: 0000000000000000000000{len(raw(NEXT))}||{NEXT}",
    "list": f"{POST}content-length: 0, {len(raw(NEXT))}||{NEXT}",
    "list of equals": f"{POST}content-length: {len(raw(NEXT))}, {len(raw(NEXT))}||{NEXT}",
    "two lengths": f"{POST}content-length: 0|{LENGTH}|{NEXT}",
    "two equal lengths": f"{POST}{LENGTH}{LENGTH}|{NEXT}",
    "space before the length's colon": f"{POST}content-length : {len(raw(NEXT))}||{NEXT}",
    "length of GET": f"{GET}{LENGTH}|{NEXT}",
    "length of HEAD": f"HEAD /a HTTP/1.1|{HOST}{LENGTH}|{NEXT}",
    "length of HTTP/0.9": f"GET /a|{LENGTH}|{NEXT}",
    "length that wraps": f"{POST}content-length: 18446744073709551616||{NEXT}",
    "length named by connection": f"{POST}connection: content-length|{LENGTH}|{NEXT}",
    "coding named by connection": f"{POST}connection: transfer-encoding|transfer-encoding: chunked||{SIZE}|{NEXT}|0||",
    "id named by connection": f"{GET}connection: x-pair-id, x-pair-port||",
    "id of the client's": f"{GET}x-pair-id: 1|x-pair-port: 1||",
    "id of the client's, otherwise": f"{GET}x_pair_id: 1|X-PAIR-ID : 1|x-pair-id\t: 1||",
}

BODIES = {
    "size in hexadecimal": f"{CHUNKED}0x{SIZE}|{NEXT}|0||",
    "size with a sign": f"{CHUNKED}+{SIZE}|{NEXT}|0||",
    "size with an underscore": f"{CHUNKED}0_0|{NEXT}|0||",
    "size that wraps": f"{CHUNKED}100000000000000{SIZE}|{NEXT}|0||",
    "size of 16 digits that wraps": f"{CHUNKED}ffffffffffffffff|{NEXT}|0||",
    "space behind a size": f"{CHUNKED}{SIZE} |{NEXT}|0||",
    "extension that ends with a line feed": f"{CHUNKED}2;\nxx|{SIZE}|0||{NEXT}|0||",
    "extension that ends with a carriage return": f"{CHUNKED}2;\rxx|{SIZE}|0||{NEXT}|0||",
    "extension with a line's end in quotes": f'{CHUNKED}2;a="|xx|{SIZE}|0||{NEXT}|0||',
    "extension of nothing": f"{CHUNKED}{SIZE};|{NEXT}|0;||",
    "extension of the last": f"{CHUNKED}0;\n||{NEXT}",
    "size that ends with a line feed": f"{CHUNKED}{SIZE}\n{NEXT}\n0\n\n",
    "size that ends with a carriage return": f"{CHUNKED}{SIZE}\r{NEXT}|0||",
    "last that ends with line feeds": f"{CHUNKED}0\n\n{NEXT}",
    "last that ends with carriage returns": f"{CHUNKED}0\r\r{NEXT}",
    "data longer by two bytes": f"{CHUNKED}5|helloxx0||{NEXT}",
    "data without its end": f"{CHUNKED}5|hello0||{NEXT}",
    "data that ends with a line feed": f"{CHUNKED}5|hello\n0||{NEXT}",
    "trailer that ends with a line feed": f"{CHUNKED}0|x: 1\n\n{NEXT}",
    "trailer that looks like a request": f"{CHUNKED}0|{NEXT}",
    "trailers that frame a body": f"{CHUNKED}0|{LENGTH}transfer-encoding: chunked||",
    "expected, and there": f"{POST}expect: 100-continue|{LENGTH}|{NEXT}",
    "expected of nothing": f"{GET}expect: 100-continue||",
    "expected otherwise": f"{POST}expect: y 100-continue|{LENGTH}|{NEXT}",
    "expected twice": f"{POST}expect: 100-continue|expect: 100-continue|{LENGTH}|{NEXT}",
    "not read": f"POST /deaf HTTP/1.1|{HOST}{LENGTH}|{NEXT}",
    "not read, of GET": f"GET /deaf HTTP/1.1|{HOST}{LENGTH}|{NEXT}",
    "not read, in chunks": f"POST /deaf HTTP/1.1|{HOST}transfer-encoding: chunked||{SIZE}|{NEXT}|0||",
    "not read, nor all there": f"POST /deaf HTTP/1.1|{HOST}content-length: 100000||{NEXT}",
    "not read, and large": f"POST /deaf HTTP/1.1|{HOST}content-length: 300000||{NEXT}{'x' * (300000 - len(raw(NEXT)))}",
    "not read, and expected": f"POST /deaf HTTP/1.1|{HOST}expect: 100-continue|{LENGTH}|{NEXT}",
}

ANSWERS = {
    "of HEAD": f"HEAD /a HTTP/1.1|{HOST}|{NEXT}",
    "204 with a body": f"GET /204 HTTP/1.1|{HOST}|{NEXT}",
    "304 with a body": f"GET /304 HTTP/1.1|{HOST}|{NEXT}",
    "HEAD of 204": f"HEAD /204 HTTP/1.1|{HOST}|{NEXT}",
    "to HTTP/1.0": f"GET /a HTTP/1.0|{HOST}connection: keep-alive||{NEXT}",
    "target with line ends": f"GET /a%20HTTP/1.1%0d%0ahost:%20a%0d%0a%0d%0aGET%20/smuggled HTTP/1.1|{HOST}|",
    "target with a space": f"GET /a HTTP/1.1 HTTP/1.1|{HOST}|",
    "target of another host": f"GET http://b/a HTTP/1.1|{HOST}|",
    "two hosts": "GET /a HTTP/1.1|host: a|host: b||",
}

# HTTP/2 by prior knowledge: settings, and a request for `/smuggled` in indexed and literal fields (RFC 7541).
FRAMES = "PRI * HTTP/2.0||SM||\0\0\0\x04\0\0\0\0\0\0\0\x10\x01\x05\0\0\0\x01\x82\x86\x41\x01a\x04\x09/smuggled"
H2C = "connection: upgrade, http2-settings|upgrade: h2c|http2-settings: AAMAAABkAAQAAP__||"
KEY, VERSION = "sec-websocket-key: c2l4dGVlbiBieXRlcyAhIQ==|", "sec-websocket-version: 13|"
SOCKET = f"{GET}connection: upgrade|upgrade: websocket|"

UPGRADES = {
    "to h2c": f"{GET}{H2C}",
    "to h2c, and frames": f"{GET}{H2C}{FRAMES}",
    "to h2c, and a request": f"{GET}{H2C}{NEXT}",
    "to h2c, of POST": f"{POST}{LENGTH}{H2C}{NEXT}",
    "to h2c or a WebSocket": f"{GET}connection: upgrade|upgrade: h2c, websocket|{KEY}{VERSION}|{FRAMES}",
    "to HTTP/2.0": f"{GET}connection: upgrade|upgrade: HTTP/2.0||{FRAMES}",
    "to TLS": f"{GET}connection: upgrade|upgrade: TLS/1.0||{NEXT}",
    "frames alone": FRAMES,
    "to a WebSocket of no version": f"{SOCKET}{KEY}|{NEXT}",
    "to a WebSocket of another version": f"{SOCKET}{KEY}sec-websocket-version: 777||{NEXT}",
    "to a WebSocket without a key": f"{SOCKET}{VERSION}|{NEXT}",
    "to a WebSocket with a body": f"{SOCKET}{KEY}{VERSION}{LENGTH}|{NEXT}",
    "to a WebSocket by POST": f"{POST}connection: upgrade|upgrade: websocket|{KEY}{VERSION}|{NEXT}",
    "to a WebSocket, and a request": f"{SOCKET}{KEY}{VERSION}|{NEXT}",
    "to a WebSocket of HTTP/1.0": f"{SOCKET.replace('/1.1', '/1.0')}{KEY}{VERSION}|{NEXT}",
}

SMUGGLING: dict[str, Row | Request2] = {
    f"{group}: {name}": Row(name, (raw(text),), (), (), KEPT)
    for group, texts in {"framing": FRAMING, "body": BODIES, "answer": ANSWERS, "upgrade": UPGRADES}.items()
    for name, text in texts.items()
}

HOSTILE: dict[str, Row | Request2] = {f"{group}: {row.name}": row for group, rows in TABLE.items() for row in rows}

# --- What a proxy that speaks HTTP/2 makes of requests for a server that may speak HTTP/1.1 ---

Fields = list[tuple[bytes, bytes]]


def head(*fields: tuple[bytes, bytes], **pseudo: bytes) -> Fields:
    """The head of a request with these fields; `path=b"/b"` stands in place of the usual one."""
    usual = {"method": b"POST", "scheme": b"http", "authority": b"a", "path": b"/a", **pseudo}
    return [*((b":" + name.encode(), value) for name, value in usual.items()), *fields]


INJECTED = b"1\r\nx-injected: 1"
BODY = raw(f"0||{NEXT}")
INSIDE = b"/a HTTP/1.1\r\nhost: a\r\n\r\nGET /smuggled"

HEADS: dict[str, Fields] = {
    "plain": head(method=b"GET"),
    "line's end in a value": head((b"x", INJECTED)),
    "line feed in a value": head((b"x", b"1\nx-injected: 1")),
    "carriage return in a value": head((b"x", b"1\rx-injected: 1")),
    "nul in a value": head((b"x", b"1\0x-injected: 1")),
    "request in a value": head((b"x", b"1\r\n\r\n" + raw(NEXT))),
    "line's end in a name": head((b"x: 1\r\nx-injected", b"1")),
    "colon in a name": head((b"x-injected: 1", b"1")),
    "space in a name": head((b"x-injected ", b"1")),
    "upper case": head((b"X", b"1")),
    "no name": head((b"", b"1")),
    "space before a value": head((b"x", b" 1")),
    "line's end in a cookie": head((b"cookie", b"a=1"), (b"cookie", INJECTED)),
    "method with a request": head(method=b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\nGET"),
    "method with a space": head(method=b"GET /smuggled"),
    "method of nothing": head(method=b""),
    "path with a request": head(path=INSIDE),
    "path with a version": head(path=b"/a HTTP/1.1"),
    "path with a line's end": head(path=b"/a\r\nx-injected: 1"),
    "path of nothing": head(path=b""),
    "path without a slash": head(path=b"a"),
    "path that is a URL": head(path=b"http://b/a"),
    "path of an asterisk": head(path=b"*"),
    "authority with a line's end": head(authority=b"a\r\nx-injected: 1"),
    "authority with a space": head(authority=b"a b"),
    "authority with a path": head(authority=b"a/b"),
    "authority of nothing": head(authority=b""),
    "scheme with a request": head(scheme=b"http://a/smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
    "scheme unknown": head(scheme=b"gopher"),
    "host of another": head((b"host", b"b")),
    "host twice": head((b"host", b"a"), (b"host", b"b")),
    "path twice": [*head(), (b":path", b"/smuggled")],
    "pseudo-field behind fields": [*head((b"x", b"1")), (b":authority", b"b")],
    "pseudo-field unknown": [*head(), (b":x", b"1")],
    "connection": head((b"connection", b"x-pair-id, close")),
    "keep-alive": head((b"keep-alive", b"timeout=1")),
    "proxy-connection": head((b"proxy-connection", b"keep-alive")),
    "upgrade": head((b"connection", b"upgrade"), (b"upgrade", b"h2c"), (b"http2-settings", b"AAMAAABk")),
    "upgrade to a WebSocket": head((b"connection", b"upgrade"), (b"upgrade", b"websocket")),
    "te": head((b"te", b"chunked")),
    "expect": head((b"expect", b"100-continue")),
    "id of the client's": head((b"x-pair-id", b"1"), (b"x-pair-port", b"1")),
    "CONNECT": [(b":method", b"CONNECT"), (b":authority", b"a:80")],
    "CONNECT of something": head((b":protocol", b"x"), method=b"CONNECT"),
    "WebSocket of another version": head(
        (b":protocol", b"websocket"), (b"sec-websocket-version", b"7"), method=b"CONNECT"
    ),
}

FRAMINGS: dict[str, Fields] = {
    "none": head(),
    "of GET": head(method=b"GET"),
    "0": head((b"content-length", b"0")),
    "too short": head((b"content-length", b"5")),
    "too long": head((b"content-length", b"5000")),
    "plus": head((b"content-length", b"+%d" % len(BODY))),
    "list": head((b"content-length", b"%d, %d" % (len(BODY), len(BODY)))),
    "twice": head((b"content-length", b"0"), (b"content-length", b"%d" % len(BODY))),
    "of nothing": head((b"content-length", b"")),
    "chunked": head((b"transfer-encoding", b"chunked")),
    "chunked, with a length": head((b"transfer-encoding", b"chunked"), (b"content-length", b"%d" % len(BODY))),
    "chunked by a line's end": head((b"x", b"1\r\ntransfer-encoding: chunked")),
    "chunked by a name": head((b"transfer-encoding: chunked\r\nx", b"1")),
    "not read": head(path=b"/deaf"),
    "not read, with a length": head((b"content-length", b"%d" % len(BODY)), path=b"/deaf"),
}

TRAILERS: dict[str, Fields] = {
    "plain": [(b"x", b"1")],
    "transfer-encoding": [(b"transfer-encoding", b"chunked")],
    "content-length": [(b"content-length", b"46")],
    "host": [(b"host", b"b")],
    "path": [(b":path", b"/smuggled")],
    "line's end": [(b"x", b"1\r\n\r\n" + raw(NEXT))],
}

DOWNGRADES: dict[str, Row | Request2] = {
    **{f"head: {name}": Request2(name, fields) for name, fields in HEADS.items()},
    **{f"framing: {name}": Request2(name, fields, BODY) for name, fields in FRAMINGS.items()},
    **{f"trailer: {name}": Request2(name, head(), b"hello", fields) for name, fields in TRAILERS.items()},
}

# --- The tests ---

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_application_sees_what_the_proxy_has_forwarded(kind: str, tmp_path: Path) -> None:
    """All that is hostile to a server alone, many at a time on few connections to the server."""
    seen = hold(kind, tmp_path, HOSTILE, 16)
    assert seen.faults() == {}
    assert len(seen.calls) > len(HOSTILE)


@kinds
@pytest.mark.parametrize("conversations", [SMUGGLING, DOWNGRADES], ids=["smuggling", "downgrades"])
def test_nothing_is_smuggled(kind: str, tmp_path: Path, conversations: dict[str, Row | Request2]) -> None:
    """One at a time, so that what one leaves on a connection to the server is what the next one finds."""
    seen = hold(kind, tmp_path, conversations, 1)
    assert seen.faults() == {}
    connections = Counter(tuple(call["connection"]) for call in seen.calls)
    # Some are closed by what comes over them; most bring more than one request.
    assert max(connections.values()) > 20
    assert len(connections) < len(seen.calls) / 2
    assert sum(is_forwarded(line) for line in seen.lines) >= len(seen.calls) > len(conversations)
