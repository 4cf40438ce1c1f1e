"""Several applications in one server, by path prefix."""

from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Serve, launch, unlike_uvicorn

pytestmark = unlike_uvicorn("it serves one application")

PATHS = ("path", "raw_path", "root_path")


def telling(name: str) -> Any:
    """An application that says who it is, with a state of its own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            print(name, "started", flush=True)
            scope["state"]["name"] = name
            await send({"type": "lifespan.startup.complete"})
            await receive()
            print(name, "shut down", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return
        paths = {
            key: value if isinstance(value, str) else value.decode() for key, value in scope.items() if key in PATHS
        }
        await answer(send, {"app": name, "state": scope["state"]["name"], **paths})

    return app


main, shop, admin = telling("main"), telling("shop"), telling("admin")

MOUNTS = [f"/shop={__name__}:shop", f"/shop/admin={__name__}:admin"]

CASES = {
    "/": "main",
    "/shopping": "main",
    "/other/shop": "main",
    "//shop": "main",
    "/Shop": "main",
    "/shop": "shop",
    "/shop/": "shop",
    "/shop?a": "shop",
    "/shop/list/1?a=b": "shop",
    "/shop/administration": "shop",
    "/%73hop/list": "shop",
    "/shop/admin": "admin",
    "/shop/admin/": "admin",
    "/shop%2Fadmin/users": "admin",
}

PREFIXES = {"main": "", "shop": "/shop", "admin": "/shop/admin"}


async def test_longest_prefix_of_whole_segments_wins(serve: Serve, connect: Connect) -> None:
    server = serve(f"{__name__}:main", mount=MOUNTS)
    connection = await connect(server)
    for target, name in CASES.items():
        seen = (await connection.get(target)).json()
        assert (seen["app"], seen["state"]) == (name, name), target
        assert seen["root_path"] == PREFIXES[name], target
        assert seen["raw_path"] == target.split("?")[0]
        assert seen["path"].startswith(seen["root_path"])


async def test_root_path_is_before_the_prefix(serve: Serve, connect: Connect) -> None:
    server = serve(f"{__name__}:main", mount=MOUNTS, root_path="/proxied")
    connection = await connect(server)
    seen = (await connection.get("/shop/list")).json()
    assert seen == {
        "app": "shop",
        "state": "shop",
        "root_path": "/proxied/shop",
        "path": "/proxied/shop/list",
        "raw_path": "/proxied/shop/list",
    }
    assert (await connection.get("/list")).json()["root_path"] == "/proxied"


async def test_what_fits_no_mount_is_not_found(serve: Serve, connect: Connect) -> None:
    connection = await connect(serve("", mount=MOUNTS))
    assert (await connection.get("/shop/list")).json()["app"] == "shop"
    response = await connection.get("/shopping")
    assert (response.status, response.body) == (404, b"Not Found")
    assert response.header(b"content-type") == b"text/plain"
    assert (await connection.get("/shop/admin")).json()["app"] == "admin"
    assert (await connection.post("/", b"body")).status == 404


async def test_each_has_its_lifespan(serve: Serve) -> None:
    server = serve(f"{__name__}:main", mount=MOUNTS)
    for name in PREFIXES:
        assert server.output.count(f"{name} started") == 1
        assert f"{name} shut down" not in server.output
    server.process.terminate()
    assert await server.exit_code() == 0
    for name in PREFIXES:
        assert server.output.count(f"{name} shut down") == 1


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def failing_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise ValueError("lost it")


async def test_failed_start_of_one_ends_those_that_have_started() -> None:
    with launch(failing, mount=MOUNTS) as server:
        assert await server.exit_code() == 3
        assert f"`{__name__}:failing`: application start-up failed: no database" in server.log
        for name in ("shop", "admin"):
            assert server.output.count(f"{name} started") == 1
            assert server.output.count(f"{name} shut down") == 1


async def test_failed_shutdown_of_one_leaves_the_others_theirs(serve: Serve) -> None:
    server = serve(f"{__name__}:main", mount=[*MOUNTS, f"/failing={__name__}:failing_at_the_end"])
    server.process.terminate()
    assert await server.exit_code() == 3
    assert f"`{__name__}:failing_at_the_end`: exception in application shutdown" in server.log
    assert "lost it" in server.log
    for name in PREFIXES:
        assert server.output.count(f"{name} shut down") == 1


def make_shop() -> Any:
    return telling("made")


FILE = f"""
app = "{__name__}:main"
root_path = "/proxied"

[mount."/made"]
app = "{__name__}:make_shop"
factory = true

[mount."/failing"]
app = "{__name__}:failing"
lifespan = "off"

[mount."/shop"]
app = "{__name__}:shop"
root-path = "/v2"
"""


@pytest.mark.protocols("http/1.1")
async def test_settings_of_their_own(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "aiovoy.toml").write_text(FILE)
    server = serve(f"{__name__}:main", config=tmp_path / "aiovoy.toml")
    connection = await connect(server)
    for path, seen in {
        "/": ("main", "/proxied"),
        "/made": ("made", "/proxied/made"),
        "/shop": ("shop", "/v2/shop"),
    }.items():
        answered = (await connection.get(path)).json()
        assert (answered["app"], answered["root_path"]) == seen
    assert "is called to make the application" not in server.log


@pytest.mark.parametrize("app", ["nowhere:app", f"{__name__}:nothing"])
async def test_application_that_cannot_be_imported_is_named(app: str) -> None:
    with launch(f"{__name__}:main", mount=[*MOUNTS, f"/other={app}"]) as server:
        assert await server.exit_code() != 0
        assert app in server.log
        assert "started" not in server.output
