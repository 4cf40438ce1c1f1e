"""The lines of the ASGI specifications, and the page that says which tests hold the server to them.

A test names its lines by `@pytest.mark.conforms("http.scope.path")`. Two runs make docs/conformance.md, one on Envoy
and one without; the one that ends last writes it. The one on Envoy fails if a line has no test on a protocol that it
applies to.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.folders import ROOT, TESTS
from py_tests.harness.protocols import is_spoken
from py_tests.harness.serving import ENVOY, FRONT, OWN

PAGE = ROOT / "docs" / "conformance.md"

RESULTS = {front: ROOT / "target" / f"conformance-{front}.json" for front in (ENVOY, OWN)}
"""Where a run leaves what came of it."""

PROTOCOLS: dict[str | None, str] = {
    "http/1.0": "HTTP/1.0",
    "http/1.1": "HTTP/1.1",
    "http/2": "HTTP/2",
    "http/3": "HTTP/3",
}
HTTP1 = ("http/1.1",)
STREAMS = ("http/2", "http/3")
ALL = HTTP1 + STREAMS
EVERY = ("http/1.0", *ALL)


@dataclass(frozen=True)
class Line:
    id: str
    words: str
    protocols: tuple[str, ...] = ALL
    """Those that it applies to."""


PARTS = {
    "Core": [
        Line("core.call", "The application is called once for each request, in an asyncio task of its own"),
        Line("core.scope", "Each call has a `scope` of its own; what it changes there, no other call sees"),
        Line("core.versions", '`scope["asgi"]` has `version` and `spec_version`'),
        Line("core.messages", "Messages are dicts with text as keys and plain values"),
        Line("core.asgi2", "Applications of two callables, as in ASGI 2, are served", HTTP1),
        Line("core.wrong_message", "`send` raises on an unknown type, a missing key, a value of the wrong type"),
        Line("core.extra_keys", "Keys that the specification does not know are tolerated"),
        Line("core.exception", "What the application raises is logged and ends its own exchange only"),
        Line("core.closed", "The error of a `send` to a client that has gone is not logged"),
        Line("core.extensions", '`scope["extensions"]` names each extension, with a dict'),
    ],
    "HTTP scope": [
        Line("http.scope.type", "`type` is `http`; every key is of its specified type", EVERY),
        Line("http.scope.http_version", '`http_version` is "1.0", "1.1", "2" or "3"', EVERY),
        Line("http.scope.method", "`method` is in upper case"),
        Line("http.scope.scheme", "`scheme` is `http`, or `https` under TLS"),
        Line("http.scope.path", "`path` is percent-decoded UTF-8, with U+FFFD for what is not UTF-8", EVERY),
        Line("http.scope.raw_path", "`raw_path` is the path as it came, without the query", EVERY),
        Line("http.scope.query_string", "`query_string` is the query as it came", EVERY),
        Line("http.scope.root_path", "`root_path` is what the server was told, and `path` begins with it"),
        Line("http.scope.headers", "`headers` are pairs of bytes, in order of arrival, repeats kept", EVERY),
        Line("http.scope.header_names", "Names of headers are in lower case, and no pseudo-header is among them"),
        Line("http.scope.host", "`:authority` is `host`, comes first and replaces any other", STREAMS),
        Line("http.scope.cookies", "Cookies are joined with `; ` if they are joined at all"),
        Line("http.scope.client", "`client` is the address and port of the client"),
        Line("http.scope.server", "`server` is the address and port that the client asked, or a path and None"),
        Line("http.scope.state", "`state` is a shallow copy of the lifespan's, for each request"),
    ],
    "HTTP events": [
        Line("http.request.message", "`http.request` has `body` and `more_body`", EVERY),
        Line("http.request.chunked", "Chunked bodies are decoded", HTTP1),
        Line("http.request.pieces", "A body comes piece by piece, in order and whole"),
        Line("http.request.trailers", "Trailers of a request end its body and do no harm"),
        Line("http.request.slow", "An application that does not read makes the client wait"),
        Line("http.request.continue", "`100 Continue` is sent when the application first receives, and not before"),
        Line("http.request.no_continue", "`100 Continue` is not sent if the application answers first", EVERY),
        Line("http.disconnect.client", "`receive` gives `http.disconnect` when the client has gone"),
        Line("http.disconnect.end", "`receive` waits after the body, and gives `http.disconnect` after the response"),
        Line("http.response.order", "A response is one start and then its body; another order raises"),
        Line("http.response.held", "The head may wait for the first piece of the body; then both leave"),
        Line("http.response.headers", "Response headers keep their order and repeats"),
        Line("http.response.names", "Names of response headers are in lower case, pseudo-headers raise"),
        Line("http.response.values", "Line ends and NUL in names and values raise"),
        Line("http.response.set_cookie", "`set-cookie` fields are never merged"),
        Line("http.response.framing", "`transfer-encoding` and other fields of the connection are the server's", EVERY),
        Line("http.response.no_body", "Responses to HEAD, and 204 and 304, have no body", EVERY),
        Line("http.response.length", "The application's `content-length` is kept", EVERY),
        Line("http.response.short", "A body shorter than its `content-length` cuts the response", EVERY),
        Line("http.response.long", "A body longer than its `content-length` raises and does not leave", EVERY),
        Line("http.response.incomplete", "An application that ends before its response: 500, or a cut response", EVERY),
        Line("http.response.slow", "`send` waits for a client that reads slowly"),
        Line("http.response.pieces", "Each piece of a response leaves when it is sent"),
        Line("http.response.duplex", "Request and response flow at the same time"),
        Line("http.send.end", "Messages after the end of the response are ignored"),
        Line("http.send.disconnect", "`send` to a client that has gone raises an `OSError`"),
    ],
    "Lifespan": [
        Line("lifespan.scope", "The lifespan scope has `type`, `asgi` and an empty `state`", ()),
        Line("lifespan.once", "Startup and shutdown come once, in the loop that serves", ()),
        Line("lifespan.unsupported", "An application that raises on lifespan is served without it", ()),
        Line("lifespan.startup", "No connection is accepted before `lifespan.startup.complete`", ()),
        Line("lifespan.startup.failed", "`lifespan.startup.failed`: its message is logged and the server ends", ()),
        Line("lifespan.shutdown", "`lifespan.shutdown` comes after the last request; its answer is waited for", ()),
        Line("lifespan.shutdown.failed", "`lifespan.shutdown.failed`: its message is logged and the server ends", ()),
        Line("lifespan.state", "Each request has a shallow copy of the lifespan's `state`", ()),
    ],
    "WebSocket scope": [
        Line("websocket.scope.type", "`type` is `websocket`; the keys are of their specified types, without `method`"),
        Line("websocket.scope.http_version", '`http_version` is "1.1", "2" or "3"'),
        Line("websocket.scope.scheme", "`scheme` is `ws`, or `wss` under TLS"),
        Line("websocket.scope.path", "`path`, `raw_path`, `query_string` and `root_path` are as for HTTP"),
        Line("websocket.scope.headers", "`headers` are as for HTTP"),
        Line("websocket.scope.addresses", "`client` and `server` are as for HTTP"),
        Line("websocket.scope.subprotocols", "`subprotocols` are those that the client offers, in its order"),
        Line("websocket.scope.extensions", "`extensions` has `websocket.http.response`, and none of HTTP's responses"),
        Line("websocket.scope.state", "`state` is a shallow copy of the lifespan's, the same as HTTP's"),
    ],
    "WebSocket events": [
        Line("websocket.connect", "`websocket.connect` comes first; the handshake waits for the application's answer"),
        Line("websocket.accept", "`websocket.accept` completes the handshake"),
        Line("websocket.accept.subprotocol", "It may choose a subprotocol; one that was not offered raises"),
        Line("websocket.accept.headers", "It may add headers, but not `sec-websocket-protocol`"),
        Line("websocket.refuse", "`websocket.close` before that is answered by 403"),
        Line("websocket.receive", "`websocket.receive` is a whole message, as one of `bytes` and `text`"),
        Line("websocket.send", "`websocket.send` has one of `bytes` and `text`; both or none raises"),
        Line("websocket.frames", "The server answers pings and puts fragments together"),
        Line("websocket.disconnect", "`websocket.disconnect` has the client's `code` and `reason`; 1005 without one"),
        Line("websocket.disconnect.gone", "Its `code` is 1006 if the client went without a close frame"),
        Line("websocket.disconnect.last", "Messages that came before it are received before it, and none after it"),
        Line("websocket.close", "`websocket.close`: `code` is 1000 and `reason` empty unless they are given"),
        Line("websocket.closed", "`send` after the end raises an `OSError`, which is not logged"),
        Line("websocket.order", "Messages in another order, of wrong types or of unknown ones raise"),
        Line("websocket.return", "An application that returns closes with 1000; before it accepts, with 500"),
        Line("websocket.raise", "One that raises is logged and closes with 1011; before it accepts, with 500"),
        Line("websocket.slow.client", "`send` waits for a client that reads slowly"),
        Line("websocket.slow.application", "An application that does not receive makes the client wait"),
        Line("websocket.shutdown", "When the server stops, client and application are told 1012"),
    ],
    "WebSocket denial response": [
        Line("denial.sent", "`websocket.http.response.start` and `.body` answer the handshake"),
        Line("denial.pieces", "The body may come in pieces, which leave when they are sent"),
        Line("denial.end", "The application then receives `websocket.disconnect`"),
        Line("denial.order", "Start comes once, instead of accept and close, and then its body; another order raises"),
    ],
    "TLS extension": [
        Line("tls.absent", "There is no `tls` without TLS", EVERY[:3]),
        Line("tls.present", "Under TLS there is, with all its keys", ALL),
        Line("tls.tls_version", "`tls_version` is the version's number"),
        Line("tls.cipher_suite", "`cipher_suite` is the suite's number", ALL),
        Line("tls.server_cert", "`server_cert` is PEM or None"),
        Line("tls.client_cert_chain", "`client_cert_chain` is a list of PEM, the client's own certificate first"),
        Line("tls.client_cert_name", "`client_cert_name` is the subject as in RFC 4514, or None"),
        Line("tls.client_cert_error", "`client_cert_error` is None: what cannot be verified is refused"),
        Line("tls.forged", "What a client says of certificates in headers changes nothing, and arrives as sent"),
    ],
    "Other extensions": [
        Line("trailers.sent", "`http.response.trailers`: sent after the body", ALL),
        Line("trailers.more", "`more_trailers`: several messages make up the trailers", ALL),
        Line("trailers.te", "Trailers go only to clients that sent `te: trailers`", EVERY),
        Line("trailers.wait", "With `trailers` in the start the response ends with the trailers, not the body", ALL),
        Line("trailers.names", "Names of trailers are in lower case, pseudo-headers raise", ALL),
        Line("early_hint.sent", "`http.response.early_hint`: 103 with its links, any number of times", ALL),
        Line("early_hint.late", "Early hints after the head has left are ignored, and on HTTP/1.0", EVERY),
        Line("pathsend.sent", "`http.response.pathsend`: the file at the absolute path", EVERY),
        Line("pathsend.alone", "It comes once, and never with another body", ALL),
        Line("pathsend.headers", "The headers are the application's; what they say of the length holds", EVERY),
        Line("zerocopysend.sent", "`http.response.zerocopysend`: `file`, from `offset`, `count` bytes", EVERY),
        Line("zerocopysend.mixed", "`more_body`: it may come several times, and between pieces of body", ALL),
        Line("zerocopysend.open", "The server does not close the file", ALL),
        Line("push", "`http.response.push`: not advertised", EVERY),
        Line("debug", "`http.response.debug`: not advertised, as servers should not", EVERY),
    ],
}

LINES = {line.id: line for lines in PARTS.values() for line in lines}


def protocol_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("protocol") if callspec else None


@dataclass
class Result:
    """What came of a line's tests on one protocol, by their files and names."""

    tests: dict[tuple[Path, str], bool] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.tests:
            return "—"
        return "pass" if all(self.tests.values()) else "**FAIL**"

    def saved(self, line: str, protocol: str | None) -> list[Any]:
        """As JSON has it."""
        tests = [[str(file.relative_to(TESTS)), name, passed] for (file, name), passed in self.tests.items()]
        return [line, protocol, tests]


class Conformance:
    """The plugin that gathers the results."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.results: defaultdict[tuple[str, str | None], Result] = defaultdict(Result)
        self.marked: dict[str, list[tuple[str, str | None]]] = {}
        self.names: dict[str, tuple[Path, str]] = {}
        self.left: set[str] = set()
        self.whole = True
        self.missing: list[str] = []

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        # Of some of the cases each test is left.
        some = FRONT == OWN and self.config.getoption("--every") > 1
        self.whole &= some or not any(map(is_spoken, items))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            if keys := list(self.keys(item)):
                self.marked[item.nodeid] = keys
                self.names[item.nodeid] = (item.path, getattr(item, "originalname", item.name))
        self.left = {item.nodeid for item in session.items}
        files = {path for path in TESTS.rglob("test_*.py") if "mark.conforms(" in path.read_text()}
        self.whole &= files <= {item.path for item in session.items} and not any(
            "::" in arg for arg in self.config.args
        )

    def keys(self, item: pytest.Item) -> Iterator[tuple[str, str | None]]:
        """The lines that a test is about, each with the protocol that it speaks."""
        for mark in item.iter_markers("conforms"):
            on = [protocol_of(item)] if protocol_of(item) else mark.kwargs.get("on", ())
            for name in mark.args:
                if name not in LINES:
                    raise pytest.UsageError(f"{item.nodeid} is about `{name}`, which is no line of conformance.py")
                if not LINES[name].protocols:
                    yield name, None
                elif not on:
                    raise pytest.UsageError(f"{item.nodeid} does not say which protocol it speaks")
                else:
                    yield from ((name, protocol) for protocol in on)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self.left.discard(report.nodeid)
        # What was skipped shows nothing; nor does a set-up or an end that went well.
        if report.failed or (report.when == "call" and report.passed):
            for key in self.marked.get(report.nodeid, []):
                tests, name = self.results[key].tests, self.names[report.nodeid]
                tests[name] = report.passed and tests.get(name, True)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self.whole or self.left or not self.marked:
            return
        if FRONT == ENVOY:
            self.missing = [
                f"{line.id} on {protocol or 'any protocol'}"
                for line in LINES.values()
                for protocol in line.protocols or (None,)
                if not self.results[line.id, protocol].tests
            ]
            if self.missing and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        RESULTS[FRONT].write_text(json.dumps([result.saved(*key) for key, result in self.results.items()]))
        if all(file.exists() for file in RESULTS.values()):
            PAGE.write_text(page(read(ENVOY), read(OWN)))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.missing:
            terminalreporter.section("lines of the specification without a test")
            terminalreporter.write_line("\n".join(self.missing))


Results = defaultdict[tuple[str, str | None], Result]
"""By line and protocol."""


def read(front: str) -> Results:
    """What came of the last run."""
    results: Results = defaultdict(Result)
    for line, protocol, tests in json.loads(RESULTS[front].read_text()):
        results[line, protocol] = Result({(TESTS / file, name): passed for file, name, passed in tests})
    return results


def page(on_envoy: Results, without: Results) -> str:
    return "\n".join([INTRODUCTION, *(row for part in PARTS for row in table(part, on_envoy, without)), ""])


def table(part: str, on_envoy: Results, without: Results) -> Iterator[str]:
    columns = PROTOCOLS if any(line.protocols for line in PARTS[part]) else {None: "Result"}
    heads = ["Line", *columns.values(), "Without Envoy", "Tests"]
    yield f"\n## {part}\n"
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for line in PARTS[part]:
        results = [on_envoy[line.id, column] for column in columns]
        own = Result({test: passed for column in columns for test, passed in without[line.id, column].tests.items()})
        yield f"| {line.words} | {' | '.join(map(str, [*results, own]))} | {tests(results)} |"


def tests(results: Iterable[Result]) -> str:
    """The names of the tests, file by file; those that fail stand out."""
    files: defaultdict[Path, dict[str, bool]] = defaultdict(dict)
    for result in results:
        for (file, name), passed in result.tests.items():
            files[file][name] = passed and files[file].get(name, True)
    return "; ".join(
        f"[{file.stem}](../{file.relative_to(ROOT)}): "
        + ", ".join(shown(name, passed) for name, passed in sorted(names.items()))
        for file, names in sorted(files.items(), key=lambda item: item[0].stem)
    )


def shown(name: str, passed: bool) -> str:
    words = name.removeprefix("test_").replace("_", " ")
    return words if passed else f"**{words}**"


INTRODUCTION = """\
# Conformance

What the ASGI specifications ask of a server, line by line, with the tests that hold aiovoy to it and how they went on
each protocol; and without Envoy (`aiovoy upstream`), on HTTP/1.0, 1.1 and 2 together. A dash: the line does not apply
there, or nothing of its own is to be tested. What differs without Envoy is in [upstream.md](upstream.md#what-differs).
`make test` writes this page; `make conformance` runs only the tests that it is made of.

The specifications are ASGI 3.0, HTTP and WebSocket 2.5, lifespan 2.0 and TLS 0.2, and their list of extensions.
`http` scopes say `spec_version` 2.3 all the same: see [applications.md](applications.md#when-the-client-leaves)."""
