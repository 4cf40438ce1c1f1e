"""FastAPI applications: one as the other frameworks' files have, and one whose answers are compared with uvicorn's."""

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any

import anyio
import pytest
from fastapi import (
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    HTTPException,
    Query,
    UploadFile,
)
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from fastapi.responses import Response as PlainResponse
from jinja2 import DictLoader, Environment
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Connection, Headers, Response, ResponseCut
from py_tests.harness.features import LARGE, STATIC, Features, Stamp, digest, done, left, pieces, released
from py_tests.harness.folders import TESTS
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import FRONT, OWN, UVICORN, Server, serve

# --- The FastAPI application ---

events: list[str] = []
"""What happened behind the answers: dependencies that end, tasks that run, clients that leave."""


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"greeting": "from the start"}


app = FastAPI(lifespan=lifespan, title="Shop", version="1.2.3")
app.add_middleware(GZipMiddleware, minimum_size=2000)
app.add_middleware(
    CORSMiddleware,
    allow_origins=["https://shop.example"],
    allow_methods=["GET", "POST"],
    allow_credentials=True,
)


@app.middleware("http")
async def times(request: Request, call_next: RequestResponseEndpoint) -> PlainResponse:
    response = await call_next(request)
    response.headers["x-middleware"] = request.method
    return response


bare = FastAPI()
"""An application without middleware: Starlette's `BaseHTTPMiddleware` hides clients that leave."""


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)
    tags: list[str] = []


class OutOfStock(Exception):
    def __init__(self, name: str) -> None:
        self.name = name


@app.exception_handler(OutOfStock)
async def out_of_stock(request: Request, error: OutOfStock) -> JSONResponse:
    return JSONResponse({"sold out": error.name}, status_code=418, headers={"x-handler": "stock"})


@app.get("/")
async def root(request: Request) -> dict[str, str]:
    return {"hello": "world", "state": request.state.greeting}


@app.get("/items/{number}")
async def get_item(
    number: int, q: str | None = None, tags: Annotated[list[str] | None, Query()] = None
) -> dict[str, Any]:
    return {"number": number, "q": q, "tags": tags}


@app.post("/items", status_code=201)
async def post_item(item: Item) -> Item:
    return item


@app.put("/items/{number}")
async def put_item(number: int, item: Item) -> dict[str, Any]:
    return {"number": number, **item.model_dump()}


@app.delete("/items/{number}", status_code=204)
async def delete_item(number: int) -> None:
    return None


@app.get("/sync/{number}")
def in_thread(number: int) -> dict[str, int]:
    return {"number": number}


async def session() -> AsyncIterator[str]:
    events.append("session opened")
    try:
        yield "session"
    finally:
        await asyncio.sleep(0)
        events.append("session closed")


def sync_session(name: Annotated[str, Depends(session)]) -> Iterator[str]:
    try:
        yield f"sync in {name}"
    finally:
        events.append("sync session closed")


@app.get("/dependencies")
async def dependencies(inner: Annotated[str, Depends(sync_session)]) -> str:
    return inner


@app.get("/dependency-raises")
async def dependency_raises(inner: Annotated[str, Depends(sync_session)]) -> str:
    raise HTTPException(402, detail={"why": "no money"}, headers={"x-why": "money"})


@app.get("/out-of-stock/{name}")
async def sold_out(name: str) -> None:
    raise OutOfStock(name)


@app.get("/crash")
async def crash() -> None:
    raise LookupError("the application crashed")


@app.post("/background")
async def background(tasks: BackgroundTasks, name: Annotated[str, Query()]) -> str:
    async def later() -> None:
        await asyncio.sleep(0.01)
        events.append(f"task for {name}")

    tasks.add_task(later)
    tasks.add_task(events.append, f"sync task for {name}")
    return "accepted"


@app.get("/headers")
async def headers(
    user_agent: Annotated[str, Header()], x_token: Annotated[list[str] | None, Header()] = None
) -> PlainResponse:
    response = JSONResponse({"agent": user_agent, "tokens": x_token})
    response.headers.append("x-multi", "one")
    response.headers.append("x-multi", "two")
    return response


@app.get("/cookies")
async def cookies(basket: Annotated[str | None, Cookie()] = None) -> PlainResponse:
    response = PlainTextResponse(f"basket {basket}")
    response.set_cookie("basket", "full", max_age=60, httponly=True)
    response.set_cookie("seen", "yes, twice", path="/cookies", samesite="strict")
    response.delete_cookie("old")
    return response


@app.get("/redirect")
async def redirect(to: str = "/") -> RedirectResponse:
    return RedirectResponse(to, status_code=303)


@app.get("/html", response_class=HTMLResponse)
async def html() -> str:
    return "<h1>été</h1>"


@app.get("/bytes")
async def raw_bytes() -> PlainResponse:
    return PlainResponse(bytes(range(256)), media_type="application/x-bytes")


@app.get("/memory")
async def memory() -> PlainResponse:
    return PlainResponse(memoryview(b"a memoryview"))


@app.get("/empty", status_code=204)
async def empty() -> PlainResponse:
    return PlainResponse(status_code=204)


@app.get("/stream")
async def stream(count: int = 50) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for number in range(count):
            yield f"piece {number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(pieces(), media_type="text/plain")


@app.get("/stream-sync")
def stream_sync() -> StreamingResponse:
    return StreamingResponse((f"{number}," for number in range(200)), media_type="text/csv")


@bare.get("/stream-breaks")
async def stream_breaks() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 5000
        raise LookupError("amid the stream")

    return StreamingResponse(pieces())


@bare.get("/stream-forever")
async def stream_forever() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"again and again\n"
                await anyio.sleep(0.001)
        finally:
            events.append("stream left")

    return StreamingResponse(pieces())


@app.get("/events")
async def server_sent_events() -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for number in range(3):
            yield f"id: {number}\ndata: {json.dumps({'number': number})}\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


@app.post("/form")
async def form(name: Annotated[str, Form()], ages: Annotated[list[int], Form()]) -> dict[str, str | list[int]]:
    return {"name": name, "ages": ages}


@app.post("/upload")
async def upload(
    file: UploadFile, more: Annotated[list[bytes], File()], note: Annotated[str, Form()]
) -> dict[str, Any]:
    content = await file.read()
    return {
        "name": file.filename,
        "type": file.content_type,
        "size": len(content),
        "sum": sum(content),
        "more": [len(data) for data in more],
        "note": note,
    }


@app.post("/echo")
async def echo(request: Request) -> PlainResponse:
    return PlainResponse(await request.body(), media_type=request.headers.get("content-type"))


@app.post("/count")
async def count(request: Request) -> int:
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return size


@bare.post("/watch-body")
async def watch_body(request: Request) -> int:
    try:
        return len(await request.body())
    except ClientDisconnect:
        events.append("client left")
        raise


@app.get("/url")
async def url(request: Request) -> dict[str, Any]:
    return {
        "path": request.url.path,
        "query": request.url.query,
        "scheme": request.url.scheme,
        "for": str(request.url_for("get_item", number=5).path),
        "client": request.client.host if request.client else None,
        "method": request.method,
        "base": request.base_url.path,
    }


@app.get("/connected")
async def connected(request: Request) -> bool:
    return await request.is_disconnected()


@bare.get("/poll-until-gone")
async def poll_until_gone(request: Request) -> None:
    events.append("polling")
    while not await request.is_disconnected():
        await anyio.sleep(0.005)
    events.append("gone")


@app.get("/file")
async def file() -> FileResponse:
    return FileResponse(__file__, filename="a source.py", media_type="text/x-python")


@bare.get("/behind")
@app.get("/behind")
async def behind() -> list[str]:
    return events


class SubApplication(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> PlainResponse:
        body = await request.body()
        response = await call_next(request)
        response.headers["x-seen"] = str(len(body))
        return response


async def sub_root(request: Request) -> PlainResponse:
    return PlainTextResponse(f"{request.scope['root_path']} {await request.body()!r}")


async def websocket_less(request: Request) -> JSONResponse:
    return JSONResponse({"params": request.path_params, "query": dict(request.query_params)})


sub = Starlette(
    routes=[
        Route("/", sub_root, methods=["GET", "POST"]),
        Route("/param/{name}/{number:int}", websocket_less),
        Mount("/static", StaticFiles(directory=TESTS, html=False)),
    ],
    middleware=[Middleware(SubApplication)],
)
app.mount("/sub", sub)


# --- What FastAPI has in common with other frameworks ---

shop = FastAPI(lifespan=lifespan)
shop.add_middleware(SessionMiddleware, secret_key="not secret")
shop.add_middleware(Stamp)
shop.mount("/static", StaticFiles(directory=STATIC))
templates = Jinja2Templates(
    env=Environment(loader=DictLoader({"hello": "<h1>Hello, {{ name }}!</h1>"}), autoescape=True)
)


@shop.get("/")
async def shop_root() -> dict[str, str]:
    return {"hello": "world"}


@shop.get("/items/{number:int}", name="item")
async def shop_item(number: int, q: str | None = None) -> dict[str, Any]:
    return {"number": number, "q": q}


@shop.post("/items", status_code=201)
async def shop_new_item(item: Item) -> Item:
    return item


@shop.api_route("/head", methods=["GET", "HEAD"])
async def shop_head() -> PlainTextResponse:
    return PlainTextResponse("x" * 1000)


@shop.get("/hello/{name}")
async def shop_hello(request: Request, name: str) -> PlainResponse:
    return templates.TemplateResponse(request, "hello", {"name": name})


@shop.post("/form")
async def shop_form(name: Annotated[str, Form()], ages: Annotated[list[str], Form()]) -> dict[str, Any]:
    return {"name": name, "ages": ages}


@shop.post("/login")
async def login(request: Request, name: Annotated[str, Form()], password: Annotated[str, Form()]) -> RedirectResponse:
    request.session["name"] = name
    return RedirectResponse(shop.url_path_for("me"), status_code=303)


def user(request: Request) -> str:
    if "name" not in request.session:
        raise HTTPException(401)
    name: str = request.session["name"]
    return name


@shop.get("/me")
async def me(name: Annotated[str, Depends(user)]) -> dict[str, str]:
    return {"name": name}


@shop.post("/logout", status_code=204)
async def logout(request: Request) -> None:
    request.session.clear()


@shop.get("/cookies")
async def shop_cookies(basket: Annotated[str, Cookie()], other: Annotated[str, Cookie()]) -> PlainResponse:
    response = JSONResponse({"basket": basket, "other": other})
    response.set_cookie("basket", "full", max_age=60, httponly=True)
    response.set_cookie("seen", "yes, twice", path="/cookies", samesite="strict")
    return response


@shop.post("/upload")
async def shop_upload(file: UploadFile, note: Annotated[str, Form()]) -> dict[str, Any]:
    content = await file.read()
    about = {"name": file.filename, "type": file.content_type, "size": file.size}
    return {**about, "digest": digest(content), "note": note}


@shop.post("/digest")
async def digest_of_body(request: Request) -> dict[str, str]:
    seen = hashlib.sha256()
    async for piece in request.stream():
        seen.update(piece)
    return {"digest": seen.hexdigest()}


@shop.get("/stream/{key}")
async def shop_stream(key: str) -> StreamingResponse:
    return StreamingResponse(pieces(key))


@shop.get("/events/{key}")
async def shop_events(key: str) -> StreamingResponse:
    return StreamingResponse(pieces(key), media_type="text/event-stream")


@shop.post("/release/{key}", status_code=204)
async def release(key: str) -> None:
    released.add(key)


@shop.get("/left")
async def which_left() -> list[str]:
    return left


@shop.post("/background/{key}", status_code=202)
async def shop_background(key: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(done.append, key)


@shop.get("/done")
async def which_done() -> list[str]:
    return done


@shop.get("/thread/{number}")
def shop_thread(number: int) -> dict[str, Any]:
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return {"number": number, "loop": True}
    return {"number": number, "loop": False}


@shop.get("/download")
async def download() -> FileResponse:
    return FileResponse(LARGE, filename="the-bridge.so")


@shop.get("/crash")
async def shop_crash() -> None:
    raise LookupError("the application crashed")


@shop.get("/startup")
async def startup(request: Request) -> dict[str, str]:
    return {"made": request.state.greeting}


@shop.get("/where")
async def where(request: Request) -> dict[str, str]:
    return {"path": request.url_for("item", number=5).path}


class TestFeatures(Features):
    application = "shop"

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        with serve(f"{__name__}:shop") as server:
            yield server


# --- Both servers ---


@pytest.fixture(scope="module")
def reference() -> Iterator[Server]:
    with serve(f"{__name__}:app", kind=UVICORN) as server:
        yield server


@pytest.fixture(scope="module")
def bare_server() -> Iterator[Server]:
    with serve(f"{__name__}:bare") as server:
        yield server


Ask = Callable[[Connection], Awaitable[Response]]
Compare = Callable[[Ask], Awaitable[Response]]


@pytest.fixture
async def compare(server: Server, reference: Server, connect: Connect) -> AsyncIterator[Compare]:
    """Asks both servers the same, and gives the answer if it is the same, too."""
    ours = await connect(server)
    async with await Http1Connection.open(reference.port) as theirs:

        async def compare(ask: Ask) -> Response:
            answer, expected = await ask(ours), await ask(theirs)
            assert answer.status == expected.status
            assert own(answer) == own(expected)
            assert answer.body == expected.body
            return answer

        yield compare


def own(response: Response) -> list[tuple[bytes, bytes]]:
    """The headers that come from the application: not those that each server adds as it likes.

    Nor `vary`: files that a server sends by `http.response.pathsend` pass Starlette's GZipMiddleware untouched.
    And of a cookie that is deleted not the second in which this was.
    """
    servers = {b"date", b"server", b"connection", b"transfer-encoding", b"keep-alive", b"vary"}
    if response.status in (204, 304) or FRONT == OWN:  # which adds a length where all of the body is there
        servers.add(b"content-length")
    headers = [(name.lower(), value) for name, value in response.headers if name.lower() not in servers]
    return [(name, re.sub(rb"expires=[^;]+", b"expires=...", value)) for name, value in headers]


def ask(method: str, path: str, body: bytes = b"", headers: Headers = ()) -> Ask:
    fixed = [(b"host", b"shop.example"), (b"user-agent", b"test"), *headers]
    return lambda connection: connection.request(method, path, headers=fixed, body=body)


JSON = [(b"content-type", b"application/json")]
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/items/5", 200),
        ("GET", "/items/5?q=caf%C3%A9&tags=a&tags=b", 200),
        ("GET", "/items/five", 422),
        ("GET", "/sync/7", 200),
        ("DELETE", "/items/5", 204),
        ("POST", "/items/5", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/items/5/", 307),
        ("GET", "/dependencies", 200),
        ("GET", "/dependency-raises", 402),
        ("GET", "/out-of-stock/tea", 418),
        ("GET", "/headers", 200),
        ("GET", "/cookies", 200),
        ("GET", "/redirect", 303),
        ("GET", "/redirect?to=/caf%C3%A9%20au%20lait", 303),
        ("GET", "/html", 200),
        ("GET", "/bytes", 200),
        ("GET", "/memory", 200),
        ("GET", "/empty", 204),
        ("GET", "/stream", 200),
        ("GET", "/stream-sync", 200),
        ("GET", "/events", 200),
        ("GET", "/url?a=1&b=2", 200),
        ("GET", "/connected", 200),
        ("GET", "/file", 200),
        ("HEAD", "/file", 405),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/sub/", 200),
        ("GET", "/sub", 307),
        ("GET", "/sub/param/caf%C3%A9/12?x=1", 200),
        ("GET", "/sub/static/conftest.py", 200),
        ("HEAD", "/sub/static/conftest.py", 200),
        ("GET", "/sub/static/missing.py", 404),
        ("GET", "/sub/static/../test_fastapi.py", 404),
        ("OPTIONS", "/items/5", 405),
        ("GET", "/crash", 500),
    ],
)
async def test_route_answers_as_under_uvicorn(compare: Compare, method: str, path: str, status: int) -> None:
    assert (await compare(ask(method, path))).status == status


async def test_json_bodies(compare: Compare) -> None:
    good = json.dumps({"name": "été", "price": 2.5, "tags": ["a"]}).encode()
    assert (await compare(ask("POST", "/items", good, JSON))).status == 201
    assert (await compare(ask("PUT", "/items/3", good, JSON))).status == 200
    for bad in [b'{"name": "x", "price": -1}', b"{}", b"not json", b"", b"[1]"]:
        assert (await compare(ask("POST", "/items", bad, JSON))).status == 422


async def test_repeated_headers_and_cookies(compare: Compare) -> None:
    tokens = [(b"x-token", b"one"), (b"x-token", b"two")]
    response = await compare(ask("GET", "/headers", headers=tokens))
    assert response.json() == {"agent": "test", "tokens": ["one", "two"]}
    assert response.values(b"x-multi") == [b"one", b"two"]
    response = await compare(ask("GET", "/cookies", headers=[(b"cookie", b"a=b; basket=eggs")]))
    assert response.body == b"basket eggs"
    assert len(response.values(b"set-cookie")) == 3


async def test_middleware(compare: Compare) -> None:
    assert (await compare(ask("GET", "/"))).header(b"x-middleware") == b"GET"
    origin = [(b"origin", b"https://shop.example")]
    response = await compare(ask("GET", "/", headers=origin))
    assert response.header(b"access-control-allow-origin") == b"https://shop.example"
    preflight = [*origin, (b"access-control-request-method", b"POST")]
    assert (await compare(ask("OPTIONS", "/items", headers=preflight))).status == 200
    gzip = [(b"accept-encoding", b"gzip")]
    response = await compare(ask("GET", "/openapi.json", headers=gzip))
    assert response.header(b"content-encoding") == b"gzip"
    await compare(ask("GET", "/stream?count=500", headers=gzip))


async def test_forms(compare: Compare) -> None:
    form = b"name=Jos%C3%A9+M&ages=1&ages=22"
    response = await compare(ask("POST", "/form", form, FORM))
    assert response.json() == {"name": "José M", "ages": [1, 22]}
    assert (await compare(ask("POST", "/form", b"name=x&ages=old", FORM))).status == 422


def multipart(size: int) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    def part(disposition: bytes, content: bytes) -> bytes:
        return b"--limit\r\nContent-Disposition: form-data; %s\r\n%s\r\n" % (disposition, content)

    file = b"Content-Type: application/x-bytes\r\n\r\n" + bytes(range(256)) * (size // 256)
    body = (
        part(b'name="file"; filename="caf\xc3\xa9.bin"', file)
        + part(b'name="more"; filename="1"', b"\r\none")
        + part(b'name="more"; filename="2"', b"\r\nthree")
        + part(b'name="note"', b"\r\na note")
        + b"--limit--\r\n"
    )
    return body, [(b"content-type", b"multipart/form-data; boundary=limit")]


@pytest.mark.parametrize("size", [256, 3 * 1024 * 1024])
async def test_file_upload(compare: Compare, size: int) -> None:
    body, content_type = multipart(size)
    response = await compare(ask("POST", "/upload", body, content_type))
    assert response.json() == {
        "name": "café.bin",
        "type": "application/x-bytes",
        "size": size,
        "sum": sum(range(256)) * (size // 256),
        "more": [3, 5],
        "note": "a note",
    }


async def test_raw_bodies(compare: Compare) -> None:
    for body in [b"", b"small", bytes(range(256)) * 4096]:
        await compare(ask("POST", "/echo", body, [(b"content-type", b"application/x-bytes")]))
        assert (await compare(ask("POST", "/count", body))).json() == len(body)
        await compare(ask("POST", "/sub/", body[:100]))


async def test_conditional_and_range_requests(compare: Compare) -> None:
    path = "/sub/static/conftest.py"
    etag = (await compare(ask("GET", path))).header(b"etag")
    assert etag
    response = await compare(ask("GET", path, headers=[(b"if-none-match", etag)]))
    assert (response.status, response.body) == (304, b"")
    response = await compare(ask("GET", "/file", headers=[(b"range", b"bytes=10-19")]))
    assert (response.status, len(response.body)) == (206, 10)
    assert (await compare(ask("GET", "/file", headers=[(b"range", b"bytes=9999999-")]))).status == 416


async def test_crash_is_logged_and_answered_without_details(server: Server, compare: Compare) -> None:
    response = await compare(ask("GET", "/crash"))
    assert response.body == b"Internal Server Error"
    await eventually(lambda: "LookupError: the application crashed" in server.fresh_log)
    assert (await server.get("/")).status == 200


async def test_connection_serves_many_kinds_of_requests(compare: Compare) -> None:
    body, content_type = multipart(256 * 100)
    for _ in range(5):
        await compare(ask("GET", "/stream?count=10"))
        await compare(ask("POST", "/upload", body, content_type))
        await compare(ask("DELETE", "/items/5"))
        await compare(ask("GET", "/items/five"))


# --- Behind the answers ---


async def behind_of(server: Server) -> list[str]:
    happened: list[str] = (await server.get("/behind")).json()
    return happened


async def test_dependencies_are_closed_in_order(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for path in ["/dependencies", "/dependency-raises"]:
        before = len(await behind_of(server))
        await connection.get(path)

        async def closed(before: int = before) -> list[str]:
            happened = (await behind_of(server))[before:]
            return happened if len(happened) == 3 else []

        expected = ["session opened", "sync session closed", "session closed"]
        assert await eventually(closed) == expected


async def test_background_tasks_run_after_the_response(server: Server, connect: Connect, key: str) -> None:
    response = await (await connect(server)).post(f"/background?name={key}", b"")
    assert response.json() == "accepted"

    async def ran() -> bool:
        happened = await behind_of(server)
        return {f"task for {key}", f"sync task for {key}"} <= set(happened)

    await eventually(ran)


async def happened_anew(server: Server, before: list[str], awaited: str) -> None:
    async def happened() -> bool:
        return (await behind_of(server)).count(awaited) > before.count(awaited)

    await eventually(happened)


async def test_streaming_stops_when_the_client_leaves(bare_server: Server, connect: Connect) -> None:
    before = await behind_of(bare_server)
    exchange = await (await connect(bare_server)).start("GET", "/stream-forever")
    assert await exchange.head() == 200
    assert (await exchange.chunk()).startswith(b"again")
    await exchange.leave()
    await happened_anew(bare_server, before, "stream left")
    assert "Traceback" not in bare_server.fresh_log


async def test_is_disconnected_tells_that_the_client_left(bare_server: Server, connect: Connect) -> None:
    before = await behind_of(bare_server)
    exchange = await (await connect(bare_server)).start("GET", "/poll-until-gone")
    await happened_anew(bare_server, before, "polling")
    await exchange.leave()
    await happened_anew(bare_server, before, "gone")


async def test_client_that_leaves_amid_its_body_raises_client_disconnect(bare_server: Server, connect: Connect) -> None:
    before = await behind_of(bare_server)
    exchange = await (await connect(bare_server)).start("POST", "/watch-body", upload=True)
    await exchange.send(b"half of it")
    await exchange.leave()
    await happened_anew(bare_server, before, "client left")


async def test_exception_amid_a_stream_cuts_it(bare_server: Server, connect: Connect) -> None:
    with pytest.raises(ResponseCut) as cut:
        await (await connect(bare_server)).get("/stream-breaks")
    assert cut.value.body in (b"x" * 5000, b"")
    await eventually(lambda: "LookupError: amid the stream" in bare_server.fresh_log)


async def test_many_requests_at_once_in_threads(server: Server, connect: Connect) -> None:
    connections = [await connect(server) for _ in range(20)]
    answers = await asyncio.gather(
        *(connection.get(f"/sync/{number}") for number, connection in enumerate(connections))
    )
    assert [answer.json() for answer in answers] == [{"number": n} for n in range(20)]


async def test_root_path_reaches_the_documentation(serve: Any, connect: Connect) -> None:
    answers = []
    for kind in [None, UVICORN]:
        options = {"kind": kind} if kind else {}
        server = serve(f"{__name__}:app", root_path="/api", **options)
        async with await Http1Connection.open(server.port) as connection:
            seen = [await ask("GET", path)(connection) for path in ["/openapi.json", "/url"]]
        answers.append([(response.status, response.json()) for response in seen])
    assert answers[0] == answers[1]
    assert answers[0][0][1]["servers"] == [{"url": "/api"}]
