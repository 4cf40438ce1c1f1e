"""HTTP/1 requests at fault, by RFC 9110 and 9112: what the client gets, and that it is all it gets."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from py_tests.harness.certificates import Pair
from py_tests.harness.deadline import DEADLINE
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.hostile import (
    ANSWERED,
    CALLED,
    CLOSED,
    HALF_CLOSE,
    KEPT,
    RESET,
    WAITS,
    End,
    Outcome,
    Row,
    Step,
    account,
    by_front,
    called,
    calls_of,
    check,
    converse_all,
    each,
    forget,
    outcomes,
)
from py_tests.harness.hostile import app as app
from py_tests.harness.http1 import Http1Connection, Http1Exchange
from py_tests.harness.serving import Server, of_envoy, serve, unlike_uvicorn
from py_tests.harness.wire import Tls
from py_tests.hostile import upstream_answers

pytestmark = unlike_uvicorn("it has refusals of its own")


def raw(text: str) -> bytes:
    """The table's requests on the wire: `|` stands for CRLF."""
    return text.replace("|", "\r\n").encode("latin-1")


def served(name: str, text: str, *calls: str, end: End = KEPT) -> Row:
    """The application is called and answers."""
    return Row(name, (raw(text),), ("200",) * len(calls), calls, end)


def refused(name: str, text: str, status: int = 400, end: End = CLOSED) -> Row:
    """The application is not called."""
    return Row(name, (raw(text),), (str(status),), (), end)


def dropped(name: str, text: str) -> Row:
    """Nobody is called, nothing is answered."""
    return Row(name, (raw(text),), (), (), CLOSED)


def broken(name: str, text: str, status: int = 400) -> Row:
    """The application is called, and told that the client has gone."""
    return Row(name, (raw(text),), (str(status),), ("POST /a cut",), CLOSED)


def waiting(name: str, text: str, *calls: str) -> Row:
    """The server waits for more."""
    return Row(name, (raw(text),), (), calls, WAITS)


HOST = "host: a|"
GET = f"GET /a HTTP/1.1|{HOST}"
POST = f"POST /a HTTP/1.1|{HOST}"
CHUNKED = f"{POST}transfer-encoding: chunked||"
NEXT = f"GET /smuggled HTTP/1.1|{HOST}|"
SMUGGLED = "GET /smuggled"

REQUEST_LINES = [
    served("plain", f"GET /a HTTP/1.1|{HOST}|", "GET /a"),
    served("empty line before", f"|GET /a HTTP/1.1|{HOST}|", "GET /a"),
    served("many empty lines before", f"|||||GET /a HTTP/1.1|{HOST}|", "GET /a"),
    served("empty line feed before", f"\nGET /a HTTP/1.1|{HOST}|", "GET /a"),
    served("carriage return before", f"\rGET /a HTTP/1.1|{HOST}|", "GET /a"),
    refused("space before", f" GET /a HTTP/1.1|{HOST}|"),
    served("two spaces after method", f"GET  /a HTTP/1.1|{HOST}|", "GET /a"),
    served("two spaces before version", f"GET /a  HTTP/1.1|{HOST}|", "GET /a"),
    served("space after version", f"GET /a HTTP/1.1 |{HOST}|", "GET /a"),
    served("tab for space", f"GET\t/a\tHTTP/1.1|{HOST}|", "GET /a"),
    refused("vertical tab for space", f"GET\v/a\vHTTP/1.1|{HOST}|"),
    refused("no spaces", f"GET/aHTTP/1.1|{HOST}|"),
    served("no version and no fields", "GET /a|", "GET /a host=", end=CLOSED),
    refused("method only", f"GET|{HOST}|"),
    served("no version", f"GET /a|{HOST}|", "GET /a host=", end=CLOSED),
    refused("no target", f"GET HTTP/1.1|{HOST}|"),
    refused("empty target", f"GET  HTTP/1.1|{HOST}|"),
    refused("four words", f"GET /a b HTTP/1.1|{HOST}|"),
    refused("carriage return within", f"GET /a\rb HTTP/1.1|{HOST}|"),
    refused("nul within", f"GET /a\0b HTTP/1.1|{HOST}|"),
    served("line feeds only", "GET /a HTTP/1.1\nhost: a\n\n", "GET /a"),
    served("line feed ends the request line", f"GET /a HTTP/1.1\n{HOST}|", "GET /a"),
    served("line feed ends the head", f"GET /a HTTP/1.1|{HOST}\n", "GET /a"),
    served("two carriage returns", f"GET /a HTTP/1.1\r|{HOST}|", "GET /a"),
    waiting("carriage returns only", "GET /a HTTP/1.1\rhost: a\r\r"),
    refused("response", "HTTP/1.1 200 OK|content-length: 0||"),
    refused("garbage", "\x01\x02\x03\x04\x05\x06\x07\x08||"),
    refused("line of punctuation", "?????????????????????||"),
    refused("json", '{"method": "GET"}||'),
    refused("word", "hello||"),
]

VERSIONS = [
    served("HTTP/1.0", f"GET /a HTTP/1.0|{HOST}|", "GET /a", end=CLOSED),
    served("HTTP/1.0 without host", "GET /a HTTP/1.0||", "GET /a host=", end=CLOSED),
    served("HTTP/1.0 kept alive", f"GET /a HTTP/1.0|{HOST}connection: keep-alive||", "GET /a"),
    served("HTTP/0.9", f"GET /a HTTP/0.9|{HOST}|", "GET /a", end=CLOSED),
    served("HTTP/1.2", f"GET /a HTTP/1.2|{HOST}|", "GET /a", end=CLOSED),
    served("HTTP/1.9", f"GET /a HTTP/1.9|{HOST}|", "GET /a", end=CLOSED),
    served("HTTP/2.0", f"GET /a HTTP/2.0|{HOST}|", "GET /a", end=CLOSED),
    served("HTTP/3.0", f"GET /a HTTP/3.0|{HOST}|", "GET /a", end=CLOSED),
    served("HTTP/9.9", f"GET /a HTTP/9.9|{HOST}|", "GET /a", end=CLOSED),
    refused("HTTP/1", f"GET /a HTTP/1|{HOST}|"),
    refused("HTTP/1.", f"GET /a HTTP/1.|{HOST}|"),
    refused("HTTP/1.10", f"GET /a HTTP/1.10|{HOST}|"),
    refused("HTTP/01.1", f"GET /a HTTP/01.1|{HOST}|"),
    refused("HTTP/1,1", f"GET /a HTTP/1,1|{HOST}|"),
    refused("HTTP/-1.1", f"GET /a HTTP/-1.1|{HOST}|"),
    refused("http/1.1", f"GET /a http/1.1|{HOST}|"),
    refused("Http/1.1", f"GET /a Http/1.1|{HOST}|"),
    refused("HTTPS/1.1", f"GET /a HTTPS/1.1|{HOST}|"),
    refused("XHTTP/1.1", f"GET /a XHTTP/1.1|{HOST}|"),
    refused("HTTP 1.1", f"GET /a HTTP 1.1|{HOST}|"),
    refused("ICY/1.1", f"GET /a ICY/1.1|{HOST}|"),
]

METHODS = [
    served("QUERY", f"QUERY /a HTTP/1.1|{HOST}content-type: a/b||", "QUERY /a"),
    served("PROPFIND", f"PROPFIND /a HTTP/1.1|{HOST}|", "PROPFIND /a"),
    served("TRACE", f"TRACE /a HTTP/1.1|{HOST}|", "TRACE /a"),
    served("unknown", f"FROBNICATE /a HTTP/1.1|{HOST}|", "FROBNICATE /a"),
    served("of one letter", f"G /a HTTP/1.1|{HOST}|", "G /a"),
    served("of 10 kB", f"{'G' * 10_000} /a HTTP/1.1|{HOST}|", f"{'G' * 10_000} /a"),
    served("longer by a letter", f"GETX /a HTTP/1.1|{HOST}|", "GETX /a"),
    served("shorter by a letter", f"GE /a HTTP/1.1|{HOST}|", "GE /a"),
    served("PRI", f"PRI /a HTTP/1.1|{HOST}|", "PRI /a"),
    served("any token", f"!#$%&'*+-.^_`~0 /a HTTP/1.1|{HOST}|", "!#$%&'*+-.^_`~0 /a"),
    # ASGI knows only upper-case methods.
    served("lower case", f"get /a HTTP/1.1|{HOST}|", "GET /a"),
    served("mixed case", f"Get /a HTTP/1.1|{HOST}|", "GET /a"),
    refused("QUERY without content-type", f"QUERY /a HTTP/1.1|{HOST}|"),
    refused("of 100 kB", f"{'G' * 100_000} /a HTTP/1.1|{HOST}|", 431),
    refused("with parentheses", f"G(E)T /a HTTP/1.1|{HOST}|"),
    refused("with a high byte", f"G\xc9T /a HTTP/1.1|{HOST}|"),
    refused("with nul", f"GET\0 /a HTTP/1.1|{HOST}|"),
    refused("quoted", f'"GET" /a HTTP/1.1|{HOST}|'),
]

TARGETS = [
    served("absolute", f"GET http://a/a?b HTTP/1.1|{HOST}|", "GET /a?b"),
    served("absolute without path", f"GET http://a HTTP/1.1|{HOST}|", "GET /"),
    refused("absolute with query only", f"GET http://a?b HTTP/1.1|{HOST}|", 404, KEPT),
    served("absolute with upper-case scheme", f"GET HTTP://a/a HTTP/1.1|{HOST}|", "GET /a"),
    refused("asterisk for OPTIONS", f"OPTIONS * HTTP/1.1|{HOST}|", 404, KEPT),
    served("two slashes", f"GET //a HTTP/1.1|{HOST}|", "GET //a"),
    served("dots", f"GET /../a HTTP/1.1|{HOST}|", "GET /../a"),
    served("percent", f"GET /%zz%0d%0a%00 HTTP/1.1|{HOST}|", "GET /%zz%0d%0a%00"),
    served("empty query", f"GET /a? HTTP/1.1|{HOST}|", "GET /a"),
    served("quotes and brackets", f'GET /"<>^`{{}}\\[] HTTP/1.1|{HOST}|', 'GET /"<>^`{}\\[]'),
    refused("asterisk for GET", f"GET * HTTP/1.1|{HOST}|"),
    refused("asterisk and more", f"GET *a HTTP/1.1|{HOST}|"),
    served("absolute with another host", f"GET http://b/a HTTP/1.1|{HOST}|", "GET /a host=b"),
    served("absolute with user", f"GET http://u:p@a/a HTTP/1.1|{HOST}|", "GET /a"),
    refused("absolute without host", f"GET http:///a HTTP/1.1|{HOST}|"),
    refused("absolute with port only", f"GET http://:80/a HTTP/1.1|{HOST}|"),
    refused("absolute with another scheme", f"GET ftp://a/a HTTP/1.1|{HOST}|"),
    served("absolute with https", f"GET https://a/a HTTP/1.1|{HOST}|", "GET /a"),
    refused("scheme without slashes", f"GET http:/a HTTP/1.1|{HOST}|"),
    refused("script", f"GET javascript:alert(1) HTTP/1.1|{HOST}|"),
    refused("without slash", f"GET a HTTP/1.1|{HOST}|"),
    refused("authority for GET", f"GET a:80 HTTP/1.1|{HOST}|"),
    refused("query only", f"GET ?b HTTP/1.1|{HOST}|"),
    refused("fragment", f"GET /a#b HTTP/1.1|{HOST}|"),
    refused("fragment only", f"GET # HTTP/1.1|{HOST}|"),
    refused("high bytes", f"GET /\xe4 HTTP/1.1|{HOST}|"),
    refused("utf-8", f"GET /\xc3\xa4 HTTP/1.1|{HOST}|"),
    refused("delete", f"GET /\x7f HTTP/1.1|{HOST}|"),
    served("tab for the path's end", f"GET /\t HTTP/1.1|{HOST}|", "GET /"),
    refused("form feed", f"GET /\f HTTP/1.1|{HOST}|"),
    refused("escape", f"GET /\x1b HTTP/1.1|{HOST}|"),
    refused("CONNECT", "CONNECT a:443 HTTP/1.1|host: a:443||", 501),
    refused("CONNECT with path", f"CONNECT /a HTTP/1.1|{HOST}|"),
    refused("CONNECT without port", f"CONNECT a HTTP/1.1|{HOST}|"),
    refused("CONNECT with a body", f"CONNECT a:443 HTTP/1.1|host: a:443|content-length: 40||{NEXT}"),
    refused("of 70 kB", f"GET /{'a' * 70_000} HTTP/1.1|{HOST}|", 431, KEPT),
    refused("of 10 MB", f"GET /{'a' * 10_000_000} HTTP/1.1|{HOST}|", 431),
]

HOSTS = [
    served("with port", "GET /a HTTP/1.1|host: a:8000||", "GET /a host=a:8000"),
    served("IPv6", "GET /a HTTP/1.1|host: [::1]:80||", "GET /a host=[::1]:80"),
    served("empty", "GET /a HTTP/1.1|host:||", "GET /a host="),
    refused("missing", "GET /a HTTP/1.1||"),
    refused("missing with other fields", "GET /a HTTP/1.1|x: 1||"),
    refused("twice", "GET /a HTTP/1.1|host: a|host: b||"),
    refused("twice the same", "GET /a HTTP/1.1|host: a|host: a||"),
    refused("twice in other cases", "GET /a HTTP/1.1|Host: a|HOST: b||"),
    refused("twice, apart", "GET /a HTTP/1.1|host: a|x: 1|host: b||"),
    served("twice and absolute target", "GET http://a/a HTTP/1.1|host: a|host: b||", "GET /a"),
    served("missing with absolute target", "GET http://a/a HTTP/1.1||", "GET /a"),
    served("space and absolute target", "GET http://a/a HTTP/1.1|host: a b||", "GET /a"),
    served("comma and absolute target", "GET http://a/a HTTP/1.1|host: a,b||", "GET /a"),
    served("missing with absolute target and HTTP/1.0", "GET http://a/a HTTP/1.0||", "GET /a", end=CLOSED),
    refused("missing with CONNECT", "CONNECT a:443 HTTP/1.1||", 501),
    served("twice, first empty", "GET /a HTTP/1.1|host:|host: a||", "GET /a"),
    served("twice, second empty", "GET /a HTTP/1.1|host: a|host:||", "GET /a"),
    refused("three times", "GET /a HTTP/1.1|host: a|host: a|host: a||"),
    refused("list", "GET /a HTTP/1.1|host: a, b||"),
    refused("comma", "GET /a HTTP/1.1|host: a,b||"),
    refused("space", "GET /a HTTP/1.1|host: a b||"),
    refused("tab", "GET /a HTTP/1.1|host: a\tb||"),
    refused("slash", "GET /a HTTP/1.1|host: a/b||"),
    refused("backslash", "GET /a HTTP/1.1|host: a\\b||"),
    refused("question mark", "GET /a HTTP/1.1|host: a?b||"),
    refused("hash", "GET /a HTTP/1.1|host: a#b||"),
    refused("user", "GET /a HTTP/1.1|host: u@a||"),
    refused("angle brackets", "GET /a HTTP/1.1|host: <a>||"),
    refused("quotes", 'GET /a HTTP/1.1|host: "a"||'),
    refused("scheme", "GET /a HTTP/1.1|host: http://a||"),
    refused("high byte", "GET /a HTTP/1.1|host: \xe4||"),
    refused("port that is no number", "GET /a HTTP/1.1|host: a:b||"),
    refused("port too large", "GET /a HTTP/1.1|host: a:99999||"),
    refused("port negative", "GET /a HTTP/1.1|host: a:-1||"),
    refused("bracket open", "GET /a HTTP/1.1|host: [::1||"),
    refused("two ports", "GET /a HTTP/1.1|host: a:1:2||"),
    refused("twice with HTTP/1.0", "GET /a HTTP/1.0|host: a|host: b||"),
]

FIELDS = [
    served("no space after colon", f"{GET}x:1||", "GET /a x=1"),
    served("much space around value", f"{GET}x: \t  1 \t ||", "GET /a x=1"),
    served("no value", f"{GET}x:||", "GET /a x="),
    served("high bytes in value", f"{GET}x: \xe4\xff||", "GET /a x=\xe4\xff"),
    served("tab in value", f"{GET}x: 1\t2||", "GET /a x=1\t2"),
    served("colons in value", f"{GET}x: :1:||", "GET /a x=:1:"),
    served("repeated", f"{GET}x: 1|x: 2||", "GET /a x=1 x=2"),
    served("strange token", f"{GET}!#$%&'*+-.^_`~: 1||", "GET /a"),
    refused("space before colon", f"{GET}x : 1||"),
    refused("tab before colon", f"{GET}x\t: 1||"),
    refused("space in name", f"{GET}x y: 1||"),
    refused("space before name", f"GET /a HTTP/1.1| x: 1|{HOST}|"),
    refused("no name", f"{GET}: 1||"),
    refused("no colon", f"{GET}x||"),
    served("folded", f"{GET}x: 1| 2||", "GET /a x=1 2"),
    served("folded with tab", f"{GET}x: 1|\t2||", "GET /a x=1\t2"),
    served("folded empty", f"{GET}x: 1| |y: 2||", "GET /a x=1"),
    refused("folded first line", "GET /a HTTP/1.1| x: 1||"),
    refused("folded host", "GET /a HTTP/1.1|host: a| b||"),
    served("folded content-length", f"{POST}content-length:| 5||hello", "POST /a [hello]"),
    served("folded transfer-encoding", f"{POST}transfer-encoding:| chunked||0||", "POST /a"),
    refused("nul in name", f"{GET}x\0y: 1||"),
    refused("nul in value", f"{GET}x: 1\x002||"),
    refused("carriage return in name", f"{GET}x\ry: 1||"),
    served("carriage return in value", f"{GET}x: 1\r2||", "GET /a x=12"),
    served("carriage return at the value's end", f"{GET}x: 1\r||", "GET /a x=1"),
    served("carriage return before the value", f"{GET}x:\r 1||", "GET /a x=1"),
    served(
        "carriage return, then a field",
        f"{POST}x: 1\rtransfer-encoding: chunked|content-length: 0||",
        "POST /a x=1transfer-encoding: chunked",
    ),
    refused("line feed in name", f"{GET}x\ny: 1||"),
    served("line feed ends a field", f"{GET}x: 1\nx: 2||", "GET /a x=1 x=2"),
    served("line feed, then transfer-encoding", f"{POST}x: 1\ntransfer-encoding: chunked||0||", "POST /a x=1"),
    served("line feeds end the head", "GET /a HTTP/1.1|host: a\n\n", "GET /a"),
    refused("vertical tab in value", f"{GET}x: 1\v2||"),
    refused("form feed in value", f"{GET}x: 1\f2||"),
    refused("backspace in value", f"{GET}x: 1\b2||"),
    refused("escape in value", f"{GET}x: 1\x1b2||"),
    refused("delete in value", f"{GET}x: 1\x7f2||"),
    refused("high byte in name", f"{GET}x\xe4: 1||"),
    refused("delete in name", f"{GET}x\x7f: 1||"),
    refused("parenthesis in name", f"{GET}x(y): 1||"),
    refused("slash in name", f"{GET}x/y: 1||"),
    refused("at sign in name", f"{GET}x@y: 1||"),
    refused("brackets in name", f"{GET}[x]: 1||"),
    refused("quotes in name", f'{GET}"x": 1||'),
    refused("comma in name", f"{GET}x,y: 1||"),
    refused("semicolon in name", f"{GET}x;y: 1||"),
    refused("equals sign in name", f"{GET}x=y: 1||"),
    refused("pseudo-header :path", f"{GET}:path: /b||"),
    refused("pseudo-header :authority", f"{GET}:authority: b||"),
    refused("pseudo-header :method", f"{GET}:method: PUT||"),
    refused("pseudo-header unknown", f"{GET}:x: 1||"),
    refused("of 70 kB", f"{GET}x: {'1' * 70_000}||", 431, KEPT),
    refused("of 10 MB", f"{GET}x: {'1' * 10_000_000}||", 431),
    refused("name of 70 kB", f"{GET}{'x' * 70_000}: 1||", 431, KEPT),
    refused("101 of them", f"{GET}{''.join(f'x{n}: 1|' for n in range(101))}|", 431, KEPT),
    refused("10,000 of them", f"{GET}{'x: 1|' * 10_000}|", 431),
    refused("together 70 kB", f"{GET}{('y: ' + '1' * 1000 + '|') * 70}|", 431, KEPT),
]

LENGTHS = [
    served("0", f"{POST}content-length: 0||", "POST /a"),
    served("5", f"{POST}content-length: 5||hello", "POST /a [hello]"),
    served("none", f"{POST}|", "POST /a"),
    served("GET with a body", f"{GET}content-length: 5||hello", "GET /a [hello]"),
    served("HEAD with a body", f"HEAD /a HTTP/1.1|{HOST}content-length: 5||hello", "HEAD /a [hello]"),
    served("leading zeros", f"{POST}content-length: 00005||hello", "POST /a [hello]"),
    Row(
        "too many bytes",
        (raw(f"{POST}content-length: 5||hello, world||"),),
        ("200", "400"),
        ("POST /a [hello]",),
        CLOSED,
    ),
    waiting("too few bytes", f"{POST}content-length: 5||hell", "POST /a cut"),
    refused("empty", f"{POST}content-length:||"),
    refused("negative", f"{POST}content-length: -5||hello"),
    refused("minus zero", f"{POST}content-length: -0||"),
    refused("plus", f"{POST}content-length: +5||hello"),
    refused("hexadecimal", f"{POST}content-length: 0x5||hello"),
    refused("hexadecimal letter", f"{POST}content-length: a||hellohello"),
    refused("decimal point", f"{POST}content-length: 5.0||hello"),
    refused("exponent", f"{POST}content-length: 5e0||hello"),
    refused("underscore", f"{POST}content-length: 1_0||hellohello"),
    refused("space within", f"{POST}content-length: 1 0||hellohello"),
    refused("quoted", f'{POST}content-length: "5"||hello'),
    refused("word", f"{POST}content-length: five||hello"),
    refused("superscript", f"{POST}content-length: \xb2||hello"),
    refused("semicolon", f"{POST}content-length: 5;||hello"),
    refused("nul", f"{POST}content-length: 5\0||hello"),
    refused("vertical tab", f"{POST}content-length: \v5||hello"),
    waiting("2**63", f"{POST}content-length: 9223372036854775808||hello", "POST /a cut"),
    refused("2**64", f"{POST}content-length: 18446744073709551616||hello"),
    refused("2**64 + 5", f"{POST}content-length: 18446744073709551621||hello"),
    refused("of 100 digits", f"{POST}content-length: {'9' * 100}||hello"),
    refused("list", f"{POST}content-length: 5, 6||hello"),
    refused("list of equals", f"{POST}content-length: 5, 5||hello"),
    refused("twice", f"{POST}content-length: 5|content-length: 6||hello"),
    refused("twice, second 0", f"{POST}content-length: 46|content-length: 0||{NEXT}"),
    refused("twice, first 0", f"{POST}content-length: 0|content-length: 46||{NEXT}"),
    refused("twice the same", f"{POST}content-length: 5|content-length: 5||hello"),
    refused("twice in other cases", f"{POST}Content-Length: 5|CONTENT-LENGTH: 6||hello"),
    refused("space before colon", f"{POST}content-length : 5||hello"),
    served("underscore in name", f"{POST}content_length: 46||{NEXT}", "POST /a", SMUGGLED),
]

CODINGS = [
    served("chunked", f"{CHUNKED}5|hello|0||", "POST /a [hello]"),
    served("Chunked", f"{POST}Transfer-Encoding: Chunked||5|hello|0||", "POST /a [hello]"),
    served("GET", f"{GET}transfer-encoding: chunked||5|hello|0||", "GET /a [hello]"),
    served("spaces around", f"{POST}transfer-encoding:   chunked  ||0||", "POST /a"),
    refused("with content-length", f"{POST}content-length: 5|transfer-encoding: chunked||0||"),
    refused("with content-length 0", f"{POST}content-length: 0|transfer-encoding: chunked||5|hello|0||"),
    refused("before content-length", f"{POST}transfer-encoding: chunked|content-length: 5||0||"),
    refused("CL.TE", f"{POST}content-length: 51|transfer-encoding: chunked||0||{NEXT}"),
    refused("TE.CL", f"{POST}transfer-encoding: chunked|content-length: 4||2e|{NEXT}|0||"),
    refused("CL.TE with a space", f"{POST}content-length: 51|transfer-encoding : chunked||0||{NEXT}"),
    refused("CL.TE with a tab", f"{POST}content-length: 51|transfer-encoding\t: chunked||0||{NEXT}"),
    refused("CL.TE folded", f"{POST}content-length: 51|transfer-encoding:| chunked||0||{NEXT}"),
    refused("CL.TE with line feed", f"{POST}content-length: 51|x: 1\ntransfer-encoding: chunked||0||{NEXT}"),
    Row(
        "CL.TE with carriage return",
        (raw(f"{POST}content-length: 9|x: 1\rtransfer-encoding: chunked||0||{NEXT}"),),
        ("200", "400"),
        ("POST /a x=1transfer-encoding: chunked [0\r\n\r\nGET ]",),
        CLOSED,
    ),
    refused("CL.TE with vertical tab", f"{POST}content-length: 51|transfer-encoding: \vchunked||0||{NEXT}"),
    refused("CL.TE with nul", f"{POST}content-length: 51|transfer-encoding\0: chunked||0||{NEXT}"),
    refused("CL.TE with unknown coding", f"{POST}content-length: 51|transfer-encoding: xchunked||0||{NEXT}"),
    refused("CL.TE with identity", f"{POST}content-length: 51|transfer-encoding: identity||0||{NEXT}"),
    refused("twice", f"{POST}transfer-encoding: chunked|transfer-encoding: chunked||0||{NEXT}", 501),
    refused("twice, second unknown", f"{POST}transfer-encoding: chunked|transfer-encoding: x||0||{NEXT}", 501),
    refused("twice, first unknown", f"{POST}transfer-encoding: x|transfer-encoding: chunked||0||{NEXT}", 501),
    refused("twice, second identity", f"{POST}transfer-encoding: chunked|transfer-encoding: identity||0||{NEXT}", 501),
    refused("twice, first identity", f"{POST}transfer-encoding: identity|transfer-encoding: chunked||0||{NEXT}", 501),
    # An empty element of the list is none (RFC 9110, section 5.6.1).
    served(
        "twice, first empty", f"{POST}transfer-encoding:|transfer-encoding: chunked||0||{NEXT}", "POST /a", SMUGGLED
    ),
    refused("chunked, chunked", f"{POST}transfer-encoding: chunked, chunked||0||{NEXT}", 501),
    refused("chunked, identity", f"{POST}transfer-encoding: chunked, identity||0||{NEXT}", 501),
    refused("identity, chunked", f"{POST}transfer-encoding: identity, chunked||0||{NEXT}", 501),
    refused("gzip, chunked", f"{POST}transfer-encoding: gzip, chunked||0||{NEXT}", 501),
    refused("gzip", f"{POST}transfer-encoding: gzip||0||{NEXT}", 501),
    refused("identity", f"{POST}transfer-encoding: identity||0||{NEXT}", 501),
    refused("xchunked", f"{POST}transfer-encoding: xchunked||0||{NEXT}", 501),
    refused("chunkedx", f"{POST}transfer-encoding: chunkedx||0||{NEXT}", 501),
    refused("chunked;q=1", f"{POST}transfer-encoding: chunked;q=1||0||{NEXT}", 501),
    refused("chunked,", f"{POST}transfer-encoding: chunked,||0||{NEXT}", 501),
    refused(",chunked", f"{POST}transfer-encoding: ,chunked||0||{NEXT}", 501),
    refused('"chunked"', f'{POST}transfer-encoding: "chunked"||0||{NEXT}', 501),
    refused("chunked with nul", f"{POST}transfer-encoding: chunked\0||0||{NEXT}"),
    refused("chunked with form feed", f"{POST}transfer-encoding: \fchunked||0||{NEXT}"),
    refused("chunked with no-break space", f"{POST}transfer-encoding: \xa0chunked||0||{NEXT}", 501),
    refused("long s", f"{POST}transfer-encoding: chunk\xc5\xbfed||0||{NEXT}", 501),
    refused("empty", f"{POST}transfer-encoding:||0||{NEXT}", 501),
    refused("HTTP/1.0", f"POST /a HTTP/1.0|{HOST}transfer-encoding: chunked||0||{NEXT}"),
    refused(
        "HTTP/1.0 kept alive", f"POST /a HTTP/1.0|{HOST}connection: keep-alive|transfer-encoding: chunked||0||{NEXT}"
    ),
    served("underscore in name", f"{POST}transfer_encoding: chunked||", "POST /a"),
]

CHUNKS = [
    served("upper case", f"{CHUNKED}A|hellohello|0||", "POST /a [hellohello]"),
    served("leading zeros", f"{CHUNKED}005|hello|000||", "POST /a [hello]"),
    served("extension", f"{CHUNKED}5;a=b|hello|0;c||", "POST /a [hello]"),
    served("quoted extension", f'{CHUNKED}5;a="b;c"|hello|0||', "POST /a [hello]"),
    served("trailer", f"{CHUNKED}5|hello|0|x: 1||", "POST /a [hello]"),
    broken("negative", f"{CHUNKED}-5|hello|0||"),
    broken("plus", f"{CHUNKED}+5|hello|0||"),
    broken("hexadecimal prefix", f"{CHUNKED}0x5|hello|0||"),
    broken("no size", f"{CHUNKED}|hello|0||"),
    broken("no digit", f"{CHUNKED}g|hello|0||"),
    broken("digit and more", f"{CHUNKED}5g|hello|0||"),
    broken("space before", f"{CHUNKED} 5|hello|0||"),
    served("space after", f"{CHUNKED}5 |hello|0||", "POST /a [hello]"),
    served("tab after", f"{CHUNKED}5\t|hello|0||", "POST /a [hello]"),
    broken("space within", f"{CHUNKED}1 0|hellohellohello!|0||"),
    broken("nul after", f"{CHUNKED}5\0|hello|0||"),
    broken("underscore", f"{CHUNKED}1_0|hellohellohello!|0||"),
    broken("2**64", f"{CHUNKED}10000000000000000|hello|0||"),
    broken("2**64 + 5", f"{CHUNKED}10000000000000005|hello|0||"),
    broken("of 1000 digits", f"{CHUNKED}{'f' * 1000}|hello|0||"),
    served("of 1000 zeros", f"{CHUNKED}{'0' * 1000}5|hello|0||", "POST /a [hello]"),
    waiting("2**63 - 1", f"{CHUNKED}7fffffffffffffff|hello|0||", "POST /a cut"),
    served("extension of 1 MB", f"{CHUNKED}5;{'a' * 1_000_000}|hello|0||", "POST /a [hello]"),
    broken("extension with carriage return", f"{CHUNKED}5;a\rb|hello|0||"),
    broken("extension with line feed", f"{CHUNKED}5;a\nb|hello|0||"),
    broken("extension with line feed only", f"{CHUNKED}5;\nhello|0||"),
    served("extension with nul", f"{CHUNKED}5;a\0b|hello|0||", "POST /a [hello]"),
    served("extensions of many chunks", f"{CHUNKED}{('1;' + 'a' * 4000 + '|x|') * 250}0||", "POST /a [250]"),
    broken("line feed after size", f"{CHUNKED}5\nhello|0||"),
    broken("carriage return after size", f"{CHUNKED}5\rhello|0||"),
    broken("two carriage returns after size", f"{CHUNKED}5\r|hello|0||"),
    broken("line feed after data", f"{CHUNKED}5|hello\n0||"),
    broken("carriage return after data", f"{CHUNKED}5|hello\r0||"),
    broken("nothing after data", f"{CHUNKED}5|hello0||"),
    broken("nothing after data, then a chunk", f"{CHUNKED}5|hello5|world|0||"),
    broken("too long", f"{CHUNKED}5|hello, world|0||"),
    broken("too short", f"{CHUNKED}5|hell|0||"),
    broken("two bytes for the line's end", f"{CHUNKED}5|helloXX0||"),
    broken("line feed after last", f"{CHUNKED}5|hello|0\n\n"),
    served("line feed ends the body", f"{CHUNKED}5|hello|0|\n", "POST /a [hello]"),
    broken("line feeds only", f"{CHUNKED}5\nhello\n0\n\n"),
    broken("next request for the last chunk", f"{CHUNKED}5|hello|{NEXT}"),
    waiting("no last chunk", f"{CHUNKED}5|hello|", "POST /a cut"),
    waiting("no line after last chunk", f"{CHUNKED}5|hello|0|", "POST /a cut"),
    waiting("no data", f"{CHUNKED}5|", "POST /a cut"),
    waiting("no size yet", f"{CHUNKED}", "POST /a cut"),
]

TRAILERS = [
    served("several", f"{CHUNKED}0|x: 1|y: 2||", "POST /a"),
    served("content-length", f"{CHUNKED}0|content-length: 46||{NEXT}", "POST /a", SMUGGLED),
    served("transfer-encoding", f"{CHUNKED}0|transfer-encoding: chunked||{NEXT}", "POST /a", SMUGGLED),
    served("host", f"{CHUNKED}0|host: b||", "POST /a"),
    served("authorization", f"{CHUNKED}0|authorization: me||", "POST /a"),
    broken("no colon", f"{CHUNKED}0|x||"),
    broken("no name", f"{CHUNKED}0|: 1||"),
    broken("space before colon", f"{CHUNKED}0|x : 1||"),
    broken("space in name", f"{CHUNKED}0|x y: 1||"),
    served("folded", f"{CHUNKED}0|x: 1| 2||", "POST /a"),
    broken("nul", f"{CHUNKED}0|x: \0||"),
    served("carriage return", f"{CHUNKED}0|x: 1\r2||", "POST /a"),
    served("line feed", f"{CHUNKED}0|x: 1\ny: 2||", "POST /a"),
    broken("pseudo-header", f"{CHUNKED}0|:path: /b||"),
    broken("request for a trailer", f"{CHUNKED}0|{NEXT}"),
    broken("of 100 kB", f"{CHUNKED}0|x: {'1' * 100_000}||", 431),
    broken("10,000 of them", f"{CHUNKED}0|{'x: 1|' * 10_000}|", 431),
]

PIPELINES = [
    served("two", f"{GET}|{GET}|", "GET /a", "GET /a"),
    served("with a body", f"{POST}content-length: 5||hello{GET}|", "POST /a [hello]", "GET /a"),
    served("with an empty line between", f"{POST}content-length: 5||hello|{GET}|", "POST /a [hello]", "GET /a"),
    served("with a carriage return between", f"{POST}content-length: 5||hello\r{GET}|", "POST /a [hello]", "GET /a"),
    served("of 50", f"{GET}|" * 50, *["GET /a"] * 50),
    served("after connection: close", f"{GET}connection: close||{NEXT}", "GET /a", end=CLOSED),
    served("after Connection: Close", f"{GET}Connection: Close||{NEXT}", "GET /a", end=CLOSED),
    served("after close in a list", f"{GET}connection: x, close||{NEXT}", "GET /a", end=CLOSED),
    served("after HTTP/1.0", f"GET /a HTTP/1.0|{HOST}|{NEXT}", "GET /a", end=CLOSED),
    Row("garbage after a request", (raw(f"{GET}|\1\2\3||"),), ("200", "400"), ("GET /a",), CLOSED),
    Row("garbage after an answer", (raw(f"{GET}|"), ANSWERED, raw("\1\2\3||")), ("200", "400"), ("GET /a",), CLOSED),
    Row(
        "garbage after a body",
        (raw(f"{POST}content-length: 5||hello\1\2\3||"),),
        ("200", "400"),
        ("POST /a [hello]",),
        CLOSED,
    ),
    Row("no host in the second", (raw(f"{GET}|GET /b HTTP/1.1||"),), ("200", "400"), ("GET /a",), CLOSED),
    Row(
        "before an unread body",
        (raw(f"POST /deaf HTTP/1.1|{HOST}content-length: 46||{NEXT}"),),
        ("200",),
        ("POST /deaf",),
        CLOSED,
    ),
    Row("after an answer that closes", (raw(f"GET /bye HTTP/1.1|{HOST}|{NEXT}"),), ("200",), ("GET /bye",), CLOSED),
]

WISHES = [
    served("Expect: 100-continue", f"{POST}expect: 100-continue|content-length: 5||hello", "POST /a [hello]"),
    served("Expect: 100-Continue", f"{POST}expect: 100-Continue|content-length: 5||hello", "POST /a [hello]"),
    served("Expect without body", f"{GET}expect: 100-continue||", "GET /a"),
    served(
        "Expect with HTTP/1.0",
        f"POST /a HTTP/1.0|{HOST}expect: 100-continue|content-length: 5||hello",
        "POST /a [hello]",
        end=CLOSED,
    ),
    served("Expect unknown", f"{POST}expect: more|content-length: 5||hello", "POST /a [hello]"),
    served(
        "Upgrade: h2c", f"{GET}connection: upgrade, http2-settings|upgrade: h2c|http2-settings: AAMAAABk||", "GET /a"
    ),
    served("Upgrade unknown", f"{GET}connection: upgrade|upgrade: x||", "GET /a"),
    served("Upgrade without connection", f"{GET}upgrade: h2c||", "GET /a"),
    served(
        "connection that names content-length",
        f"{POST}connection: content-length|content-length: 5||hello",
        "POST /a [hello]",
    ),
    refused("connection that names host", f"{GET}connection: host||"),
    served("connection of commas", f"{GET}connection: ,,,||", "GET /a"),
    served("TE", f"{GET}te: trailers||", "GET /a"),
    served("TE unknown", f"{GET}te: gzip;q=2, x||", "GET /a"),
    served("proxy-connection", f"{GET}proxy-connection: keep-alive||", "GET /a"),
    served("keep-alive", f"{GET}keep-alive: timeout=9999999||", "GET /a"),
    served("trailer", f"{GET}trailer: content-length||", "GET /a"),
    served("x-forwarded", f'{GET}x-forwarded-proto: gopher|x-forwarded-host: b|forwarded: for="||', "GET /a"),
    served("x-envoy", f"{GET}x-envoy-original-path: /b|x-envoy-upstream-rq-timeout-ms: 1||", "GET /a"),
]

TLS_HELLO = "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + "\x5a" * 150

PREFACES = [
    refused("TLS", TLS_HELLO),
    waiting("SSLv2", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + "\x5a" * 40),
    refused("SOCKS", "\x05\x01\x00||"),
    refused("SSH", "SSH-2.0-OpenSSH_9.6||"),
    refused("SMTP", "EHLO a||"),
    refused("PROXY", f"PROXY TCP4 1.2.3.4 1.2.3.4 1 1|{GET}|"),
    refused("Redis", "*1|$4|PING|"),
    refused("HTTP/2 of another version", "PRI * HTTP/3.0||SM||"),
    dropped("HTTP/2 with a word wrong", "PRI * HTTP/2.0||XX||"),
    dropped("HTTP/2 and a request", f"PRI * HTTP/2.0|{HOST}|"),
]

OPEN = raw(f"{POST}content-length: 5||")
POINTS: dict[str, tuple[bytes | Step, ...]] = {
    "at once": (),
    "in the method": (b"GE",),
    "in the target": (b"GET /a",),
    "after the request line": (b"GET /a HTTP/1.1\r\n",),
    "in a field": (b"GET /a HTTP/1.1\r\nhost",),
    "before the last line": (b"GET /a HTTP/1.1\r\nhost: a\r\n",),
    "in the last line": (b"GET /a HTTP/1.1\r\nhost: a\r\n\r",),
}
CALLED_POINTS: dict[str, tuple[bytes | Step, ...]] = {
    "after the head": (OPEN, CALLED),
    "in the body": (OPEN + b"he", CALLED),
    "in a chunk's size": (raw(CHUNKED) + b"5", CALLED),
    "in a chunk": (raw(CHUNKED) + b"5\r\nhe", CALLED),
    "before the last chunk": (raw(CHUNKED) + b"5\r\nhello\r\n", CALLED),
    "in the last chunk": (raw(CHUNKED) + b"5\r\nhello\r\n0\r\n", CALLED),
    "in a trailer": (raw(CHUNKED) + b"0\r\nx: ", CALLED),
}

ENDS = [
    *(Row(f"half-closed {at}", (*steps, HALF_CLOSE), (), (), CLOSED) for at, steps in POINTS.items()),
    *(Row(f"reset {at}", (*steps, RESET), (), (), CLOSED) for at, steps in POINTS.items()),
    *(
        Row(f"half-closed {at}", (*steps, HALF_CLOSE), (), ("POST /a cut",), CLOSED)
        for at, steps in CALLED_POINTS.items()
    ),
    *(Row(f"reset {at}", (*steps, RESET), (), ("POST /a cut",), CLOSED) for at, steps in CALLED_POINTS.items()),
    Row("reset after an answer", (raw(f"{GET}|"), ANSWERED, RESET), ("200",), ("GET /a",), CLOSED),
    Row("half-closed after an answer", (raw(f"{GET}|"), ANSWERED, HALF_CLOSE), ("200",), ("GET /a",), CLOSED),
]

TABLE = by_front(
    {
        "request line": REQUEST_LINES,
        "version": VERSIONS,
        "method": METHODS,
        "target": TARGETS,
        "host": HOSTS,
        "field": FIELDS,
        "content-length": LENGTHS,
        "transfer-encoding": CODINGS,
        "chunk": CHUNKS,
        "trailer": TRAILERS,
        "pipeline": PIPELINES,
        "wish": WISHES,
        "preface": PREFACES,
        "end": ENDS,
    },
    upstream_answers.HTTP1,
)


async def converse(server: Server, row: Row) -> Outcome:
    answers: list[str] = []
    async with await Http1Connection.open(server.port) as connection:
        port = connection.local_port
        await forget(server, port)

        async def answered() -> bool:
            head = not answers and isinstance(row.steps[0], bytes) and row.steps[0].startswith(b"HEAD")
            try:
                response = await Http1Exchange(connection, "HEAD" if head else "GET").response()
            except ResponseCut:
                return False
            answers.append(str(response.status))
            return True

        for step in row.steps:
            match step:
                case Step.CALLED:
                    await called(server, port, 1)
                case Step.ANSWERED:
                    assert await answered()
                case Step.HALF_CLOSE:
                    connection.sock.shutdown(socket.SHUT_WR)
                case Step.RESET:
                    await connection.abort()
                    return Outcome(tuple(answers), await calls_of(server, port, len(row.calls)), CLOSED)
                case bytes():
                    with contextlib.suppress(ConnectionError):  # the server may have had enough
                        await connection.write(step)
        while len(answers) < len(row.answers) and await answered():
            pass
        if row.end is WAITS:
            connection.sock.shutdown(socket.SHUT_WR)
        elif row.end is KEPT:
            calls = await calls_of(server, port, len(row.calls))
            assert (await connection.get("/next")).body == b"seen"
            return Outcome(tuple(answers), calls, KEPT)
        while await answered():
            pass
        # What is no whole response must not be there either.
        assert connection.buffer == b""
        return Outcome(tuple(answers), await calls_of(server, port, len(row.calls)), row.end)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """It closes no connection for being idle before the test gives up."""
    with serve(f"{__name__}:app", timeout_keep_alive=2 * DEADLINE) as server:
        yield server


@pytest.fixture(name="outcomes", scope="module")
def outcomes_fixture(request: pytest.FixtureRequest, server: Server) -> dict[Row, Outcome | Exception]:
    return outcomes(request, server, converse)


@each(TABLE)
def test_request(row: Row, outcomes: dict[Row, Outcome | Exception]) -> None:
    check(row, outcomes[row])


# --- Slow clients ---

CUT = ("POST /a cut",)

SLOW = [
    Row("nothing", (b"",), (), (), CLOSED),
    Row("request line", (b"GET /a",), ("408",), (), CLOSED),
    Row("field", (b"GET /a HTTP/1.1\r\nhost: a\r\nx",), ("408",), (), CLOSED),
    Row("last line", (b"GET /a HTTP/1.1\r\nhost: a\r\n",), ("408",), (), CLOSED),
    Row("body", (OPEN + b"he",), ("408",), CUT, CLOSED),
    Row("chunk's size", (raw(CHUNKED),), ("408",), CUT, CLOSED),
    Row("chunk", (raw(CHUNKED) + b"5\r\nhe",), ("408",), CUT, CLOSED),
    Row("trailer", (raw(CHUNKED) + b"0\r\nx",), ("408",), CUT, CLOSED),
    Row("next head", (raw(f"{GET}|GET /a"),), ("200", "408"), ("GET /a",), CLOSED),
]


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """Only once a request has begun: what is asked of the application comes on connections of its own."""
    with serve(f"{__name__}:app", timeout_request_headers=0.3, timeout_idle=0.3) as server:
        yield server


@pytest.fixture(scope="module")
def let_go(impatient: Server) -> dict[Row, Outcome | Exception]:
    """All at once, since one waits for the keep-alive time-out."""
    return asyncio.run(converse_all(impatient, SLOW, converse))


@pytest.mark.parametrize("slow", SLOW, ids=lambda row: row.name)
def test_stalled_request_is_let_go(let_go: dict[Row, Outcome | Exception], slow: Row) -> None:
    check(slow, let_go[slow])


@pytest.mark.parametrize("request_line", [b"GET /a HTTP/1.1\r\nx: ", b"GET /"])
async def test_dripping_head_is_let_go(impatient: Server, request_line: bytes) -> None:
    async with await Http1Connection.open(impatient.port) as connection:
        await connection.write(request_line)
        answer = asyncio.ensure_future(Http1Exchange(connection).response())
        while not answer.done():
            with contextlib.suppress(ConnectionError):
                await connection.write(b"a")
            await asyncio.sleep(0.01)
        with contextlib.suppress(ResponseCut):
            assert (await answer).status == 408
        await connection.ended()


# --- A port that speaks TLS ---

NO_TLS = {
    "request": raw(f"{GET}|"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "PROXY": raw(f"PROXY TCP4 1.2.3.4 1.2.3.4 1 1|{GET}|"),
    "random": bytes(range(256)),
    "empty record": b"\x16\x03\x01\x00\x00",
    "record of 64 kB": b"\x16\x03\x01\xff\xff" + b"\x01" * 65535,
    "application data": b"\x17\x03\x03\x00\x10" + b"\x5a" * 16,
    "hello without extensions": TLS_HELLO.encode("latin-1"),
}


@pytest.fixture(scope="module")
def secure(pair: Pair) -> Iterator[Server]:
    with serve(f"{__name__}:app", **pair.options, timeout_keep_alive=3) as server:
        yield server


@of_envoy("it has no TLS")
@pytest.mark.parametrize("name", NO_TLS)
async def test_what_is_no_tls_ends_its_connection(secure: Server, name: str) -> None:
    async with await Http1Connection.open(secure.port) as connection:
        with contextlib.suppress(ConnectionError):
            await connection.write(NO_TLS[name])
        while await connection.more():
            pass
        # At most an alert.
        assert connection.buffer[:1] in (b"", b"\x15")
    async with await Http1Connection.open(secure.port, Tls()) as connection:
        assert (await connection.get("/a")).body == b"seen"


async def test_nothing_is_left_of_them(server: Server, outcomes: dict[Row, Outcome | Exception]) -> None:
    assert (await account(server))["all"] == 0
