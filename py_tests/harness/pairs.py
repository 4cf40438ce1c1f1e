"""A proxy and `aiovoy upstream` behind it, as a pair of parsers that may understand a request differently.

The proxy gives each request that it forwards an id, and writes a line of its log for each that it has seen. The
application keeps account of the ids. Whatever a client has sent, what the application has seen is what the proxy has
forwarded: a request that one of them alone has seen is smuggled, and so is a response with another one's id.
"""

import asyncio
import contextlib
import json
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from py_tests.harness.apps import Receive, Scope, Send, answer, lifespan
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import Response, ResponseCut
from py_tests.harness.hostile import Row, Step
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection, Http2Exchange
from py_tests.harness.in_front import Nginx, envoy, free_ports, nginx, upstream
from py_tests.harness.plain_envoy import listens
from py_tests.harness.serving import Server
from py_tests.harness.streams import Fields

# --- The application ---

_calls: list[dict[str, Any]] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads each request to its end and answers with its id; `/deaf` answers at once, `/204` and `/304` say that."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    if scope["path"] == "/account":
        await answer(send, _calls)
        return
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    call = {
        "ids": [value for name, value in fields if name == "x-pair-id"],
        "ports": [value for name, value in fields if name == "x-pair-port"],
        "connection": scope["client"],
        "line": f"{scope.get('method', 'websocket')} {scope['raw_path'].decode('latin-1')}",
        "names": sorted({name for name, _ in fields}),
        "body": "",
    }
    _calls.append(call)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            call["body"] += repr(message.get("text") or message.get("bytes"))
        return
    more = scope["path"] != "/deaf"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            call["line"] += " cut"
            return
        call["body"] += message["body"][:1000].decode("latin-1")
        more = message["more_body"]
    status = int(scope["path"][1:]) if scope["path"] in ("/204", "/304") else 200
    await answer(send, b"seen", status, headers=[(b"x-seen", "+".join(call["ids"]).encode())])


# --- The proxies ---

ENVOY = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          use_remote_address: true
          # As much is let in as can be, and who sends half of a request is not waited for.
          http_protocol_options: {{accept_http_10: true, enable_trailers: true, allow_chunked_length: true}}
          http2_protocol_options:
            allow_connect: true
            override_stream_error_on_invalid_http_message: true
          upgrade_configs: [{{upgrade_type: websocket}}]
          request_headers_timeout: 1s
          stream_idle_timeout: 1s
          common_http_protocol_options: {{idle_timeout: 1s}}
          delayed_close_timeout: 0.1s
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {log}
              log_format:
                json_format:
                  id: "%STREAM_ID%"
                  port: "%DOWNSTREAM_REMOTE_PORT%"
                  upstream: "%UPSTREAM_HOST%"
                  line: "%REQ(:METHOD)% %REQ(:PATH)%"
          route_config:
            response_headers_to_add: [{{header: {{key: x-id, value: "%STREAM_ID%"}}}}]
            request_headers_to_add:
            - header: {{key: x-pair-id, value: "%STREAM_ID%"}}
              append_action: OVERWRITE_IF_EXISTS_OR_ADD
            - header: {{key: x-pair-port, value: "%DOWNSTREAM_REMOTE_PORT%"}}
              append_action: OVERWRITE_IF_EXISTS_OR_ADD
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: app
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{{protocol}}}
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {behind}}}}}}}
"""

HTTP1, HTTP2 = "http_protocol_options: {enable_trailers: true}", "http2_protocol_options: {allow_connect: true}"

NGINX = """
error_log stderr warn;
pid nginx.pid;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    log_format pair escape=json
        '{{"id": "$request_id", "port": "$remote_port", "upstream": "$upstream_addr", "line": "$request"}}';
    access_log {log} pair;
    map $http_upgrade $upgrade {{ default upgrade; '' ''; }}
    upstream app {{
        server 127.0.0.1:{behind};
        keepalive 4;
    }}
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{http2_port} http2;
        # As much is let in as can be, and who sends half of a request is not waited for.
        ignore_invalid_headers off;
        underscores_in_headers on;
        merge_slashes off;
        client_max_body_size 0;
        large_client_header_buffers 8 100k;
        client_header_timeout 1s;
        client_body_timeout 1s;
        keepalive_timeout 1s;
        lingering_timeout 1s;
        add_header x-id $request_id always;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_next_upstream off;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $upgrade;
            proxy_set_header X-Pair-Id $request_id;
            proxy_set_header X-Pair-Port $remote_port;
        }}
    }}
}}
"""


@dataclass
class Pair:
    """A proxy and a server behind it."""

    proxy: Server
    behind: Server
    log: Path
    http2_port: int
    """Where the proxy speaks HTTP/2."""


@contextlib.contextmanager
def pair(kind: str, folder: Path) -> Iterator[Pair]:
    """Of `nginx`, `envoy-http1` or `envoy-http2`, by what the proxy speaks to the server."""
    port, more = free_ports(2)
    log = folder / "access.log"
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(upstream(app, "--port", "0", "--timeout-keep-alive", "75", "--no-proxy-headers"))
        proxy: Server
        if kind == "nginx":
            text = NGINX.format(port=port, http2_port=more, behind=behind.port, log=log)
            proxy = stack.enter_context(nginx(folder, port, text))
        else:
            protocol = HTTP1 if kind == "envoy-http1" else HTTP2
            path = folder / "envoy.yaml"
            path.write_text(ENVOY.format(port=port, admin=more, behind=behind.port, log=log, protocol=protocol))
            proxy = stack.enter_context(envoy(path, port, more))
        yield Pair(proxy, behind, log, more if isinstance(proxy, Nginx) else port)


# --- Conversations ---


@dataclass
class Had:
    """What became of a conversation."""

    port: int
    """The client's."""
    answers: list[dict[str, str]] = field(default_factory=list)
    """Of each final answer its fields, and `status`."""
    after: Response | None = None
    """What a normal request on a new connection got afterwards."""


HEAD = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")

LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
"""What follows each request: some bytes that are taken for its body, or a request."""


def heads(data: bytes) -> list[dict[str, str]]:
    """All final heads in what a client was sent; no body of ours or of a proxy's looks like one."""
    found = []
    for status, lines in HEAD.findall(data):
        if status >= b"200" or status == b"101":
            named = [line.split(b":", 1) for line in lines.splitlines()]
            found.append({name.decode().lower(): value.strip().decode() for name, value in named})
            found[-1]["status"] = status.decode()
    return found


async def converse(pair: Pair, row: Row) -> Had:
    """Sends what the row says and then `LAST`, reads to the connection's end, and asks for something else."""
    async with await Http1Connection.open(pair.proxy.port) as connection:
        had = Had(connection.local_port)
        with contextlib.suppress(ConnectionError, ResponseCut):  # the proxy may have had enough
            for step in row.steps:
                match step:
                    case bytes():
                        await connection.write(step)
                    case Step.ANSWERED:
                        await connection.until(b"seen")
                    case Step.HALF_CLOSE:
                        connection.sock.shutdown(socket.SHUT_WR)
                    case Step.RESET:
                        await connection.abort()
                        break
                    case _:
                        pass  # a proxy may call nobody before it has the whole request
            else:
                if Step.HALF_CLOSE not in row.steps:
                    await connection.write(LAST)
        if Step.RESET not in row.steps:
            while await connection.more():
                pass
            had.answers = heads(connection.buffer)
    had.after = await ask(pair)
    return had


@dataclass(frozen=True)
class Request2:
    """A request of HTTP/2, as it is sent."""

    name: str
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)


async def converse_http2(pair: Pair, request: Request2) -> Had:
    async with await Http2Connection.open(pair.http2_port) as connection:
        had = Had(connection.local_port)
        stream_id = connection.h2.get_next_available_stream_id()
        exchange = connection.streams[stream_id] = Http2Exchange(connection, stream_id)
        connection.h2.send_headers(stream_id, request.fields, end_stream=not request.body and not request.trailers)
        with contextlib.suppress(ConnectionError, ResponseCut):
            await connection.flush()
            if request.body:
                await exchange.send(request.body, end=not request.trailers)
            if request.trailers:
                await exchange.send_trailers(request.trailers)
            response = await exchange.response()
            fields = {name.decode(): value.decode() for name, value in response.headers}
            had.answers.append({**fields, "status": str(response.status)})
    had.after = await ask(pair)
    return had


async def ask(pair: Pair) -> Response:
    """Asks again where the question may have come after the second that the proxies give a connection for it."""
    end = time.monotonic() + DEADLINE
    while True:
        began = time.monotonic()
        async with await Http1Connection.open(pair.proxy.port) as connection:
            try:
                return await connection.get("/after")
            except (ConnectionError, ResponseCut):
                if time.monotonic() - began < 1 or time.monotonic() > end:
                    raise


async def converse_all(pair: Pair, rows: Sequence[Row | Request2], turns: int) -> list[Had | Exception]:
    """All conversations, so many at a time, in the order of `rows`."""
    places = asyncio.Semaphore(turns)

    async def one(row: Row | Request2) -> Had | Exception:
        async with places:
            try:
                async with asyncio.timeout(2 * DEADLINE):
                    return await (converse(pair, row) if isinstance(row, Row) else converse_http2(pair, row))
            except Exception as error:
                return error

    await eventually(lambda: listens(pair.proxy.port))
    return list(await asyncio.gather(*(one(row) for row in rows)))


# --- What both have seen ---


@dataclass
class Seen:
    """What a pair has seen of all conversations."""

    had: dict[str, Had | Exception]
    lines: list[dict[str, str]]
    """The proxy's log."""
    calls: list[dict[str, Any]]
    """The application's account."""

    def faults(self) -> dict[str, object]:
        """What is wrong, by the name of the conversation; empty for what is of none."""
        found = {name: fault for name, had in self.had.items() if (fault := self.fault(had))}
        ids = Counter(one for call in self.calls for one in call["ids"])
        if stray := [call for call in self.calls if len(call["ids"]) != 1 or len(call["ports"]) != 1]:
            found[""] = ("no request that the proxy has forwarded", stray)
        elif more := ids - Counter(line["id"] for line in self.lines if is_forwarded(line)):
            found[""] = ("seen, but not forwarded, or seen twice", more)
        return found

    def fault(self, had: Had | Exception) -> object:
        """What is wrong with a conversation."""
        if isinstance(had, Exception):
            return had
        lines = [line for line in self.lines if line["port"] == str(had.port)]
        if len(had.answers) > len(lines):
            return "more answers than requests", had.answers, lines
        seen = [answer["x-seen"] for answer in had.answers if "x-seen" in answer]
        told = [answer.get("x-id") for answer in had.answers if "x-seen" in answer]
        called = [call["ids"][0] for call in self.calls if call["ports"] == [str(had.port)]]
        if seen != told or Counter(seen) - Counter(called):
            return "an answer to another request", had.answers, called
        if "x-injected" in {name for call in self.calls for name in call["names"]}:
            return "a field that nobody has sent"
        after = had.after
        if (
            after is None
            or (after.status, after.body) != (200, b"seen")
            or after.header(b"x-seen") != after.header(b"x-id")
        ):
            return "no answer afterwards", after
        return None


def is_forwarded(line: dict[str, str]) -> bool:
    return line["upstream"] not in (None, "", "-")


def hold(kind: str, folder: Path, rows: dict[str, Row | Request2], turns: int) -> Seen:
    """Has all conversations with a pair, which is stopped then: its log is complete."""
    with pair(kind, folder) as both:
        had = asyncio.run(converse_all(both, list(rows.values()), turns))
        calls = asyncio.run(account(both.behind))
        log = both.log
    lines = [
        {key: "" if value is None else str(value) for key, value in json.loads(line).items()}
        for line in log.read_text("latin-1").split("\n")[:-1]
    ]
    return Seen(dict(zip(rows, had, strict=True)), lines, calls)


async def account(server: Server) -> list[dict[str, Any]]:
    """What the application has seen."""
    calls: list[dict[str, Any]] = (await server.get("/account")).json()
    return calls
