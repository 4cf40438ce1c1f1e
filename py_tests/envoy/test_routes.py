"""What the route says counts for filters before the bridge, and for the time of a request; nobody is asked for it."""

import asyncio
import re
import urllib.request
from pathlib import Path

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, routes, start
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.folders import ROOT
from py_tests.harness.plain_envoy import envoy
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about Envoy")


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "called")
    await answer(send, b"hello")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, (await receive())["type"])
    note(scope, (await receive())["type"])


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.05)
    await answer(send, b"slow")


async def begun(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"begun", more=True)
    await silent(scope, receive, send)


app = routes(hello, silent, slow, begun)

APP = {"app: hello:app": f"app: {__name__}:app", "app_dir: examples": f"app_dir: {ROOT}"}

CORS = {
    "            - name: all\n": """
            - name: all
              typed_per_filter_config:
                envoy.filters.http.cors:
                  "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
                  allow_origin_string_match: [{exact: "http://shop.example"}]
                  allow_methods: "PUT"
""",
    "          http_filters:\n": """
          http_filters:
          - name: envoy.filters.http.cors
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}
""",
}


async def test_cors_filter_answers_a_preflight(connect: Connect, tmp_path: Path, key: str) -> None:
    with envoy(tmp_path, APP | CORS, workers=1) as server:
        await server.accepts()
        connection = await connect(server)
        origin = (b"origin", b"http://shop.example")
        preflight = await connection.request(
            "OPTIONS", f"/hello?{key}", headers=[origin, (b"access-control-request-method", b"PUT")]
        )
        assert preflight.status == 200
        assert preflight.header(b"access-control-allow-methods") == b"PUT"
        assert await server.notes(key) == []
        response = await connection.get(f"/hello?{key}", headers=[origin])
        assert response.header(b"access-control-allow-origin") == b"http://shop.example"
        assert await server.notes(key) == ["called"]


async def test_time_of_a_request_can_be_bounded(connect: Connect, tmp_path: Path, key: str) -> None:
    limit = {"route: {cluster: nobody}": "route: {cluster: nobody, max_stream_duration: {max_stream_duration: 2s}}"}
    with envoy(tmp_path, APP | limit, workers=1) as server:
        await server.accepts()
        connection = await connect(server)
        assert (await connection.get(f"/silent?{key}")).status == 504
        await server.noted(key, "http.request", "http.disconnect")
        exchange = await (await connect(server)).start("GET", f"/begun?{key}2")
        assert await exchange.head() == 200
        with pytest.raises(ResponseCut):
            await exchange.rest()
        await server.noted(f"{key}2", "http.disconnect")


async def test_routers_time_out_does_nothing(tmp_path: Path) -> None:
    timeout = {"route: {cluster: nobody}": "route: {cluster: nobody, timeout: 0.001s, retry_policy: {retry_on: 5xx}}"}
    with envoy(tmp_path, APP | timeout, workers=1) as server:
        await server.accepts()
        assert (await server.get("/slow")).body == b"slow"


async def test_cluster_is_never_asked(tmp_path: Path) -> None:
    with envoy(tmp_path, APP, workers=1) as server:
        await server.accepts()
        for _ in range(3):
            assert (await server.get("/hello")).status == 200
        admin = re.search(r"port_value: (\d+)", (tmp_path / "envoy.yaml").read_text())
        assert admin
        with urllib.request.urlopen(f"http://127.0.0.1:{admin[1]}/stats?filter=^cluster\\.nobody\\.") as response:
            stats = dict(line.split(": ") for line in response.read().decode().splitlines())
        asked = ["upstream_cx_total", "upstream_rq_total", "update_attempt", "upstream_cx_connect_attempts_exceeded"]
        assert [stats[f"cluster.nobody.{name}"] for name in asked] == ["0"] * len(asked)
