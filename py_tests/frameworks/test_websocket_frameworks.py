"""WebSockets as users of Starlette and FastAPI write them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Query, WebSocketException, status
from fastapi import WebSocket as FastWebSocket
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, requires
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from py_tests.harness.apps import note, notes
from py_tests.harness.deadline import eventually
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect
from py_tests.harness.serving import Server
from py_tests.harness.ws_client import Refused, complaints, dial

pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)

# --- Starlette ---


async def texts(socket: WebSocket) -> None:
    await socket.accept(subprotocol="b" if "b" in socket.scope["subprotocols"] else None, headers=[(b"x-a", b"1")])
    await socket.send_text(f"{socket.path_params['name']} {socket.query_params.get('q')} {socket.url.scheme}")
    async for text in socket.iter_text():
        await socket.send_text(text.upper())
    note(dict(socket.scope), "left")


async def jsons(socket: WebSocket) -> None:
    await socket.accept()
    mode = socket.path_params["mode"]
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.send_json({"got": await socket.receive_json(mode=mode)}, mode=mode)


async def data(socket: WebSocket) -> None:
    await socket.accept()
    async for piece in socket.iter_bytes():
        await socket.send_bytes(piece[::-1])


async def disconnected(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect as left:
        note(dict(socket.scope), [left.code, left.reason, socket.client_state is WebSocketState.DISCONNECTED])
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.send_text("late")
        note(dict(socket.scope), "sent")
    note(dict(socket.scope), "end")


async def sends_on(socket: WebSocket) -> None:
    """As most applications do: nothing is caught, and Starlette's own exception ends it."""
    await socket.accept()
    try:
        while True:
            await socket.send_text("tick")
            await asyncio.sleep(0.001)
    finally:
        note(dict(socket.scope), "end")


async def denies(socket: WebSocket) -> None:
    await socket.send_denial_response(JSONResponse({"error": "no"}, status_code=402, headers={"x-why": "money"}))


async def closes(socket: WebSocket) -> None:
    if socket.query_params.get("early"):
        await socket.close(code=4000)
        return
    await socket.accept()
    await socket.close(code=4001, reason="that was it")


class Endpoint(WebSocketEndpoint):
    encoding = "json"

    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_json({"echo": data})

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        note(dict(websocket.scope), close_code)


class ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("x-user")
        return (AuthCredentials(["authenticated"]), SimpleUser(name)) if name else None


@requires("authenticated")
async def members(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.display_name)


starlette = Starlette(
    routes=[
        WebSocketRoute("/texts/{name}", texts),
        WebSocketRoute("/jsons/{mode}", jsons),
        WebSocketRoute("/data", data),
        WebSocketRoute("/disconnected", disconnected),
        WebSocketRoute("/sends_on", sends_on),
        WebSocketRoute("/denies", denies),
        WebSocketRoute("/closes", closes),
        WebSocketRoute("/endpoint", Endpoint),
        WebSocketRoute("/members", members),
    ],
    middleware=[Middleware(AuthenticationMiddleware, backend=ByHeader())],
)


# --- FastAPI ---


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"greeting": "welcome"}


fast = FastAPI(lifespan=lifespan)


async def resource(socket: FastWebSocket) -> AsyncIterator[str]:
    """Something that must be given back."""
    yield "resource"
    note(dict(socket.scope), "given back")


async def session(session: Annotated[str | None, Cookie()] = None, token: Annotated[str | None, Query()] = None) -> str:
    if session is None and token is None:
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION, reason="no session")
    return session or token or ""


@fast.websocket("/items/{item}")
async def items(
    socket: FastWebSocket,
    item: int,
    who: Annotated[str, Depends(session)],
    what: Annotated[str, Depends(resource)],
    x_extra: Annotated[str | None, Header()] = None,
) -> None:
    await socket.accept()
    await socket.send_json([item, who, what, x_extra, socket.state.greeting])
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.send_text(await socket.receive_text())


class Room:
    """The chat room of tutorials."""

    def __init__(self) -> None:
        self.sockets: list[FastWebSocket] = []

    async def broadcast(self, text: str) -> None:
        for socket in self.sockets:
            await socket.send_text(text)


room = Room()


@fast.websocket("/chat/{name}")
async def chat(socket: FastWebSocket, name: str) -> None:
    await socket.accept()
    room.sockets.append(socket)
    try:
        while True:
            await room.broadcast(f"{name}: {await socket.receive_text()}")
    except WebSocketDisconnect:
        room.sockets.remove(socket)
        await room.broadcast(f"{name} has left")


@fast.websocket("/late_exception")
async def late_exception(socket: FastWebSocket) -> None:
    await socket.accept()
    raise WebSocketException(code=4002, reason="after all")


@fast.websocket("/fails")
async def fails(socket: FastWebSocket) -> None:
    await socket.accept()
    raise ValueError("a fault of the application")


starlette.router.routes.append(Mount("/fast", fast))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope.get("path") == "/notes":
        await notes(scope, receive, send)
    elif scope["type"] == "lifespan":
        await fast(scope, receive, send)
    else:
        await starlette(scope, receive, send)


# --- Tests ---


async def test_text(server: Server, connect: Connect, key: str, protocol: str) -> None:
    socket = await dial(await connect(server), f"/texts/ann?{key}&q=2", subprotocols="a, b")
    assert (socket.header(b"sec-websocket-protocol"), socket.header(b"x-a")) == (b"b", b"1")
    assert await socket.receive() == f"ann 2 {'wss' if protocol == HTTP3 else 'ws'}"
    for text in ["one", "two"]:
        await socket.send(text)
        assert await socket.receive() == text.upper()
    await socket.close()
    await server.noted(f"{key}&q=2", "left")
    assert complaints(server) == []


@pytest.mark.parametrize("mode", ["text", "binary"])
async def test_json(server: Server, connect: Connect, mode: str) -> None:
    socket = await dial(await connect(server), f"/jsons/{mode}")
    value = {"a": [1, None, "é"]}
    text = json.dumps(value)
    await socket.send(text if mode == "text" else text.encode())
    assert json.loads(await socket.receive()) == {"got": value}
    await socket.close()


async def test_bytes(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/data")
    await socket.send(b"abc")
    assert await socket.receive() == b"cba"
    await socket.close()


async def test_disconnect_has_code_and_reason(server: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(server), f"/disconnected?{key}")
    await socket.close(4000, "bye")
    assert await server.noted(key, "end") == [[4000, "bye", True], "end"]


@pytest.mark.parametrize("way", ["close", "leave"])
async def test_client_that_leaves_a_sender_is_no_error(server: Server, connect: Connect, key: str, way: str) -> None:
    socket = await dial(await connect(server), f"/sends_on?{key}")
    assert await socket.receive() == "tick"
    if way == "leave":
        await socket.leave()
    else:
        await socket.connection.close()
    await server.noted(key, "end")  # asked of the loop that would have logged it by then
    other = await dial(await connect(server), "/data")
    await other.send(b"ab")
    assert await other.receive() == b"ba"
    assert complaints(server) == []


async def test_denial_response(server: Server, connect: Connect) -> None:
    with pytest.raises(Refused) as refused:
        await dial(await connect(server), "/denies")
    response = refused.value.response
    assert (response.status, json.loads(response.body)) == (402, {"error": "no"})
    assert response.header(b"x-why") == b"money"


async def test_close_codes(server: Server, connect: Connect) -> None:
    assert await (await dial(await connect(server), "/closes")).closed() == (4001, "that was it")
    with pytest.raises(Refused) as refused:
        await dial(await connect(server), "/closes?early=1")
    assert refused.value.response.status == 403


async def test_endpoint(server: Server, connect: Connect, key: str) -> None:
    socket = await dial(await connect(server), f"/endpoint?{key}")
    await socket.send('{"a": 1}')
    assert json.loads(await socket.receive()) == {"echo": {"a": 1}}
    await socket.close(3001)
    await server.noted(key, 3001)
    socket = await dial(await connect(server), f"/endpoint?{key}")
    await socket.send("no JSON")
    assert (await socket.closed())[0] == 1003


async def test_authentication(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/members", [(b"x-user", b"ann")])
    assert await socket.receive() == "ann"
    with pytest.raises(Refused) as refused:
        await dial(await connect(server), "/members")
    assert refused.value.response.status == 403


async def test_unknown_path_is_refused(server: Server, connect: Connect) -> None:
    for path in ["/nowhere", "/fast/nowhere"]:
        with pytest.raises(Refused) as refused:
            await dial(await connect(server), path)
        assert refused.value.response.status in (403, 404)
    assert complaints(server) == []


async def test_dependencies(server: Server, connect: Connect, key: str) -> None:
    headers = [(b"cookie", b"session=abc"), (b"x-extra", b"more")]
    socket = await dial(await connect(server), f"/fast/items/7?{key}", headers)
    assert json.loads(await socket.receive()) == [7, "abc", "resource", "more", "welcome"]
    await socket.send("hello")
    assert await socket.receive() == "hello"
    assert await server.notes(key) == []
    await socket.close()
    await server.noted(key, "given back")


@pytest.mark.parametrize("path", ["/fast/items/7", "/fast/items/seven?token=x"])
async def test_dependency_that_raises_refuses(server: Server, connect: Connect, path: str) -> None:
    with pytest.raises(Refused) as refused:
        await dial(await connect(server), path)
    assert refused.value.response.status == 403


async def test_websocket_exception_closes(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/fast/late_exception")
    assert await socket.closed() == (4002, "after all")


async def test_fault_is_logged_and_closes_with_1011(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/fast/fails")
    assert (await socket.closed())[0] == 1011
    await eventually(lambda: "ValueError: a fault of the application" in server.fresh_log)


async def test_chat_room(server: Server, connect: Connect) -> None:
    sockets = {name: await dial(await connect(server), f"/fast/chat/{name}") for name in ["ann", "bob", "cid"]}
    await sockets["ann"].send("hello")
    for socket in sockets.values():
        assert await socket.receive() == "ann: hello"
    await sockets["bob"].leave()
    for name in ["ann", "cid"]:
        assert await sockets[name].receive() == "bob has left"
    await sockets["cid"].close()
    assert await sockets["ann"].receive() == "cid has left"
    await sockets["ann"].close()
    assert complaints(server) == []
