"""A Quart application, with what Quart has for applications."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
from quart import (
    Blueprint,
    Quart,
    Response,
    abort,
    after_this_request,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    make_response,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)
from quart.utils import run_sync
from werkzeug.exceptions import HTTPException

from py_tests.harness.features import LARGE, STATIC, Features, digest, done, left, pieces, released

app = Quart(__name__, static_folder=str(STATIC), static_url_path="/static")
app.secret_key = "not secret"
app.config["MAX_CONTENT_LENGTH"] = None


@app.while_serving
async def lifespan() -> AsyncGenerator[None]:
    app.config["MADE"] = "from the start"
    yield


@app.before_request
async def begin() -> None:
    g.stamp = f"{request.method} {request.path}"


@app.after_request
async def stamp(response: Response) -> Response:
    response.headers["x-middleware"] = g.stamp
    return response


@app.get("/")
async def root() -> Any:
    return {"hello": "world"}


@app.get("/items/<int:number>")
async def item(number: int) -> Any:
    return {"number": number, "q": request.args.get("q")}


@app.post("/items")
async def new_item() -> Any:
    return await request.get_json(), 201


@app.get("/head")
async def head() -> Any:
    return "x" * 1000


@app.get("/hello/<name>")
async def hello(name: str) -> Any:
    return await render_template_string("<h1>Hello, {{ name }}!</h1>", name=name)


@app.post("/form")
async def form() -> Any:
    fields = await request.form
    return {"name": fields["name"], "ages": fields.getlist("ages")}


@app.post("/login")
async def login() -> Any:
    session["name"] = (await request.form)["name"]
    return redirect(url_for("me"), 303)


@app.get("/me")
async def me() -> Any:
    if "name" not in session:
        abort(401)
    return {"name": session["name"]}


@app.post("/logout")
async def logout() -> Any:
    session.clear()
    return "", 204


@app.get("/cookies")
async def cookies() -> Any:
    response = await make_response(jsonify(request.cookies))
    response.set_cookie("basket", "full", max_age=60, httponly=True)
    response.set_cookie("seen", "yes, twice", path="/cookies", samesite="Strict")
    return response


@app.post("/upload")
async def upload() -> Any:
    file = (await request.files)["file"]
    content = file.read()
    return {
        "name": file.filename,
        "type": file.content_type,
        "size": len(content),
        "digest": digest(content),
        "note": (await request.form)["note"],
    }


@app.post("/digest")
async def digest_of_body() -> Any:
    seen = hashlib.sha256()
    async for piece in request.body:
        seen.update(piece)
    return {"digest": seen.hexdigest()}


@app.get("/stream/<key>")
async def stream(key: str) -> Any:
    return pieces(key)


@app.get("/events/<key>")
async def events(key: str) -> Any:
    return pieces(key), {"content-type": "text/event-stream", "cache-control": "no-cache"}


@app.post("/release/<key>")
async def release(key: str) -> Any:
    released.add(key)
    return "", 204


@app.get("/left")
async def which_left() -> Any:
    return jsonify(left)


@app.post("/background/<key>")
async def background(key: str) -> Any:
    async def later() -> None:
        await asyncio.sleep(0.01)
        done.append(key)

    app.add_background_task(later)
    return "", 202


@app.get("/done")
async def which_done() -> Any:
    return jsonify(done)


@app.get("/thread/<int:number>")
def in_thread(number: int) -> Any:
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return {"number": number, "loop": True}
    return {"number": number, "loop": False}


@app.get("/download")
async def download() -> Any:
    return await send_file(LARGE, as_attachment=True, attachment_filename="the-bridge.so")


@app.get("/crash")
async def crash() -> Any:
    raise LookupError("the application crashed")


@app.get("/startup")
async def startup() -> Any:
    return {"made": app.config["MADE"]}


@app.get("/where")
async def where() -> Any:
    return {"path": url_for("item", number=5)}


# --- Beyond what the frameworks have in common ---

shelf = Blueprint("shelf", __name__, url_prefix="/shelf")


@shelf.route("/<book>", methods=["GET", "PUT"])
async def book(book: str) -> Any:
    if request.method == "PUT":
        return f"put {book}: {(await request.data)!r}"
    return url_for("shelf.book", book=book)


@shelf.errorhandler(ZeroDivisionError)
async def teapot(error: Exception) -> Any:
    return "short and stout", 418


@shelf.get("/pour")
async def pour() -> Any:
    raise ZeroDivisionError


app.register_blueprint(shelf)


@app.errorhandler(403)
async def forbidden(error: HTTPException) -> Any:
    return {"why": error.description}, 403


@app.get("/secret")
async def secret() -> Any:
    if request.authorization is None or request.authorization.password != "secret":
        abort(403, "wrong password")
    return request.authorization.username


@app.get("/flash")
async def flashes() -> Any:
    await flash("saved")
    return "", 204


@app.get("/flashed")
async def flashed() -> Any:
    return jsonify(get_flashed_messages())


@app.get("/context")
async def context() -> Any:
    @after_this_request
    async def mark(response: Any) -> Any:
        response.headers["x-marked"] = "yes"
        return response

    @stream_with_context
    async def paths() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield f"{request.path}\n"

    return paths()


@app.get("/numbers")
async def numbers() -> Any:
    return (f"{number}\n" for number in range(2000))


@app.get("/blocking")
async def blocking() -> Any:
    return await run_sync(lambda: request.path)()


class TestFeatures(Features):
    pass


async def test_blueprint(client: httpx.AsyncClient) -> None:
    assert (await client.get("/shelf/tea")).text == "/shelf/tea"
    assert (await client.put("/shelf/tea", content=b"green")).text == "put tea: b'green'"
    response = await client.get("/shelf/pour")
    assert (response.status_code, response.text) == (418, "short and stout")


async def test_authorization_and_error_page(client: httpx.AsyncClient) -> None:
    response = await client.get("/secret")
    assert (response.status_code, response.json()) == (403, {"why": "wrong password"})
    assert (await client.get("/secret", auth=("zoe", "secret"))).text == "zoe"


async def test_flashed_messages(client: httpx.AsyncClient) -> None:
    await client.get("/flash")
    assert (await client.get("/flashed")).json() == ["saved"]
    assert (await client.get("/flashed")).json() == []


async def test_stream_within_its_request(client: httpx.AsyncClient) -> None:
    response = await client.get("/context")
    assert response.text == "/context\n" * 3
    assert response.headers["x-marked"] == "yes"


async def test_stream_of_a_synchronous_generator(client: httpx.AsyncClient) -> None:
    assert (await client.get("/numbers")).text.split() == [str(number) for number in range(2000)]


async def test_request_in_a_thread(client: httpx.AsyncClient) -> None:
    assert (await client.get("/blocking")).text == "/blocking"
