"""A Starlette application, with what Starlette has for applications."""

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
from jinja2 import DictLoader, Environment
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
    requires,
)
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Host, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from py_tests.harness.features import LARGE, STATIC, Features, Stamp, digest, done, left, pieces, released

loader = DictLoader({"hello.html": "<h1>Hello, {{ name }}!</h1>"})
templates = Jinja2Templates(env=Environment(loader=loader, autoescape=True))


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"made": "from the start"}


async def root(request: Request) -> Response:
    return JSONResponse({"hello": "world"})


async def item(request: Request) -> Response:
    return JSONResponse({"number": request.path_params["number"], "q": request.query_params.get("q")})


async def new_item(request: Request) -> Response:
    return JSONResponse(await request.json(), status_code=201)


async def head(request: Request) -> Response:
    return PlainTextResponse("x" * 1000)


async def hello(request: Request) -> Response:
    return templates.TemplateResponse(request, "hello.html", {"name": request.path_params["name"]})


async def form(request: Request) -> Response:
    async with request.form() as fields:
        return JSONResponse({"name": fields["name"], "ages": fields.getlist("ages")})


async def login(request: Request) -> Response:
    async with request.form() as fields:
        request.session["name"] = fields["name"]
    return RedirectResponse(request.url_for("me").path, status_code=303)


async def me(request: Request) -> Response:
    if "name" not in request.session:
        raise HTTPException(401)
    return JSONResponse({"name": request.session["name"]})


async def logout(request: Request) -> Response:
    request.session.clear()
    return Response(status_code=204)


async def cookies(request: Request) -> Response:
    response = JSONResponse(request.cookies)
    response.set_cookie("basket", "full", max_age=60, httponly=True)
    response.set_cookie("seen", "yes, twice", path="/cookies", samesite="strict")
    return response


async def upload(request: Request) -> Response:
    async with request.form() as fields:
        file = fields["file"]
        assert isinstance(file, UploadFile)
        content = await file.read()
        return JSONResponse(
            {
                "name": file.filename,
                "type": file.content_type,
                "size": file.size,
                "digest": digest(content),
                "note": fields["note"],
            }
        )


async def digest_of_body(request: Request) -> Response:
    seen = hashlib.sha256()
    async for piece in request.stream():
        seen.update(piece)
    return JSONResponse({"digest": seen.hexdigest()})


async def stream(request: Request) -> Response:
    return StreamingResponse(pieces(request.path_params["key"]))


async def events(request: Request) -> Response:
    return StreamingResponse(pieces(request.path_params["key"]), media_type="text/event-stream")


async def release(request: Request) -> Response:
    released.add(request.path_params["key"])
    return Response(status_code=204)


async def background(request: Request) -> Response:
    return Response(status_code=202, background=BackgroundTask(done.append, request.path_params["key"]))


def in_thread(request: Request) -> Response:
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return JSONResponse({"number": request.path_params["number"], "loop": True})
    assert threading.current_thread() is not threading.main_thread()
    return JSONResponse({"number": request.path_params["number"], "loop": False})


async def download(request: Request) -> Response:
    return FileResponse(LARGE, filename="the-bridge.so")


async def crash(request: Request) -> Response:
    raise LookupError("the application crashed")


async def startup(request: Request) -> Response:
    return JSONResponse({"made": request.state.made})


async def where(request: Request) -> Response:
    return JSONResponse({"path": request.url_for("item", number=5).path})


# --- Beyond what the frameworks have in common ---


class Shelf(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("got")

    async def put(self, request: Request) -> Response:
        return PlainTextResponse(f"put {await request.body()!r}")


class Tokens(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        token = conn.headers.get("authorization")
        if token is None:
            return None
        if token != "Bearer good":
            raise AuthenticationError("no such token")
        return AuthCredentials(["authenticated"]), SimpleUser("zoë")


@requires("authenticated", status_code=403)
async def secret(request: Request) -> Response:
    return PlainTextResponse(request.user.display_name)


class Upper(BaseHTTPMiddleware):
    """Reads both bodies: what Starlette's own middleware class makes hard for a server."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        size = len(await request.body())
        response = await call_next(request)
        response.headers["x-size"] = str(size)
        return response


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def numbers(request: Request) -> Response:
    return StreamingResponse(f"{number}\n" for number in range(2000))


async def teapot(request: Request, error: Exception) -> Response:
    return PlainTextResponse("short and stout", status_code=418)


async def pour(request: Request) -> Response:
    raise ZeroDivisionError


async def by_host(request: Request) -> Response:
    return PlainTextResponse(f"shop of {request.path_params['name']}")


inner = Starlette(routes=[Route("/echo", echo, methods=["POST"])], middleware=[Middleware(Upper)])

app = Starlette(
    lifespan=lifespan,
    exception_handlers={ZeroDivisionError: teapot},
    middleware=[
        Middleware(Stamp),
        Middleware(SessionMiddleware, secret_key="not secret"),
        Middleware(AuthenticationMiddleware, backend=Tokens()),
    ],
    routes=[
        Route("/", root),
        Route("/items/{number:int}", item, name="item"),
        Route("/items", new_item, methods=["POST"]),
        Route("/head", head),
        Route("/hello/{name}", hello),
        Route("/form", form, methods=["POST"]),
        Route("/login", login, methods=["POST"]),
        Route("/me", me),
        Route("/logout", logout, methods=["POST"]),
        Route("/cookies", cookies),
        Route("/upload", upload, methods=["POST"]),
        Route("/digest", digest_of_body, methods=["POST"]),
        Route("/stream/{key}", stream),
        Route("/events/{key}", events),
        Route("/release/{key}", release, methods=["POST"]),
        Route("/left", lambda request: JSONResponse(left)),
        Route("/background/{key}", background, methods=["POST"]),
        Route("/done", lambda request: JSONResponse(done)),
        Route("/thread/{number:int}", in_thread),
        Route("/download", download),
        Route("/crash", crash),
        Route("/startup", startup),
        Route("/where", where),
        Route("/shelf", Shelf),
        Route("/secret", secret),
        Route("/pour", pour),
        Mount("/static", StaticFiles(directory=STATIC)),
        Mount("/inner", inner),
        Mount("/packed", Route("/numbers", numbers), middleware=[Middleware(GZipMiddleware)]),
        Host("{name}.shop.example", Route("/shop", by_host)),
    ],
)


class TestFeatures(Features):
    pass


async def test_class_of_methods(client: httpx.AsyncClient) -> None:
    assert (await client.get("/shelf")).text == "got"
    assert (await client.put("/shelf", content=b"book")).text == "put b'book'"
    assert (await client.delete("/shelf")).status_code == 405


async def test_authentication(client: httpx.AsyncClient) -> None:
    assert (await client.get("/secret")).status_code == 403
    assert (await client.get("/secret", headers={"authorization": "Bearer bad"})).status_code == 400
    assert (await client.get("/secret", headers={"authorization": "Bearer good"})).text == "zoë"


async def test_exception_handler(client: httpx.AsyncClient) -> None:
    response = await client.get("/pour")
    assert (response.status_code, response.text) == (418, "short and stout")


async def test_mounted_application_with_its_middleware(client: httpx.AsyncClient) -> None:
    response = await client.post("/inner/echo", content=b"y" * 300_000)
    assert response.content == b"y" * 300_000
    assert response.headers["x-size"] == "300000"


async def test_compressed_stream(client: httpx.AsyncClient) -> None:
    response = await client.get("/packed/numbers")
    assert response.headers["content-encoding"] == "gzip"
    assert response.text.split() == [str(number) for number in range(2000)]


async def test_route_by_host(client: httpx.AsyncClient) -> None:
    assert (await client.get("/shop", headers={"host": "tea.shop.example"})).text == "shop of tea"
    assert (await client.get("/shop")).status_code == 404


async def test_slash_is_added_by_a_redirect(client: httpx.AsyncClient) -> None:
    response = await client.get("/shelf/")
    assert response.status_code == 307
    assert response.headers["location"] == str(client.base_url.join("/shelf"))
