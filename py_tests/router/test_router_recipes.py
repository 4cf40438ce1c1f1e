"""examples/envoy-router.yaml under plain `envoy -c`: each of its recipes, and what else a route does for the
application.
"""

import asyncio
import hashlib
import json
import re
import signal
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.apps import (
    App,
    Receive,
    Scope,
    Send,
    answer,
    body,
    file_exists,
    gate,
    note,
    notes_of,
    read,
    routes,
    shown,
    start,
)
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import Connection, Headers, Response, ResponseCut
from py_tests.harness.folders import ROOT
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.plain_envoy import ROUTER_EXAMPLE, PlainEnvoy, envoy, listens
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import UVICORN, Serve, Server, serve, unlike_uvicorn
from py_tests.harness.ws_client import dial

pytestmark = unlike_uvicorn("this is about Envoy")


# --- Applications ---


def names(name: str) -> App:
    """Answers with its name, and notes what has come. A WebSocket gets the name as its first message."""

    async def who(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": name})
            assert (await receive())["type"] == "websocket.disconnect"
            return
        note(scope, [scope["method"], shown(scope["raw_path"]), shown(scope["headers"]), seen(await read(receive))])
        await answer(send, name.encode())

    return who


def seen(data: bytes) -> list[Any]:
    return [len(data), hashlib.sha256(data).hexdigest()]


running: defaultdict[int, int] = defaultdict(int)
"""How many calls of `gated` and `lingering` there are on each loop."""


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes how many there are on its loop, and waits for the gate."""
    loop = id(asyncio.get_running_loop())
    running[loop] += 1
    note(scope, [loop, running[loop]])
    try:
        await file_exists(gate(scope))
        await answer(send, b"done")
    finally:
        running[loop] -= 1


async def reports(scope: Scope, receive: Receive, send: Send) -> None:
    await gated(scope, receive, send)


async def lingering(scope: Scope, receive: Receive, send: Send) -> None:
    """Ends only when it is told to, and takes its time for it."""
    loop = id(asyncio.get_running_loop())
    running[loop] += 1
    note(scope, [loop, running[loop]])
    try:
        if scope["path"] == "/lingering/listens":
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.5)
        running[loop] -= 1


async def loop_of(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, id(asyncio.get_running_loop()))


async def tasks(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, len(asyncio.all_tasks()))


async def listens_to(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers nothing, and notes what it receives."""
    try:
        while (kind := (await receive())["type"]) != "http.disconnect":
            note(scope, kind)
        note(scope, kind)
    finally:
        note(scope, "ended")


async def listens_to_nobody(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note(scope, "cancelled")
        raise


async def flaky(scope: Scope, receive: Receive, send: Send) -> None:
    """Succeeds at the third try."""
    note(scope, seen(await read(receive)))
    await answer(send, b"done", 200 if len(notes_of(scope)) > 2 else 503)


async def flaky_stream(scope: Scope, receive: Receive, send: Send) -> None:
    """The same, of one that has not read its request and not ended its response when it has failed."""
    tries = sum(what == "tried" for what in notes_of(scope))
    note(scope, "tried")
    await start(send, 200 if tries else 503)
    await body(send, b"begun", more=True)
    if tries:
        await body(send, b" and done")
        return
    try:
        await asyncio.Event().wait()
    finally:
        note(scope, "given up")


async def in_vain(scope: Scope, receive: Receive, send: Send) -> None:
    """Fails at once, whatever is still to come of the request."""
    note(scope, "tried")
    await answer(send, b"application", 503)


async def breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, "tried")
    await start(send)
    await body(send, b"begun", more=True)
    raise RuntimeError("in the middle of a response")


async def shows_scope(scope: Scope, receive: Receive, send: Send) -> None:
    found = {name: shown(scope.get(name)) for name in ("path", "raw_path", "query_string", "headers", "client")}
    if scope["type"] == "http":
        await answer(send, found)
    else:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps(found)})


first = routes(
    names("first"),
    gated,
    reports,
    lingering,
    loop_of,
    tasks,
    listens_to,
    listens_to_nobody,
    flaky,
    flaky_stream,
    in_vain,
    breaks_off,
    shows_scope,
)
second = routes(names("second"), gated)


# --- Servers ---

# For requests that are held for as long as the test likes.
PATIENT = {"timeout: 5s": "timeout: 600s"}

# Time enough for calls to begin that are to be given up.
SHORT = {"timeout: 5s": "timeout: 2s"}


@contextmanager
def router(
    folder: Path,
    changes: dict[str, str] | None = None,
    *,
    app: str = f"{__name__}:first",
    mirror: Server | None = None,
    other: Server | None = None,
    workers: int = 1,
) -> Iterator[PlainEnvoy]:
    """The example, with an application of this module's. In the place of a server that is not given is nobody."""
    changes = {"app: hello:app": f"app: {app}", "app_dir: examples": f"app_dir: {ROOT}", **(changes or {})}
    with ExitStack() as stack:
        for port, server in {8001: mirror, 8002: other}.items():
            taken = server.port if server else stack.enter_context(refused())
            changes[f"port_value: {port}"] = f"port_value: {taken}"
        yield stack.enter_context(envoy(folder, changes, workers=workers, example=ROUTER_EXAMPLE))


@contextmanager
def refused() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


async def on_each_worker(server: Server, stack: AsyncExitStack, workers: int) -> list[Http2Connection]:
    """A connection to each of the server's workers, which has been used."""
    found: dict[int, Http2Connection] = {}

    async def all_there() -> bool:
        connection = await stack.enter_async_context(await Http2Connection.open(server.port))
        found.setdefault((await connection.get("/loop_of")).json(), connection)
        return len(found) == workers

    await eventually(all_there)
    return list(found.values())


def crowd(connections: Iterable[Connection], path: str, opens: Path | None = None) -> list[asyncio.Task[Response]]:
    """A request on each connection, all at once; the file `opens` is their gate."""
    headers = [(b"x-gate", str(opens).encode())] if opens else []
    return [asyncio.create_task(connection.get(path, headers)) for connection in connections]


def statuses(requests: Iterable[asyncio.Task[Response]]) -> Counter[int]:
    """Of those that have been answered."""
    return Counter(request.result().status for request in requests if request.done())


def peaks(notes: list[Any]) -> list[int]:
    """How many calls there were at most, on each loop."""
    most: dict[int, int] = {}
    for loop, number in notes:
        most[loop] = max(number, most.get(loop, 0))
    return list(most.values())


# --- The example as it stands ---


async def test_example_answers_without_mirror_and_other_process(connect: Connect, tmp_path: Path) -> None:
    with router(tmp_path, app="hello:app", changes={"app_dir: examples": "app_dir: examples"}) as server:
        await server.accepts()
        connection = await connect(server)
        for method, data in [("GET", b""), ("POST", b"some"), ("GET", b""), ("POST", bytes(1_000_000))]:
            response = await connection.request(method, "/", body=data)
            assert (response.status, response.body) == (200, b"Hello, world!")


async def test_websocket(connect: Connect, tmp_path: Path) -> None:
    with router(tmp_path) as server:
        await server.accepts()
        websocket = await dial(await connect(server), "/who")
        assert await websocket.receive() == "first"
        assert (await websocket.close())[0] == 1000


# --- Mirror ---


@pytest.mark.parametrize(("method", "size"), [("GET", 0), ("POST", 10), ("POST", 5_000_000), ("PUT", 5_000_000)])
async def test_mirror_sees_the_request_and_its_answer_is_dropped(
    connect: Connect, tmp_path: Path, key: str, method: str, size: int
) -> None:
    """The mirror is uvicorn, which shows all headers that are on the wire."""
    data, headers = (bytes(range(250)) * 20_000)[:size], [(b"x-custom", b"1"), (b"x-custom", b"2")]
    with serve(f"{__name__}:second", kind=UVICORN) as mirror, router(tmp_path, mirror=mirror) as server:
        await server.accepts()
        connection = await connect(server)
        response = await connection.request(method, f"/who/a%20b?{key}", headers=headers, body=data)
        assert response.body == b"first"
        await eventually(lambda: mirrored(server) == 1)
        [[*mirrored_line, mirrored_headers, mirrored_body]] = await noted(mirror, key, 1)
        [[*line, _, _]] = await server.notes(key)
        assert mirrored_line == line == [method, {"bytes": "/who/a%20b"}]
        assert mirrored_body == seen(data)
        found = [(name["bytes"], value["bytes"]) for name, value in mirrored_headers]
        assert [value for name, value in found if name == "x-custom"] == ["1", "2"]
        assert ("host", f"127.0.0.1:{server.port}") in found
        assert "x-aiovoy-exchange" not in dict(found)


def mirrored(server: PlainEnvoy) -> int:
    return server.statistics("cluster.mirror.")["upstream_rq_total"]


async def noted(server: Server, key: str, number: int) -> list[Any]:
    """Waits for so many notes."""

    async def all_there() -> list[Any]:
        notes = await server.notes(key)
        return notes if len(notes) >= number else []

    return await eventually(all_there)


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("in the mirror")


async def never_answers(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def never_reads(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("mirror_app", [fails, never_answers, never_reads])
async def test_mirror_changes_nothing_for_the_client(
    connect: Connect, tmp_path: Path, key: str, serve: Serve, mirror_app: App
) -> None:
    mirror = serve(mirror_app, lifespan="off", timeout_graceful_shutdown=0)
    data = bytes(5_000_000)
    with router(tmp_path, PATIENT, mirror=mirror) as server:
        await server.accepts()
        connection = await connect(server)
        for number in range(1, 4):
            assert (await connection.get(f"/who?{key}")).body == b"first"
            assert (await connection.post(f"/who?{key}", data)).body == b"first"
            await eventually(lambda number=number: mirrored(server) >= 2 * number)  # type: ignore[misc]
        assert [body for *_, body in await server.notes(key)] == [seen(b""), seen(data)] * 3
        assert server.statistics("cluster.app.")["upstream_rq_retry"] == 0


# --- Another process ---


async def draining(server: PlainEnvoy) -> None:
    """Tells the server to stop, and waits until it has begun to."""
    server.signal(signal.SIGTERM)
    await eventually(lambda: not listens(server.port))


async def test_another_process_steps_in_while_the_first_drains(
    connect: Connect, tmp_path: Path, key: str, serve: Serve
) -> None:
    other = serve(f"{__name__}:second")
    path = tmp_path / "gate"
    with router(tmp_path, other=other) as server:
        await server.accepts()
        used, fresh, uploads, dials = [await connect(server) for _ in range(4)]
        assert (await used.get("/who")).body == b"first"
        (in_flight,) = crowd([await connect(server)], f"/reports/?{key}", path)
        await noted(server, key, 1)
        await draining(server)
        for connection in (used, fresh):
            assert (await connection.get(f"/who?{key}", [(b"x-custom", b"1")])).body == b"second"
        data = bytes(range(250)) * 20_000
        assert (await uploads.post(f"/who?{key}", data)).body == b"second"
        websocket = await dial(dials, "/who")
        assert await websocket.receive() == "second"
        assert (await websocket.close())[0] == 1000
        assert [body for *_, body in await other.notes(key)] == [seen(b""), seen(b""), seen(data)]
        assert not in_flight.done()
        path.touch()
        assert (await in_flight).body == b"done"
        assert await server.exit_code() == 0


async def test_streams_of_one_connection_go_to_the_other_process(tmp_path: Path, key: str, serve: Serve) -> None:
    other = serve(f"{__name__}:second")
    path = tmp_path / "gate"
    with router(tmp_path, other=other) as server:
        await server.accepts()
        async with await Http2Connection.open(server.port) as connection:
            (in_flight,) = crowd([connection], f"/reports/?{key}", path)
            await noted(server, key, 1)
            await draining(server)
            late = [await connection.start("GET", "/who") for _ in range(20)]
            assert {(await exchange.response()).body for exchange in late} == {b"second"}
            assert connection.going_away.is_set()
            path.touch()
            assert (await in_flight).body == b"done"
        assert await server.exit_code() == 0


async def test_first_process_waits_for_answers_of_the_other(
    connect: Connect, tmp_path: Path, key: str, serve: Serve
) -> None:
    other = serve(f"{__name__}:second")
    own, others = tmp_path / "own", tmp_path / "others"
    with router(tmp_path, other=other) as server:
        await server.accepts()
        late = await connect(server)
        (in_flight,) = crowd([await connect(server)], f"/reports/?{key}", own)
        await noted(server, key, 1)
        await draining(server)
        (elsewhere,) = crowd([late], f"/gated?{key}", others)
        await noted(other, key, 1)
        own.touch()
        assert (await in_flight).body == b"done"
        assert not elsewhere.done()
        assert server.process.poll() is None
        others.touch()
        assert (await elsewhere).body == b"done"
        assert await server.exit_code() == 0


async def test_no_request_fails_when_the_other_process_steps_in(
    connect: Connect, tmp_path: Path, key: str, serve: Serve
) -> None:
    """Clients that have one request after the other, until they are told to use another connection."""
    other = serve(f"{__name__}:second")
    path = tmp_path / "gate"
    answers: list[bytes] = []

    async def client(connection: Connection) -> None:
        while True:
            try:
                exchange = await connection.start("GET", "/who")
            except ConnectionAbortedError:  # of HTTP/2: GOAWAY has come
                return
            response = await exchange.response()
            assert response.status == 200
            answers.append(response.body)
            if response.header(b"connection") == b"close":
                return

    with router(tmp_path, other=other) as server:
        await server.accepts()
        (in_flight,) = crowd([await connect(server)], f"/reports/?{key}", path)
        await noted(server, key, 1)
        idle = [await connect(server) for _ in range(20)]
        clients = [asyncio.create_task(client(await connect(server))) for _ in range(20)]
        await eventually(lambda: len(answers) > 100)
        await draining(server)
        clients += [asyncio.create_task(client(connection)) for connection in idle]
        await asyncio.gather(*clients)
        assert set(answers) == {b"first", b"second"}
        path.touch()
        assert (await in_flight).body == b"done"
        assert await server.exit_code() == 0


WISHES = [
    (b"draining", b"true"),
    (b"aiovoy", b"draining=true"),
    (b"x-aiovoy-draining", b"true"),
    (b"x-aiovoy-exchange", b"1"),
    (b"x-envoy-upstream-alt-stat-name", b"other"),
    (b"x-envoy-force-trace", b"true"),
]


async def test_client_cannot_choose_the_other_process(connect: Connect, tmp_path: Path, serve: Serve) -> None:
    other = serve(f"{__name__}:second")
    with router(tmp_path, other=other) as server:
        await server.accepts()
        connection = await connect(server)
        for wish in [[wish] for wish in WISHES] + [WISHES]:
            assert (await connection.get("/who?aiovoy.draining=true", wish)).body == b"first"
        assert server.statistics("cluster.other.")["upstream_rq_total"] == 0


# --- Queue and circuit breaker ---

CROWD = 100


async def test_queue_is_bounded(connect: Connect, tmp_path: Path, key: str) -> None:
    """With one worker: 10 run, 20 wait, and the others are refused."""
    path = tmp_path / "gate"
    with router(tmp_path, PATIENT) as server:
        await server.accepts()
        connections = [await connect(server) for _ in range(CROWD)]
        assert (await connections[0].get("/loop_of")).status == 200
        requests = crowd(connections, f"/gated?{key}", path)
        await eventually(lambda: statuses(requests) == {503: 70})
        statistics = server.statistics("cluster.app.")
        assert (statistics["upstream_rq_active"], statistics["upstream_rq_pending_active"]) == (10, 20)
        for refused in [request.result() for request in requests if request.done()]:
            assert (refused.header(b"retry-after"), refused.body) == (b"1", b"Service Unavailable")
        path.touch()
        await asyncio.gather(*requests)
        assert statuses(requests) == {503: 70, 200: 30}
        notes = await server.notes(key)
        assert (len(notes), peaks(notes)) == (30, [10])
        assert server.statistics("cluster.app.")["upstream_rq_retry"] == 0


async def test_burst_before_the_first_answer_of_a_worker_finds_the_queue_alone(tmp_path: Path, key: str) -> None:
    """A worker connects to the application when its first request comes. What comes in the same moment waits for
    that, and counts among the 20 that may wait, so that some are refused which would run a moment later."""
    path = tmp_path / "gate"
    with router(tmp_path, PATIENT) as server:
        await server.accepts()
        async with await Http2Connection.open(server.port) as connection:
            requests = crowd([connection] * CROWD, f"/gated?{key}", path)
            await eventually(lambda: sum(statuses(requests).values()) >= 70)
            path.touch()
            await asyncio.gather(*requests)
            assert statuses(requests).keys() == {200, 503}
            assert 20 <= statuses(requests)[200] <= 30


async def test_queue_of_two_workers(tmp_path: Path, key: str) -> None:
    """Each worker has a connection of its own to the application, and so 10 at a time. The 20 that wait are counted
    in all workers together, wherever they come: by a look at the count and a step after it, so that each worker but
    one can add one too many in the same moment."""
    path = tmp_path / "gate"
    async with AsyncExitStack() as stack:
        server = stack.enter_context(router(tmp_path, PATIENT, workers=2))
        await server.accepts()
        connections = await on_each_worker(server, stack, 2)
        requests = crowd(connections * (CROWD // 2), f"/gated?{key}", path)

        def all_there() -> bool:
            statistics = server.statistics("cluster.app.")
            held = statistics["upstream_rq_active"] + statistics["upstream_rq_pending_active"]
            return held + sum(statuses(requests).values()) == CROWD

        await eventually(all_there)
        statistics = server.statistics("cluster.app.")
        assert statistics["upstream_rq_active"] == 20
        waiting = statistics["upstream_rq_pending_active"]
        assert waiting in (20, 21)
        path.touch()
        await asyncio.gather(*requests)
        assert statuses(requests) == {200: 20 + waiting, 503: CROWD - 20 - waiting}
        assert peaks(await server.notes(key)) == [10, 10]


async def test_circuit_breaker(connect: Connect, tmp_path: Path, key: str) -> None:
    """With one worker: 2 at a time, and none waits."""
    path = tmp_path / "gate"
    with router(tmp_path) as server:
        await server.accepts()
        requests = crowd([await connect(server) for _ in range(20)], f"/reports/?{key}", path)
        await eventually(lambda: statuses(requests) == {503: 18})
        for refused in [request.result() for request in requests if request.done()]:
            assert (refused.header(b"retry-after"), refused.body) == (b"1", b"Service Unavailable")
        path.touch()
        await asyncio.gather(*requests)
        assert statuses(requests) == {503: 18, 200: 2}
        assert peaks(await server.notes(key)) == [2]
        # It lets others in when these have ended.
        assert [r.status for r in await asyncio.gather(*crowd([await connect(server)], "/reports/", path))] == [200]


async def test_circuit_breaker_of_two_workers(tmp_path: Path, key: str) -> None:
    """The 2 are counted in all workers together: by a look at the count and a step after it, so that there can be 3 if
    both workers look in the same moment."""
    path = tmp_path / "gate"
    async with AsyncExitStack() as stack:
        server = stack.enter_context(router(tmp_path, workers=2))
        await server.accepts()
        requests = crowd((await on_each_worker(server, stack, 2)) * 20, f"/reports/?{key}", path)

        def all_there() -> bool:
            held = server.statistics("cluster.reports.")["upstream_rq_active"]
            return held + sum(statuses(requests).values()) == len(requests)

        await eventually(all_there)
        path.touch()
        await asyncio.gather(*requests)
        assert statuses(requests) in ({200: 2, 503: 38}, {200: 3, 503: 37})
        assert sum(peaks(await server.notes(key))) == statuses(requests)[200]


# --- Time-out ---


async def test_time_out(connect: Connect, tmp_path: Path, key: str) -> None:
    """Who waits in `receive` is told of it, who waits for something else is cancelled."""
    with router(tmp_path, SHORT) as server:
        await server.accepts()
        tasks = (await server.get("/tasks")).json()
        listener, other = f"/listens_to?{key}", f"/listens_to_nobody?{key}2"
        for number, path in enumerate([listener, other], 1):
            began = time.monotonic()
            async with await connect(server) as connection:
                assert (await connection.get(path)).status == 504
                assert time.monotonic() - began >= 1.9  # the clock of Envoy's timers stands still for moments
            assert server.statistics("cluster.app.")["upstream_rq_timeout"] == number
        assert await server.noted(key, "ended") == ["http.request", "http.disconnect", "ended"]
        assert await server.noted(f"{key}2", "cancelled") == ["cancelled"]

        async def all_ended() -> bool:
            return bool((await server.get("/tasks")).json() == tasks)

        await eventually(all_ended)


async def test_time_out_begins_when_the_request_is_complete(connect: Connect, tmp_path: Path, key: str) -> None:
    """So it is none for uploads and WebSockets. The time that passes is that of a request that is timed out."""
    with router(tmp_path, SHORT) as server:
        await server.accepts()
        upload = await (await connect(server)).start("POST", f"/who?{key}", upload=True)
        await upload.send(b"some")
        websocket = await dial(await connect(server), "/who")
        assert await websocket.receive() == "first"
        async with await connect(server) as connection:
            assert (await connection.get("/listens_to_nobody")).status == 504
        await upload.send(b" and more", end=True)
        assert (await upload.response()).body == b"first"
        assert (await websocket.close())[0] == 1000
        assert [body for *_, body in await server.notes(key)] == [seen(b"some and more")]


# With a longer time for some requests to the same cluster.
PATIENT_ROUTE = {
    "              - match: {prefix: /reports/}\n": """\
              - match: {prefix: /gated}
                route: {cluster: app, timeout: 600s}
              - match: {prefix: /reports/}
"""
}


async def test_limit_holds_after_time_outs(tmp_path: Path, key: str) -> None:
    """Calls that have been given up, and take their time to end, have their places for so long."""
    path = tmp_path / "gate"
    with router(tmp_path, SHORT | PATIENT_ROUTE) as server:
        await server.accepts()
        async with await Http2Connection.open(server.port) as connection:
            assert (await connection.get("/loop_of")).status == 200
            for _ in range(2):
                given_up = lingering_crowd(connection, key)
                await asyncio.gather(*given_up)
                late = crowd([connection] * 30, f"/gated?{key}", path)
                path.touch()
                await asyncio.gather(*late)
                assert (statuses(given_up), statuses(late)) == ({504: 10}, {200: 30})
                path.unlink()
            notes = await server.notes(key)
        assert (len(notes), peaks(notes)) == (80, [10])


async def test_limit_holds_for_those_that_wait_for_a_time_out(tmp_path: Path, key: str) -> None:
    """Envoy sends the next request to the application before it says that one has been given up."""
    path = tmp_path / "gate"
    with router(tmp_path, SHORT | PATIENT_ROUTE) as server:
        await server.accepts()
        async with await Http2Connection.open(server.port) as connection:
            assert (await connection.get("/loop_of")).status == 200
            given_up = lingering_crowd(connection, key)
            waiting = crowd([connection] * 20, f"/gated?{key}", path)
            await asyncio.gather(*given_up)
            path.touch()
            await asyncio.gather(*waiting)
            assert (statuses(given_up), statuses(waiting)) == ({504: 10}, {200: 20})
            notes = await server.notes(key)
        assert (len(notes), peaks(notes)) == (30, [10])


def lingering_crowd(connection: Connection, key: str) -> list[asyncio.Task[Response]]:
    """As many calls as there are places, of both kinds of `lingering`."""
    kinds = [crowd([connection] * 5, f"/lingering/{kind}?{key}") for kind in ("listens", "waits")]
    return kinds[0] + kinds[1]


# --- Retries ---


async def test_failure_is_repeated_until_it_succeeds(connect: Connect, tmp_path: Path, key: str) -> None:
    with router(tmp_path) as server:
        await server.accepts()
        connection = await connect(server)
        response = await connection.get(f"/flaky?{key}")
        assert (response.status, response.body) == (200, b"done")
        assert len(await server.notes(key)) == 3
        assert server.statistics("cluster.app.")["upstream_rq_retry"] == 2


async def test_failures_end(connect: Connect, tmp_path: Path, key: str) -> None:
    """The application's own answer is the last one."""
    with router(tmp_path) as server:
        await server.accepts()
        response = await (await connect(server)).get(f"/in_vain?{key}")
        assert (response.status, response.body) == (503, b"application")
        assert await server.notes(key) == ["tried"] * 3


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "POST", "PATCH"])
async def test_only_idempotent_methods_are_repeated(connect: Connect, tmp_path: Path, key: str, method: str) -> None:
    data, repeated = b"a body", method not in ("POST", "PATCH")
    with router(tmp_path) as server:
        await server.accepts()
        response = await (await connect(server)).request(method, f"/flaky?{key}", body=data)
        assert response.status == (200 if repeated else 503)
        assert await server.notes(key) == [seen(data)] * (3 if repeated else 1)
        assert server.statistics("cluster.app.")["upstream_rq_retry"] == (2 if repeated else 0)


@pytest.mark.parametrize("size", [200_000, 300_000, 5_000_000])
async def test_request_that_envoy_has_not_kept_is_not_repeated(
    connect: Connect, tmp_path: Path, key: str, size: int
) -> None:
    """Envoy keeps as much as `per_connection_buffer_limit_bytes` says. Beyond it, the client gets the first answer."""
    data, kept = (bytes(range(250)) * 20_000)[:size], size <= 262_144
    with router(tmp_path) as server:
        await server.accepts()
        response = await (await connect(server)).request("PUT", f"/flaky?{key}", body=data)
        assert response.status == (200 if kept else 503)
        assert await server.notes(key) == [seen(data)] * (3 if kept else 1)
        statistics = server.statistics("cluster.app.")
        assert statistics["upstream_rq_retry"] == (2 if kept else 0)
        assert statistics["retry_or_shadow_abandoned"] == (0 if kept else 1)


async def test_early_failure_of_a_large_upload_reaches_the_client(connect: Connect, tmp_path: Path, key: str) -> None:
    """As the application's answer; or as Envoy's, if it wanted to try again when more came than it can keep."""
    with router(tmp_path) as server:
        await server.accepts()
        response = await (await connect(server)).request("PUT", f"/in_vain?{key}", body=bytes(5_000_000))
        assert (response.status, response.body) in [
            (503, b"application"),
            (507, b"exceeded request buffer limit while retrying upstream"),
        ]
        assert set(await server.notes(key)) == {"tried"}


async def test_try_that_is_given_up_ends(connect: Connect, tmp_path: Path, key: str) -> None:
    with router(tmp_path) as server:
        await server.accepts()
        exchange = await (await connect(server)).start("PUT", f"/flaky_stream?{key}", upload=True)
        response = await exchange.response()
        assert (response.status, response.body) == (200, b"begun and done")
        assert sorted(await server.noted(key, "given up")) == ["given up", "tried", "tried"]


async def test_nothing_is_repeated_once_the_response_has_begun(connect: Connect, tmp_path: Path, key: str) -> None:
    with router(tmp_path) as server:
        await server.accepts()
        with pytest.raises(ResponseCut) as cut:
            await (await connect(server)).get(f"/breaks_off?{key}")
        assert (cut.value.status, cut.value.body) == (200, b"begun")
        assert await server.notes(key) == ["tried"]
        assert server.statistics("cluster.app.")["upstream_rq_retry"] == 0


# --- Tracing ---

TRACING = {
    "          stat_prefix: http\n": """\
          stat_prefix: http
          tracing:
            spawn_upstream_span: true
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                service_name: shop
                grpc_service: {envoy_grpc: {cluster_name: nobody}}
                # Without request ids Envoy takes no trace down by itself. The sampler decides on spans of the router.
                sampler:
                  name: envoy.tracers.opentelemetry.samplers.always_on
                  typed_config:
                    "@type": type.googleapis.com/\
envoy.extensions.tracers.opentelemetry.samplers.v3.AlwaysOnSamplerConfig
"""
}


async def test_application_sees_the_trace(connect: Connect, tmp_path: Path) -> None:
    """Nobody gets the spans; a collector is not needed for this."""

    async def trace(headers: Headers = ()) -> tuple[str, str]:
        """The ids of trace and span that the application sees, of a trace that is taken down."""
        found = (await connection.get("/shows_scope", headers)).json()["headers"]
        (traceparent,) = [value["bytes"] for name, value in found if name["bytes"] == "traceparent"]
        parts = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", traceparent)
        assert parts, traceparent
        return parts[1], parts[2]

    with router(tmp_path, TRACING) as server:
        await server.accepts()
        connection = await connect(server)
        (one, _), (two, _) = await trace(), await trace()
        assert one != two
        parent, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        child = await trace([(b"traceparent", f"00-{parent}-{span}-01".encode())])
        assert child[0] == parent
        assert child[1] != span


# --- Routes ---

ROUTE = {
    "                route:\n                  cluster: app\n": """\
                request_headers_to_add:
                - header: {key: x-added, value: "by the route on %PROTOCOL%"}
                - header: {key: x-set, value: right}
                  append_action: OVERWRITE_IF_EXISTS_OR_ADD
                request_headers_to_remove: [x-secret]
                route:
                  cluster: app
                  prefix_rewrite: /shows_scope/
                  host_rewrite_literal: inside.example
"""
}


async def test_application_sees_what_the_route_makes_of_the_request(connect: Connect, tmp_path: Path) -> None:
    sent = [(b"x-set", b"wrong"), (b"x-secret", b"1"), (b"x-added", b"by the client")]
    with router(tmp_path, ROUTE) as server:
        await server.accepts()
        connection = await connect(server)
        scope = (await connection.get("/a%20b?c=%20d", sent)).json()
        assert scope["path"] == "/shows_scope/a b"
        assert scope["raw_path"] == {"bytes": "/shows_scope/a%20b"}
        assert scope["query_string"] == {"bytes": "c=%20d"}
        assert scope["client"] == ["127.0.0.1", connection.local_port]
        version = {"http/1.1": "HTTP/1.1", "http/2": "HTTP/2"}[connection.protocol]
        headers = [(name["bytes"], value["bytes"]) for name, value in scope["headers"]]
        assert headers[0] == ("host", "inside.example")
        assert sorted(header for header in headers if header[0] in ("x-added", "x-set", "x-secret")) == [
            ("x-added", "by the client"),
            ("x-added", f"by the route on {version}"),
            ("x-set", "right"),
        ]


async def test_application_sees_no_header_that_neither_client_nor_route_has_given(
    connect: Connect, tmp_path: Path
) -> None:
    with router(tmp_path, ROUTE) as server:
        await server.accepts()
        scope = (await (await connect(server)).get("/")).json()
        assert sorted(name["bytes"] for name, _ in scope["headers"]) == ["host", "x-added", "x-set"]


async def test_websocket_sees_what_the_route_makes_of_its_handshake(connect: Connect, tmp_path: Path) -> None:
    with router(tmp_path, ROUTE) as server:
        await server.accepts()
        websocket = await dial(await connect(server), "/a%20b", [(b"x-set", b"wrong")])
        scope = json.loads(await websocket.receive())
        assert scope["path"] == "/shows_scope/a b"
        headers = [(name["bytes"], value["bytes"]) for name, value in scope["headers"]]
        assert headers[0] == ("host", "inside.example")
        assert [value for name, value in headers if name == "x-set"] == ["right"]
        assert (await websocket.close())[0] == 1000
