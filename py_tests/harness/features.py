"""What a web application does, whatever its framework: the tests that the frameworks' files have in common.

Each of those files has an application with the routes that are asked for here, written as its
framework's users write it, and a class `TestFeatures(Features)`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import aiovoy
from py_tests.harness.deadline import eventually
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Serve, Server

# Served as static files: small ones, an empty one, and one of several megabytes.
STATIC = Path(aiovoy.__file__).parent
SMALL, EMPTY = STATIC / "allocators.py", STATIC / "py.typed"
LARGE = next(STATIC.glob("bridge.*.so"))

BODY = bytes(range(256)) * 4096 * 20

# --- For the applications ---

released: set[str] = set()
left: list[str] = []
done: list[str] = []

IDLE = "idle-"
"""How the key of a stream begins that says nothing while it waits."""


async def pieces(key: str) -> AsyncIterator[bytes]:
    """A stream of events whose second one waits for `released`, and that tells when it is left."""
    try:
        yield b"data: first\n\n"
        while key not in released:
            await asyncio.sleep(0.01)
            if not key.startswith(IDLE):
                yield b": still waiting\n\n"
        yield b"data: second\n\n"
    except BaseException:
        left.append(key)
        raise


class Stamp:
    """A middleware in plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                value = f"{scope['method']} {scope['path']}".encode()
                message["headers"] = [*message["headers"], (b"x-middleware", value)]
            await send(message)

        await self.app(scope, receive, stamped)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- For the tests ---


async def numbered(size: int = 64 * 1024) -> AsyncIterator[bytes]:
    """BODY, piece by piece: without its length being known."""
    for at in range(0, len(BODY), size):
        yield BODY[at : at + size]
        await asyncio.sleep(0)


class Features:
    """The tests; what a framework does not have, its class turns off."""

    validators: ClassVar[Mapping[str, str]] = {"last-modified": "if-modified-since", "etag": "if-none-match"}
    """By what static files are revalidated."""
    ranges = True
    """Whether parts of static files can be asked for."""
    lifespan = True
    application: ClassVar[str] = "app"
    options: ClassVar[Mapping[str, Any]] = {}
    """What its server is started with."""

    async def test_routes_parameters_and_json(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/")
        assert (response.status_code, response.json()) == (200, {"hello": "world"})
        assert response.headers["x-middleware"] == "GET /"
        assert response.headers["content-type"].startswith("application/json")
        assert (await client.get("/items/5")).json() == {"number": 5, "q": None}
        assert (await client.get("/items/5", params={"q": "café & more"})).json() == {"number": 5, "q": "café & more"}
        response = await client.post("/items", json={"name": "été", "price": 2.5, "tags": ["a"]})
        assert (response.status_code, response.json()) == (201, {"name": "été", "price": 2.5, "tags": ["a"]})

    async def test_unknown_paths_and_methods(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/items/five")).status_code == 404
        response = await client.delete("/items")
        assert response.status_code == 405
        assert "POST" in response.headers["allow"]

    async def test_head(self, client: httpx.AsyncClient) -> None:
        expected = await client.get("/head")
        response = await client.head("/head")
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-length"] == str(len(expected.content)) == "1000"

    async def test_template(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/hello/<Zoë>")
        assert response.text.strip() == "<h1>Hello, &lt;Zoë&gt;!</h1>"
        assert response.headers["content-type"] == "text/html; charset=utf-8"

    async def test_form(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/form", data={"name": "José M", "ages": ["1", "22"]})
        assert response.json() == {"name": "José M", "ages": ["1", "22"]}

    async def test_session(self, server: Server, client: httpx.AsyncClient) -> None:
        assert (await client.get("/me")).status_code == 401
        response = await client.post("/login", data={"name": "zoë", "password": "secret"})
        assert (response.status_code, response.headers["location"]) == (303, "/me")
        session = next(cookie for cookie in response.headers.get_list("set-cookie") if "httponly" in cookie.lower())
        for _ in range(2):
            assert (await client.get("/me")).json() == {"name": "zoë"}
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as stranger:
            assert (await stranger.get("/me")).status_code == 401
            name = session.partition("=")[0]
            stranger.cookies.set(name, client.cookies[name][:-1] + "~")
            assert (await stranger.get("/me")).status_code == 401
        assert (await client.post("/logout")).status_code == 204
        assert (await client.get("/me")).status_code == 401

    async def test_cookies(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/cookies", headers={"cookie": "basket=eggs; other=1"})
        assert response.json() == {"basket": "eggs", "other": "1"}
        set_cookies = dict(cookie.split("=", 1) for cookie in response.headers.get_list("set-cookie"))
        assert set_cookies["basket"].startswith("full;")
        assert "max-age=60" in set_cookies["basket"].lower()
        assert set_cookies["seen"].startswith('"yes')
        assert "path=/cookies" in set_cookies["seen"].lower()

    @pytest.mark.parametrize("size", [0, 3, 5 * 1024 * 1024], ids=["empty", "small", "large"])
    async def test_upload(self, client: httpx.AsyncClient, size: int) -> None:
        content = BODY[:size]
        response = await client.post(
            "/upload",
            files={"file": ("café.bin", content, "application/x-bytes")},
            data={"note": "ça va"},
        )
        assert response.json() == {
            "name": "café.bin",
            "type": "application/x-bytes",
            "size": size,
            "digest": digest(content),
            "note": "ça va",
        }

    async def test_request_body_as_it_comes(self, client: httpx.AsyncClient) -> None:
        for content in [b"", b"small", BODY]:
            assert (await client.post("/digest", content=content)).json() == {"digest": digest(content)}
        response = await client.post("/digest", content=numbered())
        assert response.json() == {"digest": digest(BODY)}

    @pytest.mark.parametrize("path", ["/stream", "/events"])
    async def test_response_as_it_is_made(self, client: httpx.AsyncClient, key: str, path: str) -> None:
        """The second piece is made only when the first one has come."""
        async with client.stream("GET", f"{path}/{key}") as response:
            assert response.status_code == 200
            assert "content-length" not in response.headers
            if path == "/events":
                assert response.headers["content-type"].startswith("text/event-stream")
            body = response.aiter_raw()
            assert (await anext(body)).startswith(b"data: first\n\n")
            assert (await client.post(f"/release/{key}")).status_code == 204
            assert b"".join([piece async for piece in body]).endswith(b"data: second\n\n")

    @pytest.mark.parametrize("kind", ["", IDLE], ids=["busy", "idle"])
    async def test_client_that_leaves_a_stream_ends_it(
        self, server: Server, connect: Connect, key: str, kind: str
    ) -> None:
        key = kind + key
        exchange = await (await connect(server)).start("GET", f"/stream/{key}")
        assert await exchange.head() == 200
        assert (await exchange.chunk()).startswith(b"data: first\n\n")
        await exchange.leave()

        async def ended() -> bool:
            return key in (await server.get("/left")).json()

        await eventually(ended)

    async def test_background_task(self, client: httpx.AsyncClient, key: str) -> None:
        assert (await client.post(f"/background/{key}")).status_code == 202

        async def ran() -> bool:
            return key in (await client.get("/done")).json()

        await eventually(ran)

    async def test_view_in_a_thread(self, client: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(client.get(f"/thread/{number}") for number in range(20)))
        assert [answer.json()["number"] for answer in answers] == list(range(20))
        assert not any(answer.json()["loop"] for answer in answers)

    @pytest.mark.parametrize("file", [SMALL, EMPTY, LARGE], ids=["small", "empty", "large"])
    async def test_static_file(self, client: httpx.AsyncClient, file: Path) -> None:
        path, content = f"/static/{file.name}", file.read_bytes()
        response = await client.get(path)
        assert (response.status_code, response.content) == (200, content)
        assert response.headers["content-length"] == str(len(content))
        head = await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(content))
        assert head.headers["last-modified"] == response.headers["last-modified"]

    async def test_no_static_file(self, client: httpx.AsyncClient) -> None:
        for path in ["missing.py", "%2e%2e/pyproject.toml", "..%2fpyproject.toml", "launcher"]:
            assert (await client.get(f"/static/{path}")).status_code in (400, 404), path

    async def test_static_file_that_has_not_changed(self, client: httpx.AsyncClient) -> None:
        path = f"/static/{SMALL.name}"
        whole = await client.get(path)
        for validator, condition in self.validators.items():
            response = await client.get(path, headers={condition: whole.headers[validator]})
            assert (response.status_code, response.content) == (304, b"")
        for other in [{"if-modified-since": "Sat, 01 Jan 2000 00:00:00 GMT"}, {"if-none-match": '"other"'}]:
            response = await client.get(path, headers=other)
            assert (response.status_code, response.content) == (200, whole.content)

    async def test_parts_of_a_static_file(self, client: httpx.AsyncClient) -> None:
        path, content = f"/static/{LARGE.name}", LARGE.read_bytes()
        size = len(content)
        ranges = {"0-9": (0, 10), "1000000-4999999": (1000000, 5000000), f"{size - 7}-": (size - 7, size)}
        if not self.ranges:
            assert (await client.get(path, headers={"range": "bytes=0-9"})).content == content
            return
        for asked, (first, end) in ranges.items():
            response = await client.get(path, headers={"range": f"bytes={asked}"})
            assert response.status_code == 206
            assert response.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
            assert response.content == content[first:end]
        assert (await client.get(path, headers={"range": f"bytes={size}-"})).status_code == 416

    async def test_download(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/download")
        assert response.content == LARGE.read_bytes()
        assert "attachment" in response.headers["content-disposition"]
        assert "the-bridge.so" in response.headers["content-disposition"]

    async def test_crash(self, server: Server, client: httpx.AsyncClient) -> None:
        response = await client.get("/crash")
        assert response.status_code == 500
        assert b"LookupError" not in response.content
        await eventually(lambda: "LookupError: the application crashed" in server.fresh_log)
        assert (await client.get("/")).status_code == 200

    async def test_what_the_lifespan_made(self, client: httpx.AsyncClient) -> None:
        if self.lifespan:
            assert (await client.get("/startup")).json() == {"made": "from the start"}

    async def test_root_path(self, serve: Serve, server: Server) -> None:
        """Where an application is told that it lives below a prefix, its links say so."""
        below = serve(f"{type(self).__module__}:{self.application}", **self.options, root_path="/api")
        for one, prefix in [(server, ""), (below, "/api")]:
            async with httpx.AsyncClient(base_url=one.url, trust_env=False) as client:
                assert (await client.get("/where")).json() == {"path": f"{prefix}/items/5"}

    async def test_many_at_once(self, client: httpx.AsyncClient) -> None:
        async def one(number: int) -> None:
            assert (await client.get(f"/items/{number}")).json()["number"] == number
            content = BODY[: number * 1000]
            assert (await client.post("/digest", content=content)).json() == {"digest": digest(content)}
            files = {"file": (f"{number}.bin", content, "application/x-bytes")}
            response = await client.post("/upload", files=files, data={"note": str(number)})
            assert (response.json()["size"], response.json()["note"]) == (len(content), str(number))

        await asyncio.gather(*(one(number) for number in range(50)))
