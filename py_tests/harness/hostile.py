"""What the tables of hostile conversations have in common: their rows, and an application that keeps
account of its calls."""

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from py_tests.harness.apps import Receive, Scope, Send, answer, lifespan
from py_tests.harness.deadline import eventually
from py_tests.harness.serving import FRONT, OWN, Server

# --- The application ---

_calls: dict[int, list[str]] = {}
"""What each connection has called the application with, by the client's port."""
_running: list[int] = []
"""The client's port of each call that has not ended."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads each request to its end and answers; `/deaf` answers at once, `/bye` closes the connection."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["path"] == "/account":
        port = int(scope["query_string"])
        await answer(send, {"calls": _calls.get(port, []), "running": _running.count(port), "all": len(_running)})
    elif scope["path"] == "/forget":
        _calls.pop(int(scope["query_string"]), None)
        await answer(send)
    else:
        port = scope["client"][1]
        _running.append(port)
        try:
            await call(scope, receive, send, _calls.setdefault(port, []))
        finally:
            _running.remove(port)


async def call(scope: Scope, receive: Receive, send: Send, calls: list[str]) -> None:
    number = len(calls)
    calls.append(shown(scope))
    # On Python 3.12 and later a request begins before what has come behind it is looked at.
    await asyncio.sleep(0)
    if scope["path"] != "/deaf":
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                calls[number] += " cut"
                return
            body += message["body"]
            more = message["more_body"]
        if body:
            calls[number] += f" [{text(body) if len(body) < 100 else len(body)}]"
    await answer(send, b"seen", headers=[(b"connection", b"close")] if scope["path"] == "/bye" else [])


def shown(scope: Scope) -> str:
    """Method and target, a `host` that is not `a`, and what is in fields named `x`."""
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    odd = [] if hosts == [b"a"] else [f"host={text(b'+'.join(hosts))}"]
    return " ".join(
        [scope["method"], text(target), *odd, *(f"x={text(value)}" for name, value in scope["headers"] if name == b"x")]
    )


def text(data: bytes) -> str:
    return data.decode("latin-1")


# --- The tables ---


class Step(enum.Enum):
    """What a client does between its bytes."""

    CALLED = enum.auto()
    """Waits until the application has been called once more."""
    ANSWERED = enum.auto()
    """Waits for an answer."""
    HALF_CLOSE = enum.auto()
    RESET = enum.auto()


class End(enum.Enum):
    """What becomes of the connection."""

    KEPT = enum.auto()
    """It serves the next request."""
    CLOSED = enum.auto()
    """The server closes it."""
    WAITS = enum.auto()
    """The server waits for more, and closes it once the client does."""


CALLED, ANSWERED, HALF_CLOSE, RESET = Step
KEPT, CLOSED, WAITS = End


@dataclass(frozen=True)
class Row:
    """A conversation: what the client does, all that it is answered, what the application is called
    with, and the connection's end."""

    name: str
    steps: tuple[object, ...]
    """Bytes and what else its kind of client can do."""
    answers: tuple[str, ...]
    calls: tuple[str, ...]
    end: End


@dataclass
class Outcome:
    answers: tuple[str, ...]
    calls: tuple[str, ...]
    end: End


Converse = Callable[[Server, Row], Awaitable[Outcome]]


@dataclass(frozen=True)
class Instead:
    """What `aiovoy upstream` makes of some rows, where the table has what Envoy makes of them, and why."""

    reason: str
    outcome: Outcome | None
    """None where it is no conversation that always goes alike."""
    rows: tuple[str, ...]
    """Their names, behind that of their group."""


def by_front(table: Mapping[str, Sequence[Row]], differences: Sequence[Instead]) -> Mapping[str, Sequence[Row]]:
    """The table as it is for the front under test."""
    rows = {f"{group}: {row.name}": row for group, rows in table.items() for row in rows}
    for difference in differences:
        for name in difference.rows:
            row, to = rows.pop(name), difference.outcome
            if to:
                rows[name] = replace(row, answers=to.answers, calls=to.calls, end=to.end)
                assert rows[name] != row, f"{name} is no difference"
    if FRONT != OWN:
        return table
    names = {group: [f"{group}: {row.name}" for row in of_group] for group, of_group in table.items()}
    return {group: [rows[name] for name in of_group if name in rows] for group, of_group in names.items()}


def each(table: Mapping[str, Sequence[Row]]) -> pytest.MarkDecorator:
    """A test for each row of the table."""
    rows = [pytest.param(row, id=f"{group}: {row.name}") for group, rows in table.items() for row in rows]
    return pytest.mark.parametrize("row", rows)


def outcomes(request: pytest.FixtureRequest, server: Server, converse: Converse) -> dict[Row, Outcome | Exception]:
    """Has all conversations that the module's tests are about: many at once, since each end takes a while."""
    items = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    parameters: list[dict[str, Any]] = [item.callspec.params for item in items if hasattr(item, "callspec")]
    rows = [given["row"] for given in parameters if "row" in given]
    return asyncio.run(converse_all(server, rows, converse))


async def converse_all(server: Server, rows: Sequence[Row], converse: Converse) -> dict[Row, Outcome | Exception]:
    turns = asyncio.Semaphore(32)
    had: dict[Row, Outcome | Exception] = {}

    async def one(row: Row) -> None:
        async with turns:
            try:
                had[row] = await converse(server, row)
            except Exception as error:
                had[row] = error

    await asyncio.gather(*(one(row) for row in rows))
    return had


def check(row: Row, outcome: Outcome | Exception) -> None:
    if isinstance(outcome, Exception):
        raise outcome
    expected = Outcome(row.answers, row.calls, row.end)
    assert outcome == expected, f"{outcome} is not {expected}"


# --- Bytes that HTTP/2 and HTTP/3 have in common ---

Field = tuple[str, str]


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """RFC 7541, section 5.1: in the lower `bits` of `first`, and what follows."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out = [first | limit]
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def string(text: str) -> bytes:
    data = text.encode("latin-1")
    return integer(len(data), 7) + data


def pseudo(method: str = "GET", path: str = "/a", authority: str = "a", scheme: str = "http") -> tuple[Field, ...]:
    return (":method", method), (":scheme", scheme), (":authority", authority), (":path", path)


# --- What the application says ---


async def account(server: Server, port: int = 0) -> Any:
    return (await server.get(f"/account?{port}")).json()


async def forget(server: Server, port: int) -> None:
    """Forgets the calls of a connection that had this port before."""
    assert (await server.get(f"/forget?{port}")).status == 200


async def called(server: Server, port: int, times: int) -> None:
    """Waits until the application has been called so often."""

    async def enough() -> bool:
        return len((await account(server, port))["calls"]) >= times

    await eventually(enough)


async def calls_of(server: Server, port: int, expected: int) -> tuple[str, ...]:
    """What the connection called the application with. Waits until those calls have ended."""
    with contextlib.suppress(TimeoutError):
        await called(server, port, expected)

    async def at_rest() -> bool:
        return not (await account(server, port))["running"]

    await eventually(at_rest)
    return tuple((await account(server, port))["calls"])
