"""The protocols that tests run with: their names, their clients, and the marks by which a test chooses its own."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from py_tests.harness.certificates import Pair
from py_tests.harness.exchange import Connection
from py_tests.harness.http1 import Http1Connection, Http10Connection
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.serving import FRONT, OWN, UNDER_TEST, UVICORN

Connect = Callable[..., Awaitable[Connection]]
"""The fixture `connect`."""

HTTP10, HTTP1, HTTP2, HTTP3 = "http/1.0", "http/1.1", "http/2", "http/3"

CLIENTS: dict[str, type[Http1Connection] | type[Http2Connection]] = {
    HTTP10: Http10Connection,
    HTTP1: Http1Connection,
    HTTP2: Http2Connection,
}

http3_too = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)
"""For tests of what is another thing on HTTP/3; the others run with HTTP/1.1 and 2."""

every_protocol = pytest.mark.protocols(HTTP10, HTTP1, HTTP2, HTTP3)
"""For tests that HTTP/1.0 matters to, too."""

SPOKEN = [HTTP10, HTTP1] if UNDER_TEST == UVICORN else [HTTP10, HTTP1, HTTP2] if FRONT == OWN else [*CLIENTS, HTTP3]
"""By the server under test."""


def protocols(test: pytest.Item) -> list[str]:
    """Those that the test is marked with; else HTTP/1.1 and 2, and 3 where a line of the specification is tested."""
    if mark := test.get_closest_marker("protocols"):
        chosen = list(mark.args)
    elif test.get_closest_marker("conforms"):
        chosen = [HTTP1, HTTP2, HTTP3]
    else:
        chosen = [HTTP1, HTTP2]
    return [one for one in chosen if one in SPOKEN]


def http3_options(pair: Pair) -> dict[str, Any]:
    """What a server needs to speak HTTP/3, if it does, on another port than HTTP in the clear."""
    return {**pair.options, "ssl_port": 0, "http3": True} if HTTP3 in SPOKEN else {}


def is_spoken(test: pytest.Item) -> bool:
    """Whether a test has a protocol that the server under test speaks."""
    return bool(protocols(test))
