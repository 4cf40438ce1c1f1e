"""A Litestar application, with what Litestar has for applications."""

import asyncio
import contextlib
import hashlib
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import httpx
from jinja2 import DictLoader, Environment
from litestar import Controller, Litestar, MediaType, Request, Response, Router, asgi, delete, get, patch, post, route
from litestar.background_tasks import BackgroundTask
from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie, State, UploadFile
from litestar.di import NamedDependency, Provide
from litestar.enums import HttpMethod, RequestEncodingType
from litestar.exceptions import HTTPException, NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import Body, FromPath, FromQuery, JSONBody
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import File, Redirect, ServerSentEvent, Stream, Template
from litestar.static_files import create_static_files_router
from litestar.stores.memory import MemoryStore
from litestar.template import TemplateConfig
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from py_tests.harness.features import LARGE, STATIC, Features, digest, done, left, pieces, released

Asked = Request[Any, Any, State]
Data = TypeVar("Data")
Fields = Annotated[Data, Body(media_type=RequestEncodingType.URL_ENCODED)]


@contextlib.asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    app.state.made = "from the start"
    yield


def stamp(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                value = f"{scope.get('method')} {scope['path']}".encode()
                message["headers"] = [*message["headers"], (b"x-middleware", value)]
            await send(message)

        await app(scope, receive, stamped)

    return middleware


@dataclass
class Item:
    name: str
    price: float
    tags: list[str]


@get("/")
async def root() -> dict[str, str]:
    return {"hello": "world"}


@get("/items/{number:int}", name="item")
async def item(number: FromPath[int], q: FromQuery[str | None] = None) -> dict[str, Any]:
    return {"number": number, "q": q}


@post("/items")
async def new_item(data: JSONBody[Item]) -> Item:
    return data


@route("/head", http_method=[HttpMethod.GET, HttpMethod.HEAD], media_type=MediaType.TEXT)
async def head() -> str:
    return "x" * 1000


@get("/hello/{name:str}")
async def hello(name: FromPath[str]) -> Template:
    return Template("hello.html", context={"name": name})


@dataclass
class Person:
    name: str
    ages: list[str]


@post("/form", status_code=200)
async def form(data: Fields[Person]) -> Person:
    return data


@dataclass
class Login:
    name: str
    password: str


@post("/login", status_code=303)
async def login(request: Asked, data: Annotated[Login, Body(media_type=RequestEncodingType.URL_ENCODED)]) -> Redirect:
    request.set_session({"name": data.name})
    return Redirect("/me", status_code=303)


@get("/me")
async def me(request: Asked) -> dict[str, str]:
    if "name" not in request.session:
        raise NotAuthorizedException
    return {"name": request.session["name"]}


@post("/logout", status_code=204)
async def logout(request: Asked) -> None:
    request.clear_session()


@get("/cookies", response_cookies=[Cookie("basket", value="full", max_age=60, httponly=True)])
async def cookies(request: Asked) -> Response[dict[str, str]]:
    return Response(request.cookies, cookies=[Cookie("seen", value="yes, twice", path="/cookies", samesite="strict")])


@dataclass
class Upload:
    file: UploadFile
    note: str


@post("/upload", status_code=200)
async def upload(data: Annotated[Upload, Body(media_type=RequestEncodingType.MULTI_PART)]) -> dict[str, Any]:
    content = await data.file.read()
    return {
        "name": data.file.filename,
        "type": data.file.content_type,
        "size": len(content),
        "digest": digest(content),
        "note": data.note,
    }


@post("/digest", status_code=200)
async def digest_of_body(request: Asked) -> dict[str, str]:
    seen = hashlib.sha256()
    async for piece in request.stream():
        seen.update(piece)
    return {"digest": seen.hexdigest()}


@get("/stream/{key:str}")
async def stream(key: FromPath[str]) -> Stream:
    return Stream(pieces(key))


@get("/events/{key:str}")
async def events(key: FromPath[str]) -> Stream:
    return Stream(pieces(key), media_type="text/event-stream")


@post("/release/{key:str}", status_code=204)
async def release(key: FromPath[str]) -> None:
    released.add(key)


@get("/left")
async def which_left() -> list[str]:
    return left


@post("/background/{key:str}", status_code=202)
async def background(key: FromPath[str]) -> Response[None]:
    async def later() -> None:
        done.append(key)

    return Response(None, background=BackgroundTask(later))


@get("/done")
async def which_done() -> list[str]:
    return done


@get("/thread/{number:int}", sync_to_thread=True)
def in_thread(number: FromPath[int]) -> dict[str, Any]:
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return {"number": number, "loop": True}
    return {"number": number, "loop": False}


@get("/download")
async def download() -> File:
    return File(LARGE, filename="the-bridge.so")


@get("/crash")
async def crash() -> None:
    raise LookupError("the application crashed")


@get("/startup")
async def startup(state: State) -> dict[str, str]:
    return {"made": state.made}


@get("/where")
async def where(request: Asked) -> dict[str, str]:
    return {"path": httpx.URL(request.url_for("item", number=5)).path}


# --- Beyond what the frameworks have in common ---


class Shelf(Controller):
    path = "/shelf"

    @get(media_type=MediaType.TEXT)
    async def got(self) -> str:
        return "got"

    @patch("/{book:str}")
    async def change(self, book: FromPath[str], request: Asked) -> dict[str, str]:
        return {"book": book, "body": (await request.body()).decode()}

    @delete("/{book:str}")
    async def remove(self, book: FromPath[str]) -> None:
        done.append(f"removed {book}")


async def user_of(request: Asked) -> AsyncIterator[str]:
    yield request.headers["authorization"].removeprefix("Bearer ")
    done.append("user done")


def needs_token(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    if "authorization" not in connection.headers:
        raise PermissionDeniedException


@get("/secret", guards=[needs_token], dependencies={"user": Provide(user_of)}, media_type=MediaType.TEXT)
async def secret(user: NamedDependency[str]) -> str:
    return user


class Empty(Exception):
    pass


def teapot(request: Asked, error: Exception) -> Response[str]:
    return Response("short and stout", status_code=418, media_type=MediaType.TEXT)


@get("/pour")
async def pour() -> None:
    raise Empty


@get("/refused")
async def refused() -> None:
    raise HTTPException("no more tea", status_code=503, headers={"retry-after": "60"})


@get("/server-sent")
async def server_sent() -> ServerSentEvent:
    async def events() -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield {"data": f"number {number}", "event": "count", "id": number}

    return ServerSentEvent(events())


@get("/numbers", media_type=MediaType.TEXT)
async def numbers() -> Stream:
    return Stream((f"{number}\n" for number in range(2000)), media_type=MediaType.TEXT)


async def log(error: Exception, scope: Scope) -> None:
    traceback.print_exception(error)


@asgi("/mounted", is_mount=True, copy_scope=True)
async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode(), "more_body": False})


sessions = ServerSideSessionConfig()

app = Litestar(
    lifespan=[lifespan],
    logging_config=None,
    after_exception=[log],
    request_max_body_size=None,
    stores={"sessions": MemoryStore()},
    middleware=[stamp, sessions.middleware],
    exception_handlers={Empty: teapot},
    cors_config=CORSConfig(allow_origins=["https://shop.example"]),
    template_config=TemplateConfig(
        instance=JinjaTemplateEngine.from_environment(
            Environment(loader=DictLoader({"hello.html": "<h1>Hello, {{ name }}!</h1>"}), autoescape=True)
        )
    ),
    route_handlers=[
        root,
        item,
        new_item,
        head,
        hello,
        form,
        login,
        me,
        logout,
        cookies,
        upload,
        digest_of_body,
        stream,
        events,
        release,
        which_left,
        background,
        which_done,
        in_thread,
        download,
        crash,
        startup,
        where,
        Shelf,
        secret,
        pour,
        refused,
        server_sent,
        mounted,
        Router("/packed", route_handlers=[numbers]),
        create_static_files_router("/static", directories=[STATIC]),
    ],
    compression_config=None,
)


class TestFeatures(Features):
    validators: ClassVar = {}
    ranges = False


async def test_controller(client: httpx.AsyncClient) -> None:
    assert (await client.get("/shelf")).text == "got"
    assert (await client.patch("/shelf/tea", content=b"green")).json() == {"book": "tea", "body": "green"}
    response = await client.delete("/shelf/tea")
    assert (response.status_code, response.content) == (204, b"")


async def test_guard_and_dependency(client: httpx.AsyncClient) -> None:
    assert (await client.get("/secret")).status_code == 403
    assert (await client.get("/secret", headers={"authorization": "Bearer zoe"})).text == "zoe"
    assert "user done" in (await client.get("/done")).json()


async def test_errors(client: httpx.AsyncClient) -> None:
    response = await client.get("/pour")
    assert (response.status_code, response.text) == (418, "short and stout")
    response = await client.get("/refused")
    assert (response.status_code, response.headers["retry-after"]) == (503, "60")
    assert response.json()["detail"] == "no more tea"
    response = await client.post("/items", json={"name": "tea", "price": "much", "tags": []})
    assert response.status_code == 400
    assert response.json()["extra"][0]["key"] == "price"


async def test_events_of_litestars_own(client: httpx.AsyncClient) -> None:
    response = await client.get("/server-sent")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [line for line in response.text.splitlines() if line.startswith("data")] == [
        f"data: number {number}" for number in range(3)
    ]


async def test_cross_origin_requests(client: httpx.AsyncClient) -> None:
    origin = {"origin": "https://shop.example"}
    response = await client.get("/", headers=origin)
    assert response.headers["access-control-allow-origin"] == "https://shop.example"
    response = await client.options("/items", headers={**origin, "access-control-request-method": "POST"})
    assert response.status_code == 204


async def test_mounted_application(client: httpx.AsyncClient) -> None:
    assert (await client.get("/mounted/in/side")).text.startswith("/in/side")


async def test_schema(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/schema/openapi.json")).json()
    assert "/items/{number}" in schema["paths"]
