"""A Django project in one module: database, users, sessions, forms and files, synchronous and asynchronous views."""

import asyncio
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import httpx
import pytest
from django import forms
from django.conf import settings
from django.contrib.auth import aauthenticate, alogin, alogout
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import render
from django.urls import include, path, reverse
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.gzip import gzip_page
from django.views.static import serve as static_file

from py_tests.harness.deadline import eventually
from py_tests.harness.features import LARGE, STATIC, Features, digest, done, left, pieces, released
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Server, serve

TEMPLATES = {
    "hello.html": "<h1>Hello, {{ name }}!</h1>",
    "form.html": "<form method=post>{% csrf_token %}{{ form }}</form>",
}

folder = tempfile.TemporaryDirectory(prefix="django-")


def app() -> ASGIHandler:
    """Makes the application, where it runs; here Django stays as it is."""
    from django.core.asgi import get_asgi_application

    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{folder.name}/database",
                "OPTIONS": {"transaction_mode": "IMMEDIATE"},
            }
        },
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"handlers": ["console"], "level": "ERROR"},
        },
        MIDDLEWARE=[
            f"{__name__}.Stamp",
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY="not secret",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", TEMPLATES)]},
            }
        ],
        USE_TZ=True,
    )
    application = get_asgi_application()
    # Django would not use its database where an event loop runs.
    with ThreadPoolExecutor() as pool:
        pool.submit(fill_database).result()
    request_finished.connect(finished)
    return application


def fill_database() -> None:
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    User.objects.create_user("zoë", password="secret")


class Stamp:
    """A middleware for asynchronous and, by Django's adapter, for synchronous views."""

    async_capable, sync_capable = True, False

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = await self.get_response(request)
        response["x-middleware"] = f"{request.method} {request.path}"
        return response


async def root(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"hello": "world"})


async def item(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse({"number": number, "q": request.GET.get("q")})


async def new_item(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    return JsonResponse(json.loads(request.body), status=201)


def head(request: HttpRequest) -> HttpResponse:
    return HttpResponse("x" * 1000)


def hello(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "hello.html", {"name": name})


def form(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"name": request.POST["name"], "ages": request.POST.getlist("ages")})


async def login(request: HttpRequest) -> HttpResponse:
    user = await aauthenticate(request, username=request.POST["name"], password=request.POST["password"])
    await alogin(request, user)
    return HttpResponseRedirect(reverse("me"), status=303)


async def me(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    return JsonResponse({"name": user.get_username()}, status=200 if user.is_authenticated else 401)


async def logout(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse(status=204)


def cookies(request: HttpRequest) -> HttpResponse:
    response = JsonResponse(request.COOKIES)
    response.set_cookie("basket", "full", max_age=60, httponly=True)
    response.set_cookie("seen", "yes, twice", path="/cookies", samesite="strict")
    return response


def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse(
        {
            "name": file.name,
            "type": file.content_type,
            "size": file.size,
            "digest": digest(b"".join(file.chunks())),
            "note": request.POST["note"],
        }
    )


async def digest_of_body(request: HttpRequest) -> HttpResponse:
    seen = hashlib.sha256()
    while piece := request.read(64 * 1024):
        seen.update(piece)
    return JsonResponse({"digest": seen.hexdigest()})


async def stream(request: HttpRequest, key: str) -> HttpResponseBase:
    return StreamingHttpResponse(pieces(key))


async def events(request: HttpRequest, key: str) -> HttpResponseBase:
    return StreamingHttpResponse(pieces(key), content_type="text/event-stream")


async def release(request: HttpRequest, key: str) -> HttpResponse:
    released.add(key)
    return HttpResponse(status=204)


tasks: set[asyncio.Task[None]] = set()


async def background(request: HttpRequest, key: str) -> HttpResponse:
    async def later() -> None:
        await asyncio.sleep(0.01)
        done.append(key)

    task = asyncio.create_task(later())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return HttpResponse(status=202)


def in_thread(request: HttpRequest, number: int) -> HttpResponse:
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return JsonResponse({"number": number, "loop": True})
    return JsonResponse({"number": number, "loop": False})


def download(request: HttpRequest) -> HttpResponseBase:
    return FileResponse(LARGE.open("rb"), as_attachment=True, filename="the-bridge.so")


async def crash(request: HttpRequest) -> HttpResponse:
    raise LookupError("the application crashed")


# --- Beyond what the frameworks have in common ---

signals = 0


def finished(**about: object) -> None:
    global signals
    signals += 1


class Shelf(View):  # type: ignore[misc]
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("got")

    async def put(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"put {request.body!r}")


class Order(forms.Form):  # type: ignore[misc]
    name = forms.CharField(max_length=5)
    count = forms.IntegerField(min_value=1)


def order(request: HttpRequest) -> HttpResponse:
    """A form as Django's users have it, with its token against forged requests."""
    form = Order(request.POST or None)
    if form.is_valid():
        return JsonResponse(form.cleaned_data)
    return render(request, "form.html", {"form": form}, status=422 if request.POST else 200)


def users(request: HttpRequest) -> HttpResponse:
    from django.contrib.auth.models import User
    from django.db import transaction

    with transaction.atomic():
        User.objects.get_or_create(username=request.GET["name"])
    return JsonResponse(list(User.objects.order_by("id").values_list("username", flat=True)), safe=False)


async def async_users(request: HttpRequest) -> HttpResponse:
    from django.contrib.auth.models import User

    return JsonResponse([user.username async for user in User.objects.order_by("id")], safe=False)


def numbers(request: HttpRequest) -> HttpResponseBase:
    return StreamingHttpResponse(f"{number}\n" for number in range(2000))


async def disconnected(request: HttpRequest, key: str) -> HttpResponse:
    """Django cancels a view whose client has left."""
    done.append(key)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        left.append(key)
        raise
    raise AssertionError("nobody sets the event")


urlpatterns = [
    path("", root),
    path("items/<int:number>", item, name="item"),
    path("items", csrf_exempt(new_item)),
    path("head", head),
    path("hello/<str:name>", hello),
    path("form", csrf_exempt(form)),
    path("login", csrf_exempt(login)),
    path("me", me, name="me"),
    path("logout", csrf_exempt(logout)),
    path("cookies", cookies),
    path("upload", csrf_exempt(upload)),
    path("digest", csrf_exempt(digest_of_body)),
    path("stream/<str:key>", stream),
    path("events/<str:key>", events),
    path("release/<str:key>", csrf_exempt(release)),
    path("left", lambda request: JsonResponse(left, safe=False)),
    path("background/<str:key>", csrf_exempt(background)),
    path("done", lambda request: JsonResponse(done, safe=False)),
    path("thread/<int:number>", in_thread),
    path("static/<path:path>", static_file, {"document_root": STATIC}),
    path("download", download),
    path("crash", crash),
    path("where", lambda request: JsonResponse({"path": reverse("item", args=[5])})),
    path("shelf", csrf_exempt(Shelf.as_view())),
    path("order", order),
    path("users", include([path("", users), path("/async", async_users)])),
    path("numbers", gzip_page(numbers)),
    path("signals", lambda request: JsonResponse(signals, safe=False)),
    path("disconnected/<str:key>", disconnected),
    path("slash/", root),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(app, factory=True) as server:
        yield server


class TestFeatures(Features):
    options: ClassVar = {"factory": True}
    validators: ClassVar = {"last-modified": "if-modified-since"}
    ranges = lifespan = False


async def test_class_of_methods(client: httpx.AsyncClient) -> None:
    assert (await client.get("/shelf")).text == "got"
    assert (await client.put("/shelf", content=b"book")).text == "put b'book'"
    assert (await client.delete("/shelf")).status_code == 405


async def test_form_with_its_token(client: httpx.AsyncClient) -> None:
    token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', (await client.get("/order")).text)
    assert token
    good = {"name": "tea", "count": "2"}
    assert (await client.post("/order", data=good)).status_code == 403
    response = await client.post("/order", data={**good, "csrfmiddlewaretoken": token[1]})
    assert response.json() == {"name": "tea", "count": 2}
    response = await client.post("/order", data={"name": "coffee", "csrfmiddlewaretoken": token[1]})
    assert response.status_code == 422
    assert "at most 5 characters" in response.text
    assert "This field is required" in response.text


async def test_database(client: httpx.AsyncClient, key: str) -> None:
    names = [f"{key}{number}" for number in range(10)]
    await asyncio.gather(*(client.get("/users", params={"name": name}) for name in names))
    assert set((await client.get("/users/async")).json()) >= {"zoë", *names}


async def test_compressed_stream_of_a_synchronous_generator(client: httpx.AsyncClient) -> None:
    response = await client.get("/numbers")
    assert response.headers["content-encoding"] == "gzip"
    assert response.text.split() == [str(number) for number in range(2000)]


async def test_each_request_is_finished(client: httpx.AsyncClient) -> None:
    before = (await client.get("/signals")).json()
    for _ in range(5):
        await client.get("/head")
    assert (await client.get("/signals")).json() - before == 6


async def test_view_whose_client_leaves_is_cancelled(server: Server, connect: Connect, key: str) -> None:
    async def listed(path: str) -> bool:
        return key in (await server.get(path)).json()

    exchange = await (await connect(server)).start("GET", f"/disconnected/{key}")
    await eventually(lambda: listed("/done"))
    await exchange.leave()
    await eventually(lambda: listed("/left"))


async def test_host_that_is_not_allowed(client: httpx.AsyncClient) -> None:
    response = await client.get("/slash", headers={"host": "evil.example"})
    assert response.status_code == 400


async def test_slash_is_added_by_a_redirect(client: httpx.AsyncClient) -> None:
    response = await client.get("/slash")
    assert (response.status_code, response.headers["location"]) == (301, "/slash/")
