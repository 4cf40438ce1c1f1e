"""Django Channels: consumers, groups and sessions of users, beside Django's own views."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from py_tests.harness.certificates import Pair
from py_tests.harness.protocols import HTTP1, HTTP2, HTTP3, Connect, http3_options
from py_tests.harness.serving import Server, serve
from py_tests.harness.ws_client import Refused, complaints, dial

pytestmark = pytest.mark.protocols(HTTP1, HTTP2, HTTP3)

urlpatterns: list[Any] = []


def app() -> Any:
    """Makes the application, where it runs; here Django stays as it is."""
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
        INSTALLED_APPS=["channels"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="not secret",
    )
    from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from channels.security.websocket import AllowedHostsOriginValidator
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, JsonResponse
    from django.urls import path

    left: list[list[Any]] = []

    async def told(request: HttpRequest) -> JsonResponse:
        return JsonResponse(left, safe=False)

    urlpatterns.append(path("left", told))

    class Room(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
        async def connect(self) -> None:
            self.room = self.scope["url_route"]["kwargs"]["room"]
            await self.channel_layer.group_add(self.room, self.channel_name)
            await self.accept("v1" if "v1" in self.scope["subprotocols"] else None)

        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            await self.channel_layer.group_send(self.room, {"type": "said", "content": content})

        async def said(self, event: dict[str, Any]) -> None:
            await self.send_json(event["content"])

        async def disconnect(self, code: int) -> None:
            left.append([self.room, code])
            await self.channel_layer.group_discard(self.room, self.channel_name)
            await self.channel_layer.group_send(self.room, {"type": "said", "content": "somebody has left"})

    class Synchronous(WebsocketConsumer):  # type: ignore[misc]
        """Runs in threads."""

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            if text_data == "close":
                self.close(code=4001, reason="asked for")
            else:
                self.send(text_data=text_data, bytes_data=bytes_data)

    sockets = URLRouter(
        [
            path("room/<str:room>", Room.as_asgi()),
            path("synchronous", Synchronous.as_asgi()),
            path("guarded/<str:room>", AllowedHostsOriginValidator(Room.as_asgi())),
        ]
    )
    return ProtocolTypeRouter({"http": get_asgi_application(), "websocket": sockets})


@pytest.fixture(scope="module")
def server(pair: Pair) -> Iterator[Server]:
    with serve(app, factory=True, **http3_options(pair)) as server:
        yield server


async def test_group(server: Server, connect: Connect, key: str) -> None:
    sockets = [await dial(await connect(server), f"/room/{key}", subprotocols="v2, v1") for _ in range(3)]
    assert sockets[0].header(b"sec-websocket-protocol") == b"v1"
    await sockets[0].send(json.dumps({"say": "hello"}))
    for socket in sockets:
        assert json.loads(await socket.receive()) == {"say": "hello"}
    await sockets[1].leave()
    for socket in (sockets[0], sockets[2]):
        assert json.loads(await socket.receive()) == "somebody has left"
    await sockets[0].close(4000)
    assert json.loads(await sockets[2].receive()) == "somebody has left"
    connection = await connect(server)
    assert [code for room, code in (await connection.get("/left")).json() if room == key] == [1006, 4000]
    await sockets[2].close()
    assert complaints(server) == []


async def test_synchronous_consumer(server: Server, connect: Connect) -> None:
    socket = await dial(await connect(server), "/synchronous")
    sent: list[str | bytes] = ["text", b"bytes"]
    for data in sent:
        await socket.send(data)
        assert await socket.receive() == data
    await socket.send("close")
    assert await socket.closed() == (4001, "asked for")


async def test_wrong_origin_is_refused(server: Server, connect: Connect) -> None:
    await dial(await connect(server), "/guarded/a", [(b"origin", b"http://127.0.0.1")])
    with pytest.raises(Refused) as refused:
        await dial(await connect(server), "/guarded/a", [(b"origin", b"http://elsewhere.example")])
    assert refused.value.response.status == 403
