"""The few words that the tests' applications have in common.

Applications are functions of the test module that uses them. The server imports that module, so
an application cannot hand its test a value: it writes a `note`, and the test reads the notes.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Message = dict[str, Any]
Scope = dict[str, Any]
# Awaitables for the specification; but applications do with them what wants a coroutine.
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_notes: defaultdict[bytes, list[Any]] = defaultdict(list)


def note(scope: Scope, what: Any) -> None:
    """Keeps `what` (any JSON value) for whoever asks `/notes` with this request's query string."""
    _notes[scope["query_string"]].append(what)


def notes_of(scope: Scope) -> list[Any]:
    """What requests with this one's query string have noted so far."""
    return _notes[scope["query_string"]]


async def start(send: Send, status: int = 200, headers: Headers = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def body(send: Send, data: bytes = b"", more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def answer(send: Send, data: Any = b"", status: int = 200, headers: Headers = ()) -> None:
    """Sends a whole response; what is not bytes goes as JSON."""
    await start(send, status, headers)
    await body(send, data if isinstance(data, bytes) else json.dumps(data).encode())


async def read(receive: Receive) -> bytes:
    """Receives the whole request body."""
    pieces = []
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


def shown(value: Any) -> Any:
    """`value` as JSON can tell it; bytes become {"bytes": ...}, so that types stay visible."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return value


async def file_exists(path: str) -> None:
    """Waits for the test to make a file: a gate that works while the server drains, too."""
    while not Path(path).exists():
        await asyncio.sleep(0.01)


def gate(scope: Scope) -> str:
    """The file that the test named in the header `x-gate`."""
    return unquote(dict(scope["headers"])[b"x-gate"].decode())


async def notes(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, notes_of(scope))


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes part in the lifespan protocol, and has nothing to do there."""
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


def routes(*apps: App) -> App:
    """One application of several: a request's first path segment names the function it is for."""
    by_name = {app.__name__: app for app in (notes, *apps)}

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        else:
            await by_name[scope["path"].split("/")[1]](scope, receive, send)

    return routed
