"""`receive` and `send` under asyncio's and anyio's tools: as on any server, on both event loops."""

import asyncio
import contextvars
from collections.abc import Awaitable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, body, note, read, routes, start
from py_tests.harness.deadline import eventually
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import Server, serve

# Long enough to never end a test that works; what waits this long waits for good.
NEVER = 60.0
# How long an application waits for what cannot come.
SHORT = 0.02


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(f"{__name__}:app", loop=request.param) as server:
        yield server


async def which_loop(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, type(asyncio.get_running_loop()).__module__.split(".")[0])


async def test_loop_is_the_one_asked_for(server: Server, connect: Connect, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["server"]
    assert (await (await connect(server)).get("/which_loop")).json() == name


# --- Waiting with a limit ---


async def wait_for(scope: Scope, receive: Receive, send: Send) -> None:
    """asyncio.wait_for around everything that completes."""
    first = await asyncio.wait_for(receive(), NEVER)
    await asyncio.wait_for(send({"type": "http.response.start", "status": 200, "headers": []}), NEVER)
    await asyncio.wait_for(send({"type": "http.response.body", "body": first["body"], "more_body": True}), NEVER)
    while first["more_body"]:
        first = await asyncio.wait_for(receive(), NEVER)
        await asyncio.wait_for(send({"type": "http.response.body", "body": first["body"], "more_body": True}), NEVER)
    await asyncio.wait_for(body(send), NEVER)


async def timeout(scope: Scope, receive: Receive, send: Send) -> None:
    async with asyncio.timeout(NEVER):
        data = await read(receive)
    async with asyncio.timeout(NEVER):
        await answer(send, data)


async def fail_after(scope: Scope, receive: Receive, send: Send) -> None:
    with anyio.fail_after(NEVER):
        data = await read(receive)
    with anyio.fail_after(NEVER):
        await answer(send, data)


@pytest.mark.parametrize("path", ["/wait_for", "/timeout", "/fail_after"])
async def test_time_limits_that_are_kept_change_nothing(server: Server, connect: Connect, path: str) -> None:
    connection = await connect(server)
    assert (await connection.post(path, b"whole")).body == b"whole"
    exchange = await connection.start("POST", path, upload=True)
    for piece in [b"in ", b"several ", b"pieces"]:
        await exchange.send(piece)
    await exchange.send(b"", end=True)
    assert (await exchange.response()).body == b"in several pieces"


async def wait_for_expires(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await asyncio.wait_for(receive(), SHORT)
    except TimeoutError:
        note(scope, "expired")
    await answer(send, await read(receive))


async def timeout_expires(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        async with asyncio.timeout(SHORT):
            await receive()
    except TimeoutError:
        note(scope, "expired")
    await answer(send, await read(receive))


async def move_on_after_expires(scope: Scope, receive: Receive, send: Send) -> None:
    with anyio.move_on_after(SHORT) as cancel_scope:
        await receive()
    if cancel_scope.cancelled_caught:
        note(scope, "expired")
    await answer(send, await read(receive))


async def task_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    waiting = asyncio.create_task(receive())
    await asyncio.sleep(SHORT)
    waiting.cancel()
    try:
        await waiting
    except asyncio.CancelledError:
        note(scope, "expired")
    await answer(send, await read(receive))


@pytest.mark.parametrize(
    "path",
    ["/wait_for_expires", "/timeout_expires", "/move_on_after_expires", "/task_cancelled"],
)
async def test_cancelled_receive_loses_no_message(server: Server, connect: Connect, key: str, path: str) -> None:
    exchange = await (await connect(server)).start("POST", f"{path}?{key}", upload=True)
    assert await server.noted(key, "expired") == ["expired"]
    await exchange.send(b"sent after the cancellation", end=True)
    assert (await exchange.response()).body == b"sent after the cancellation"


async def cancels_in_a_hurry(scope: Scope, receive: Receive, send: Send) -> None:
    """Cancels receives all the time, some of them in the turn in which their message comes."""
    pieces = []
    more = True
    while more:
        try:
            message = await asyncio.wait_for(receive(), 0.0005)
        except TimeoutError:
            continue
        pieces.append(message["body"])
        more = message["more_body"]
    await answer(send, b"".join(pieces))


async def test_cancellation_in_the_moment_of_arrival_loses_no_message(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("POST", "/cancels_in_a_hurry", upload=True)
    expected = []
    for number in range(300):
        expected.append(b"%d," % number)
        await exchange.send(expected[-1])
        await asyncio.sleep(0.0005 if number % 3 else 0)
    await exchange.send(b"", end=True)
    assert (await exchange.response()).body == b"".join(expected)


async def cancelled_at_delivery(scope: Scope, receive: Receive, send: Send) -> None:
    """Cancels a receive whose future is done but whose task has not run yet."""
    for _ in range(100):
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        done, _pending = await asyncio.wait({waiting}, timeout=0)
        if done:
            message = waiting.result()
            break
        waiting.cancel()
        try:
            message = await waiting
            break
        except asyncio.CancelledError:
            pass
    else:
        message = await receive()
    rest = await read(receive) if message["more_body"] else b""
    await answer(send, message["body"] + rest)


async def test_receive_cancelled_over_and_over_gives_the_body_in_the_end(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for _ in range(20):
        exchange = await connection.start("POST", "/cancelled_at_delivery", upload=True)
        await exchange.send(b"the body")
        await exchange.send(b" and its end", end=True)
        assert (await exchange.response()).body == b"the body and its end"


# --- Several at once ---


async def two_receives(scope: Scope, receive: Receive, send: Send) -> None:
    waiting = [asyncio.create_task(receive()) for _ in range(2)]
    await asyncio.sleep(0)
    note(scope, "waiting")
    pieces = []
    more = True
    for task in waiting:
        message = await task
        pieces.append(message["body"])
        more = more and message["more_body"]
        note(scope, "received")
    if more:
        pieces.append(await read(receive))
    await answer(send, b"".join(pieces))


async def test_concurrent_receives_lose_no_message(server: Server, connect: Connect, key: str) -> None:
    exchange = await (await connect(server)).start("POST", f"/two_receives?{key}", upload=True)
    await server.noted(key, "waiting")
    await exchange.send(b"first")
    await server.noted(key, "received")
    await exchange.send(b"second", end=True)
    assert (await exchange.response()).body == b"firstsecond"


async def receive_in_task(scope: Scope, receive: Receive, send: Send) -> None:
    message = await asyncio.create_task(receive())
    await asyncio.create_task(answer(send, message["body"]))


async def gathered(scope: Scope, receive: Receive, send: Send) -> None:
    data, _ = await asyncio.gather(read(receive), asyncio.sleep(0))
    await asyncio.gather(answer(send, data), asyncio.sleep(0))


async def ensured(scope: Scope, receive: Receive, send: Send) -> None:
    message = await asyncio.ensure_future(receive())
    await asyncio.ensure_future(start(send))
    await asyncio.shield(body(send, message["body"], more=True))
    await asyncio.shield(send({"type": "http.response.body"}))


async def task_group(scope: Scope, receive: Receive, send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read(receive))
        group.create_task(asyncio.sleep(0))
    async with asyncio.TaskGroup() as group:
        group.create_task(answer(send, reading.result()))


async def anyio_task_group(scope: Scope, receive: Receive, send: Send) -> None:
    """As Starlette streams: one task watches for the disconnect, another one sends."""
    data = await read(receive)
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            note(scope, (await receive())["type"])
            group.cancel_scope.cancel()

        group.start_soon(watch)
        await start(send)
        await anyio.lowlevel.checkpoint()
        await body(send, data, more=True)
        await body(send)


@pytest.mark.parametrize("path", ["/receive_in_task", "/gathered", "/ensured", "/task_group", "/anyio_task_group"])
async def test_awaitables_work_in_other_tasks(server: Server, connect: Connect, path: str) -> None:
    connection = await connect(server)
    for _ in range(3):
        assert (await connection.post(path, b"body")).body == b"body"


async def watch_then_cancel(scope: Scope, receive: Receive, send: Send) -> None:
    data = await read(receive)
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            try:
                note(scope, (await receive())["type"])
            except anyio.get_cancelled_exc_class():
                note(scope, "watch cancelled")
                raise

        group.start_soon(watch)
        await start(send)
        for _ in range(3):
            await body(send, data, more=True)
            await anyio.sleep(0)
        group.cancel_scope.cancel()
    await body(send)
    note(scope, (await receive())["type"])


async def test_watching_for_the_disconnect_while_streaming(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    response = await connection.post(f"/watch_then_cancel?{key}", b"ab")
    assert response.body == b"ababab"
    assert await server.noted(key, "http.disconnect") == ["watch cancelled", "http.disconnect"]


async def send_in_child_task(scope: Scope, receive: Receive, send: Send) -> None:
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def writer() -> None:
        await start(send)
        while (item := await queue.get()) is not None:
            await body(send, item, more=True)
        await body(send)

    writing = asyncio.create_task(writer())
    more = True
    while more:
        message = await receive()
        queue.put_nowait(message["body"])
        more = message["more_body"]
    queue.put_nowait(None)
    await writing


async def test_receive_and_send_in_two_tasks(server: Server, connect: Connect) -> None:
    exchange = await (await connect(server)).start("POST", "/send_in_child_task", upload=True)
    expected = [b"%d;" % number for number in range(50)]
    for piece in expected:
        await exchange.send(piece)
    await exchange.send(b"", end=True)
    assert (await exchange.response()).body == b"".join(expected)


async def sends_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await asyncio.gather(*(body(send, b"%d," % number, more=True) for number in range(50)))
    await body(send)


async def test_concurrent_sends_keep_their_order(server: Server, connect: Connect) -> None:
    expected = b"".join(b"%d," % number for number in range(50))
    assert (await (await connect(server)).get("/sends_at_once")).body == expected


async def child_waits_while_streaming(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    waiting = asyncio.create_task(receive())
    await start(send)
    for number in range(10):
        await body(send, b"%d" % number, more=True)
        await asyncio.sleep(0)
        assert not waiting.done()
    await body(send)
    note(scope, (await waiting)["type"])


async def test_receive_in_a_child_task_waits_for_the_end_of_the_response(
    server: Server, connect: Connect, key: str
) -> None:
    connection = await connect(server)
    response = await connection.get(f"/child_waits_while_streaming?{key}")
    assert response.body == b"0123456789"
    await server.noted(key, "http.disconnect")


# --- Cancel scopes ---


async def polls_for_disconnect(scope: Scope, receive: Receive, send: Send) -> None:
    """As Starlette's `Request.is_disconnected`: a receive in a scope that is cancelled already."""
    await read(receive)
    for _ in range(3):
        with anyio.CancelScope() as cancel_scope:
            cancel_scope.cancel()
            note(scope, (await receive())["type"])
        await anyio.sleep(0)
    await answer(send, b"still here")


async def test_receive_in_a_cancelled_scope_gives_up_at_once(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/polls_for_disconnect?{key}")).body == b"still here"
    assert await server.notes(key) == []


async def shielded(scope: Scope, receive: Receive, send: Send) -> None:
    with anyio.CancelScope() as outer:
        with anyio.CancelScope(shield=True):
            outer.cancel()
            data = await read(receive)
            await start(send)
            await body(send, data, more=True)
        note(scope, "shield passed")
        await anyio.sleep(NEVER)
    await body(send)


async def test_shielded_scope_receives_and_sends(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.post(f"/shielded?{key}", b"data")).body == b"data"
    assert await server.notes(key) == ["shield passed"]


async def cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
    """A cancellation asked for before the await arrives at the await, or at the next one."""
    task = asyncio.current_task()
    assert task is not None
    await read(receive)
    task.cancel()
    try:
        await receive()
    except asyncio.CancelledError:
        note(scope, "cancelled")
    task.uncancel()
    await answer(send, b"survived")


async def test_cancellation_arrives_at_receive(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/cancels_itself?{key}")).body == b"survived"
    assert await server.notes(key) == ["cancelled"]


async def send_after_timeout(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        async with asyncio.timeout(SHORT):
            await start(send)
            await body(send, b"before", more=True)
            await asyncio.sleep(NEVER)
    except TimeoutError:
        await body(send, b", after")


async def test_send_works_after_a_time_out(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/send_after_timeout")).body == b"before, after"


async def cancelled_task_group(scope: Scope, receive: Receive, send: Send) -> None:
    """A child waits in receive, its sibling fails, the group is cancelled, the app answers."""
    await read(receive)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("on purpose")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            group.create_task(fail())
    except* LookupError:
        note(scope, "group failed")
    await answer(send, b"answered")


async def test_failing_task_group_cancels_its_receive(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.get(f"/cancelled_task_group?{key}")).body == b"answered"
    assert await server.notes(key) == ["group failed"]


# --- Tasks and contexts ---


async def current_task(scope: Scope, receive: Receive, send: Send) -> None:
    seen = [asyncio.current_task()]
    await read(receive)
    seen.append(asyncio.current_task())
    await start(send)
    seen.append(asyncio.current_task())
    await asyncio.sleep(0)
    seen.append(asyncio.current_task())
    one_task = isinstance(seen[0], asyncio.Task) and all(task is seen[0] for task in seen)
    listed = seen[0] in asyncio.all_tasks()
    await body(send, b"yes" if one_task and listed else b"no")


async def test_application_runs_in_one_task(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    assert (await connection.get("/current_task")).body == b"yes"
    assert (await connection.post("/current_task", b"body")).body == b"yes"


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def context(scope: Scope, receive: Receive, send: Send) -> None:
    before = VARIABLE.get()
    VARIABLE.set(scope["path"])
    await read(receive)
    await start(send)
    await asyncio.sleep(0)
    in_task = await asyncio.create_task(_variable())
    after = VARIABLE.get()
    await body(send, f"{before} {in_task} {after}".encode())


async def _variable() -> str:
    return VARIABLE.get()


async def test_context_variables_belong_to_one_request(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    paths = [f"/context/{number}" for number in range(5)]
    for path in paths:
        assert (await connection.get(path)).body == f"unset {path} {path}".encode()


async def context_task(scope: Scope, receive: Receive, send: Send) -> None:
    """Values set before an await that has to wait are there after it."""
    VARIABLE.set("kept")
    note(scope, "waiting")
    await read(receive)
    await answer(send, VARIABLE.get().encode())


async def test_context_survives_a_wait(server: Server, connect: Connect, key: str) -> None:
    exchange = await (await connect(server)).start("POST", f"/context_task?{key}", upload=True)
    await server.noted(key, "waiting")
    await exchange.send(b"", end=True)
    assert (await exchange.response()).body == b"kept"


async def unawaited(scope: Scope, receive: Receive, send: Send) -> None:
    """Makes awaitables that nobody awaits, as cancelled code does."""
    await read(receive)
    _ = receive()
    await answer(send, b"fine")


async def test_awaitable_that_nobody_awaits_does_no_harm(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for _ in range(3):
        assert (await connection.get("/unawaited")).body == b"fine"
    assert (await connection.post("/timeout", b"next")).body == b"next"


async def is_awaitable(scope: Scope, receive: Receive, send: Send) -> None:
    """Wrapped by hand, as middleware in older styles does."""
    seen: list[Any] = []

    async def wrapped_receive() -> Any:
        message = await receive()
        seen.append(message["type"])
        return message

    async def wrapped_send(message: Any) -> None:
        seen.append(message["type"])
        awaitable = send(message)
        assert isinstance(awaitable, Awaitable)
        await awaitable

    await timeout(scope, wrapped_receive, wrapped_send)
    note(scope, seen)


async def test_receive_and_send_may_be_wrapped(server: Server, connect: Connect, key: str) -> None:
    connection = await connect(server)
    assert (await connection.post(f"/is_awaitable?{key}", b"body")).body == b"body"
    types = ["http.request", "http.response.start", "http.response.body"]
    assert await server.noted(key, types) == [types]


# --- The call and what it leaves behind ---


async def leaves_a_receive_behind(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)

    async def waits() -> None:
        note(scope, "waiting")
        note(scope, (await receive())["type"])

    left_behind.append(asyncio.create_task(waits()))
    await asyncio.sleep(0)
    raise LookupError("on purpose")


async def leaves_a_send_behind(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)

    async def fills() -> None:
        try:
            while True:
                await body(send, bytes(100_000), more=True)
        except OSError as error:
            note(scope, type(error).__name__)

    left_behind.append(asyncio.create_task(fills()))
    await asyncio.sleep(0)
    note(scope, "waiting")
    raise LookupError("on purpose")


left_behind: list[asyncio.Task[None]] = []


@pytest.mark.parametrize(
    ("app", "told"), [(leaves_a_receive_behind, "http.disconnect"), (leaves_a_send_behind, "ClientDisconnected")]
)
async def test_end_of_the_call_is_told_to_whoever_still_waits(
    server: Server, connect: Connect, key: str, app: Any, told: str
) -> None:
    connection = await connect(server)
    await connection.start("GET", f"/{app.__name__}?{key}")
    await server.noted(key, "waiting", told)


called_with: contextvars.ContextVar[str] = contextvars.ContextVar("called_with", default="")


def called_in_its_task(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    before, task = called_with.get(), asyncio.current_task()
    called_with.set("a request before")
    return answer(send, [before, task is not None])


async def test_application_is_called_in_its_own_task_and_context(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for _ in range(3):
        assert (await connection.get("/called_in_its_task")).json() == ["", True]


async def stops_the_loop(scope: Scope, receive: Receive, send: Send) -> None:
    asyncio.get_running_loop().stop()
    await answer(send, b"goes on")


async def test_loop_goes_on_when_an_application_stops_it(server: Server, connect: Connect) -> None:
    connection = await connect(server)
    for _ in range(2):
        assert (await connection.get("/stops_the_loop")).body == b"goes on"
    await eventually(lambda: "stopped the event loop" in server.fresh_log)


async def too_deep(scope: Scope, receive: Receive, send: Send) -> None:
    def deeper(one: int) -> list[int]:
        return sorted([one], key=deeper)  # recursion through C

    try:
        deeper(1)
    except RecursionError:
        await answer(send, b"RecursionError")


async def test_recursion_ends_in_an_exception(server: Server, connect: Connect) -> None:
    assert (await (await connect(server)).get("/too_deep")).body == b"RecursionError"


app = routes(
    which_loop,
    wait_for,
    timeout,
    fail_after,
    wait_for_expires,
    timeout_expires,
    move_on_after_expires,
    task_cancelled,
    cancels_in_a_hurry,
    cancelled_at_delivery,
    two_receives,
    receive_in_task,
    gathered,
    ensured,
    task_group,
    anyio_task_group,
    watch_then_cancel,
    send_in_child_task,
    sends_at_once,
    child_waits_while_streaming,
    polls_for_disconnect,
    shielded,
    cancels_itself,
    send_after_timeout,
    cancelled_task_group,
    current_task,
    context,
    context_task,
    unawaited,
    is_awaitable,
    leaves_a_receive_behind,
    leaves_a_send_behind,
    called_in_its_task,
    stops_the_loop,
    too_deep,
)
