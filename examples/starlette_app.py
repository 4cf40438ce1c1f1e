"""A small Starlette application: `aiovoy starlette_app:app --app-dir examples`, which is what `make serve` does."""

import asyncio
import hashlib
import platform
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.routing import Route

PAGE = """\
<!doctype html>
<title>aiovoy</title>
<h1>Hello from inside Envoy</h1>
<p>CPython {python} answered over HTTP/{http_version}, {uptime:.0f} s after its start.</p>
<ul>
  <li><a href="/json">/json</a> is JSON
  <li><a href="/countdown">/countdown</a> comes line by line
  <li>/upload takes a file of any size:
    <input type="file" onchange="fetch('/upload', {{method: 'POST', body: this.files[0]}})
      .then(answer => answer.text()).then(text => this.nextElementSibling.textContent = text)"> <output></output>
</ul>
"""


class State(TypedDict):
    """What every request finds in `request.state`."""

    started: float


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    """Runs before Envoy listens, and after the last request."""
    yield {"started": time.monotonic()}


def uptime(request: Request) -> float:
    started: float = request.state.started
    return time.monotonic() - started


async def page(request: Request) -> HTMLResponse:
    facts = {"python": platform.python_version(), "http_version": request.scope["http_version"]}
    return HTMLResponse(PAGE.format(uptime=uptime(request), **facts))


async def json(request: Request) -> JSONResponse:
    answer = {"hello": "world", "http_version": request.scope["http_version"], "uptime": round(uptime(request), 3)}
    return JSONResponse(answer)


async def countdown(request: Request) -> StreamingResponse:
    """Each line leaves when it is there; a client that goes away cancels the rest."""

    async def lines() -> AsyncIterator[str]:
        for number in range(5, 0, -1):
            yield f"{number}\n"
            await asyncio.sleep(0.2)
        yield "lift-off\n"

    return StreamingResponse(lines(), media_type="text/plain")


async def upload(request: Request) -> JSONResponse:
    """Reads the body piece by piece: Envoy lets no more of it in than the application has room for."""
    size = 0
    digest = hashlib.sha256()
    async for piece in request.stream():
        size += len(piece)
        digest.update(piece)
    return JSONResponse({"bytes": size, "sha256": digest.hexdigest()})


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", page),
        Route("/json", json),
        Route("/countdown", countdown),
        Route("/upload", upload, methods=["POST"]),
    ],
)
