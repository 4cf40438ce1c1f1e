"""Where `aiovoy upstream` has other answers to hostile clients than Envoy, and why.

It is stricter with HTTP/1.1, and names the errors of HTTP/2 as the crate `h2` does.
"""

from py_tests.harness.hostile import CLOSED, KEPT, End, Instead, Outcome


def instead(reason: str, answers: tuple[str, ...], rows: tuple[str, ...], *calls: str, end: End = CLOSED) -> Instead:
    return Instead(reason, Outcome(answers, calls, end), rows)


def of(group: str, *rows: str) -> tuple[str, ...]:
    return tuple(f"{group}: {row}" for row in rows)


HTTP1 = [
    instead(
        "one space stands between the words of a request line (RFC 9112, section 3)",
        ("400",),
        of(
            "request line",
            "two spaces after method",
            "two spaces before version",
            "space after version",
            "tab for space",
        )
        + of("target", "tab for the path's end"),
    ),
    instead(
        "lines end with CR LF, and CR stands nowhere else (RFC 9112, section 2.2)",
        ("400",),
        of(
            "request line",
            "line feeds only",
            "line feed ends the request line",
            "line feed ends the head",
            "two carriage returns",
            "carriage returns only",
            "carriage return before",
        )
        + of(
            "field",
            "carriage return in value",
            "carriage return at the value's end",
            "carriage return before the value",
            "carriage return, then a field",
            "line feed ends a field",
            "line feed, then transfer-encoding",
            "line feeds end the head",
        )
        + of("transfer-encoding", "CL.TE with carriage return"),
    ),
    instead(
        "likewise",
        ("200", "400"),
        of("pipeline", "with a carriage return between"),
        "POST /a [hello]",
    ),
    instead(
        "folded lines are refused, as a server may (RFC 9112, section 5.2)",
        ("400",),
        of(
            "field",
            "folded",
            "folded with tab",
            "folded empty",
            "folded content-length",
            "folded transfer-encoding",
        ),
    ),
    instead(
        "HTTP/1.0 and 1.1 are spoken on these connections, and no other version",
        ("400",),
        of("request line", "no version and no fields", "no version")
        + of("version", "HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"),
    ),
    instead(
        "what a method needs is for the application to say",
        ("200",),
        of("method", "QUERY without content-type"),
        "QUERY /a",
        end=KEPT,
    ),
    instead("a target has a path", ("400",), of("target", "absolute with query only")),
    instead("no host has a user (RFC 9110, section 4.2.4)", ("400",), of("target", "absolute with user")),
    instead(
        "there are no tunnels, to wherever",
        ("501",),
        of("target", "CONNECT with path", "CONNECT without port", "CONNECT with a body"),
    ),
    instead(
        "there is one `host` (RFC 9112, section 3.2)",
        ("400",),
        of("host", "twice and absolute target", "twice, first empty", "twice, second empty"),
    ),
    instead(
        "HTTP/1.1 has it, and a good one, whatever the target says (RFC 9112, section 3.2)",
        ("400",),
        of(
            "host",
            "missing with absolute target",
            "space and absolute target",
            "comma and absolute target",
            "missing with CONNECT",
        ),
    ),
    instead(
        "where a body ends is not to be known if its last coding is not `chunked` (RFC 9112, section 6.3)",
        ("400",),
        of(
            "transfer-encoding",
            "twice, second unknown",
            "twice, second identity",
            "chunked, identity",
            "gzip",
            "identity",
            "xchunked",
            "chunkedx",
            "chunked;q=1",
            '"chunked"',
            "chunked with no-break space",
            "long s",
            "empty",
        ),
    ),
    instead("chunked twice is no coding that is not known", ("400",), of("transfer-encoding", "twice")),
    instead("the only coding is `chunked`", ("501",), of("transfer-encoding", "twice, first empty")),
    instead(
        "beside its data a body has 16 KiB at most, and no control characters",
        ("400",),
        of(
            "chunk",
            "of 1000 zeros",
            "extension of 1 MB",
            "extension with nul",
            "extensions of many chunks",
            "line feed ends the body",
        )
        + of("trailer", "folded", "carriage return", "line feed"),
        "POST /a cut",
    ),
    instead(
        "what is not HTTP/2 is HTTP/1",
        ("400",),
        of("preface", "SSLv2", "HTTP/2 with a word wrong", "HTTP/2 and a request"),
    ),
]

HTTP2 = [
    instead(
        "names and values that can't be ones end the connection (RFC 9113, section 8.1.1, lets them)",
        ("GOAWAY PROTOCOL_ERROR",),
        of("pseudo-header", "unknown", "no name", "upper case")
        + of("method", "empty", "request line", "with line end", "with a high byte")
        + of("target", "high byte")
        + of("authority", "high byte")
        + of(
            "field",
            "line end in value",
            "carriage return in value",
            "line feed in value",
            "nul in value",
            "vertical tab in value",
            "backspace in value",
            "delete in value",
            "upper-case name",
            "empty name",
            "space in name",
            "colon in name",
            "line end in name",
            "nul in name",
            "high byte in name",
            "delete in name",
            "parenthesis in name",
        )
        + of("trailer", "upper case", "line end"),
    ),
    instead(
        "the rest of the request is thrown away, not refused",
        ("1: 501",),
        of("method", "CONNECT"),
        end=KEPT,
    ),
    instead(
        "these characters have to be encoded (RFC 3986, sections 3.2.2 and 3.3)",
        ("1: PROTOCOL_ERROR",),
        of("target", "quotes and brackets") + of("authority", "percent"),
        end=KEPT,
    ),
    instead(
        "there are no tunnels, of whatever kind",
        ("1: 501",),
        of("method", "CONNECT with an unknown protocol"),
        end=KEPT,
    ),
    instead("a fragment is cut off before anybody sees it", ("1: 200",), of("target", "fragment"), "GET /a", end=KEPT),
    instead("a host with a user is a bad one, as on HTTP/1", ("1: 400",), of("authority", "user"), end=KEPT),
    instead(
        "a bad host is one although it has no say",
        ("1: 400",),
        of("pseudo-header", "host with a space besides authority"),
        end=KEPT,
    ),
    instead(
        "each cookie is a field (RFC 9113, section 8.2.1)", ("1: 400",), of("field", "space after a cookie"), end=KEPT
    ),
    instead(
        "heads above the limit are answered as others are",
        ("1: 431",),
        of("field", "1200 of them", "together 96 kB"),
        end=KEPT,
    ),
    instead(
        "cookies are one field, however many there are", ("1: 200",), of("field", "1200 cookies"), "GET /a", end=KEPT
    ),
    instead(
        "trailers are thrown away unread",
        ("1: 200",),
        of("trailer", "pseudo-header", "content-length", "another request"),
        "POST /a [hello]",
        end=KEPT,
    ),
    instead(
        "an error in the same packet ends the connection before the request is looked at",
        ("GOAWAY PROTOCOL_ERROR",),
        of("DATA", "after the end", "padding too long", "padding without length")
        + of("HEADERS", "twice", "CONTINUATION after the end", "PUSH_PROMISE")
        + of("control", "RST_STREAM short", "WINDOW_UPDATE of 0 on a stream"),
    ),
    instead("the same", ("GOAWAY FRAME_SIZE_ERROR",), of("DATA", "a byte too long")),
    instead("the same", ("GOAWAY FLOW_CONTROL_ERROR",), of("SETTINGS", "window of a stream beyond 2**31")),
    Instead(
        "what was read before is room again; upstream/tests has a client for whom nothing is read",
        None,
        of("DATA", "beyond the stream's window"),
    ),
    instead("the client is told", ("1: STREAM_CLOSED",), of("DATA", "after a reset"), "POST /a cut", end=KEPT),
    instead(
        "the client is told why",
        ("GOAWAY PROTOCOL_ERROR",),
        of("HEADERS", "on stream 0", "on an even stream", "backwards")
        + of(
            "control",
            "PRIORITY on stream 0",
            "RST_STREAM on stream 0",
            "RST_STREAM on an idle stream",
            "PING on a stream",
            "GOAWAY on a stream",
            "WINDOW_UPDATE of 0",
            "WINDOW_UPDATE on an idle stream",
        )
        + of(
            "SETTINGS",
            "on a stream",
            "answers unasked",
            "push of 2",
            "window beyond 2**31",
            "frame size too small",
            "frame size too large",
            "connect protocol of 2",
        ),
    ),
    instead("the client is told why", ("GOAWAY FLOW_CONTROL_ERROR",), of("control", "WINDOW_UPDATE beyond 2**31")),
    instead(
        "these are errors of a stream (RFC 9113, sections 5.3.1 and 6.9.1)",
        ("1: PROTOCOL_ERROR",),
        of("HEADERS", "depends on itself") + of("control", "PRIORITY on itself"),
        end=KEPT,
    ),
    instead(
        "these are errors of a stream (RFC 9113, section 6.9.1)",
        ("1: FLOW_CONTROL_ERROR",),
        of("control", "WINDOW_UPDATE beyond 2**31 on a stream"),
        "POST /a cut",
        end=KEPT,
    ),
    instead(
        "the code is less precise",
        ("GOAWAY PROTOCOL_ERROR",),
        of("HEADERS", "short priority")
        + of("control", "PRIORITY short", "PING short", "GOAWAY short", "WINDOW_UPDATE short")
        + of("SETTINGS", "of 5 bytes", "answer with settings")
        + of(
            "HPACK",
            "index 0",
            "index beyond the table",
            "name beyond the table",
            "integer without end",
            "string of 256 MB",
            "string cut",
            "end of string within Huffman",
            "Huffman padding of zeros",
            "table size after a field",
            "table size too large",
        ),
    ),
    instead(
        "a head in so many pieces, or so much larger than it looks, is an attack",
        ("GOAWAY ENHANCE_YOUR_CALM",),
        of("HEADERS", "in pieces") + of("HPACK", "bomb"),
    ),
]

SLOW_HTTP2 = [
    instead("there is no stream before there is all of a head", (), of("slow", "half a frame", "head")),
]
