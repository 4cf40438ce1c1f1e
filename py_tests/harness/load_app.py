"""The application under load: each answer says which process gave it, and shows whether it is whole.

    /                   at once
    /slow               after 150 ms, or `?seconds=2`
    /upload             once all of the request's body is there
    /events             server-sent events without an end
    a WebSocket         the process's id, then an echo

What a process does when it starts, a test steers by files in the folder that the environment variable
`LOAD_APP_FOLDER` names. They are looked at anew by each process, so what a worker starts with can change while the
server runs:

    fault               one of the words of `FAULTS`
    hold, hold-N        while it is there, the lifespan does not start; of worker N only
    journal             where each process writes what becomes of it: see `Event`

`LOAD_APP_STARTUP` is how many seconds a lifespan takes to start.
"""

import asyncio
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qs

from py_tests.harness.apps import Receive, Scope, Send, answer, body, start

RAISE, EXIT, FAIL = FAULTS = ("raise", "exit", "fail")
"""What a process may do instead of serving: raise at import, exit at once with `EXIT_CODE`, fail in its lifespan."""

EXIT_CODE = 7

IMPORTED, STARTING, STARTED, ENDED = "imported", "starting", "started", "ended"
"""What the journal tells: the module is read, the lifespan begins, it is complete, it has shut down in good order."""

SLOW_SECONDS = 0.15

# Longer than what goes with a head, shorter than any window.
_FILLER = b"so much of it\n" * 100
_BODY = re.compile(rb"(\d+)\n" + _FILLER)


@dataclass(frozen=True)
class Event:
    """A line of the journal."""

    what: str
    time: float
    """By `time.monotonic`, which all processes of a machine share."""
    pid: int
    worker: str
    """The worker's number, if the process has been told."""
    begun: int
    """Requests that the application of this process has begun to answer so far, without `/events` and WebSockets."""
    finished: int
    """Those of them that it has answered."""


def body_of(pid: int) -> bytes:
    return b"%d\n" % pid + _FILLER


def pid_in(data: bytes) -> int:
    """Which process a body is of; `ValueError` if it is not a whole one."""
    if whole := _BODY.fullmatch(data):
        return int(whole[1])
    raise ValueError(f"not a whole body: {data!r}")


def journal(folder: Path) -> list[Event]:
    """What processes have written so far, in its order."""
    path = folder / "journal"
    return [Event(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


_begun = _finished = 0
_folder = Path(os.environ["LOAD_APP_FOLDER"]) if "LOAD_APP_FOLDER" in os.environ else None


def _write(what: str) -> None:
    if _folder is None:
        return
    event = Event(what, time.monotonic(), os.getpid(), os.environ.get("AIOVOY_WORKER", ""), _begun, _finished)
    # In one piece at the end of the file, whoever else writes there.
    descriptor = os.open(_folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, json.dumps(asdict(event)).encode() + b"\n")
    os.close(descriptor)


def _fault() -> str:
    try:
        return (_folder / "fault").read_text() if _folder is not None else ""
    except FileNotFoundError:
        return ""


def _held() -> bool:
    names = ["hold", f"hold-{os.environ.get('AIOVOY_WORKER')}"]
    return _folder is not None and any((_folder / name).exists() for name in names)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _echo(receive, send)
    elif scope["path"] == "/events":
        await _events(send)
    else:
        await _http(scope, receive, send)


async def _events(send: Send) -> None:
    await start(send, headers=[(b"content-type", b"text/event-stream")])
    while True:
        await body(send, b"data: %d\n\n" % os.getpid(), more=True)
        await asyncio.sleep(0.1)


async def _http(scope: Scope, receive: Receive, send: Send) -> None:
    global _begun, _finished
    _begun += 1
    while scope["path"] == "/upload" and (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await asyncio.sleep(float(parse_qs(scope["query_string"]).get(b"seconds", [SLOW_SECONDS])[0]))
    data = body_of(os.getpid())
    await answer(send, data, headers=[(b"content-length", b"%d" % len(data))])
    _finished += 1


async def _echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    _write(STARTING)
    await asyncio.sleep(float(os.environ.get("LOAD_APP_STARTUP", 0)))
    while _held():
        await asyncio.sleep(0.01)
    if _fault() == FAIL:
        await send({"type": "lifespan.startup.failed", "message": "told to fail"})
        return
    _write(STARTED)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    _write(ENDED)
    await send({"type": "lifespan.shutdown.complete"})


_write(IMPORTED)
if _fault() == RAISE:
    raise LookupError("told to raise")
if _fault() == EXIT:
    os._exit(EXIT_CODE)
