"""gRPC over HTTP/2: Google's client against the gRPC of the package connectrpc, and against plain ASGI."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from protobuf.wkt.google.protobuf.wrappers_pb import BytesValue, StringValue

from py_tests.harness.apps import Receive, Scope, Send, lifespan
from py_tests.harness.certificates import Pair, authority
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.serving import Serve, Server, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("uvicorn has no HTTP/2")

# --- The service: each kind of call, and some that fail ---

SERVICE = "tests.Talk"
Context = RequestContext[Any, Any]

seen: set[str] = set()
"""What happened to calls whose clients do not hear of it."""


class Talk:
    async def hello(self, request: StringValue, context: Context) -> StringValue:
        context.response_headers["x-first"] = "head"
        context.response_trailers["x-last"] = "tail"
        return StringValue(value=f"hello {request.value}, {context.request_headers.get('x-token')}")

    async def sizes(self, requests: AsyncIterator[BytesValue], context: Context) -> StringValue:
        return StringValue(value=str([len(request.value) async for request in requests]))

    async def count(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        for number in range(int(request.value)):
            yield StringValue(value=str(number))

    async def talk(self, requests: AsyncIterator[StringValue], context: Context) -> AsyncIterator[StringValue]:
        """Answers each message before it reads the next one; ends with the client, or at the word `bye`."""
        async for request in requests:
            yield StringValue(value=f"{request.value}?")
            if request.value == "bye":
                break

    async def echo(self, request: BytesValue, context: Context) -> BytesValue:
        return request

    async def fail(self, request: StringValue, context: Context) -> StringValue:
        context.response_trailers["x-last"] = "tail"
        raise ConnectError(Code.NOT_FOUND, f"no {request.value}")

    async def fail_late(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        yield StringValue(value="one")
        yield StringValue(value="two")
        raise ConnectError(Code.RESOURCE_EXHAUSTED, "no more")

    async def crash(self, request: StringValue, context: Context) -> StringValue:
        raise LookupError("the application crashed")

    async def wait(self, request: StringValue, context: Context) -> StringValue:
        seen.add(f"begin of {request.value}")
        try:
            await asyncio.Event().wait()
        finally:
            seen.add(f"end of {request.value}")
        raise AssertionError("nobody sets the event")

    async def was_seen(self, request: StringValue, context: Context) -> StringValue:
        return StringValue(value=str(request.value in seen))


KINDS: Mapping[str, tuple[Callable[..., Any], StreamType]] = {
    "unary_unary": (Endpoint.unary, StreamType.UNARY),
    "stream_unary": (Endpoint.client_stream, StreamType.CLIENT_STREAM),
    "unary_stream": (Endpoint.server_stream, StreamType.SERVER_STREAM),
    "stream_stream": (Endpoint.bidi_stream, StreamType.BIDI_STREAM),
}

Type = type[StringValue] | type[BytesValue]

METHODS: dict[str, tuple[str, Type, Type]] = {
    "hello": ("unary_unary", StringValue, StringValue),
    "sizes": ("stream_unary", BytesValue, StringValue),
    "count": ("unary_stream", StringValue, StringValue),
    "talk": ("stream_stream", StringValue, StringValue),
    "echo": ("unary_unary", BytesValue, BytesValue),
    "fail": ("unary_unary", StringValue, StringValue),
    "fail_late": ("unary_stream", StringValue, StringValue),
    "crash": ("unary_unary", StringValue, StringValue),
    "wait": ("unary_unary", StringValue, StringValue),
    "was_seen": ("unary_unary", StringValue, StringValue),
}


def endpoints(service: Talk) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, (kind, request, response) in METHODS.items():
        endpoint, stream = KINDS[kind]
        method = MethodInfo(
            name=name,
            service_name=SERVICE,
            input=request,
            output=response,
            idempotency_level=IdempotencyLevel.UNKNOWN,
            stream_type=stream,
        )
        found[f"/{SERVICE}/{name}"] = endpoint(method=method, function=getattr(service, name))
    return found


class TalkApplication(ConnectASGIApplication[Talk]):
    path = f"/{SERVICE}"


talk = TalkApplication(service=Talk(), endpoints=endpoints, read_max_bytes=None)


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """A bidirectional echo without any package: five bytes of head before each message, and the status in trailers."""
    assert "http.response.trailers" in scope["extensions"]
    key = dict(scope["headers"]).get(b"x-key", b"").decode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/grpc")],
            "trailers": True,
        }
    )
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    waiting, count, more = b"", 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            seen.add(f"disconnect of {key}")
            return
        waiting, more = waiting + message["body"], message["more_body"]
        while len(waiting) >= 5 and len(waiting) >= (end := 5 + struct.unpack_from(">xI", waiting)[0]):
            await send({"type": "http.response.body", "body": waiting[:end], "more_body": True})
            waiting, count = waiting[end:], count + 1
            seen.add(f"message of {key}")
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    for more, *trailer in [(True, b"grpc-status", b"0"), (False, b"x-count", b"%d" % count)]:
        await send({"type": "http.response.trailers", "headers": [trailer], "more_trailers": more})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await (plain if scope["path"] == "/tests.Plain/echo" else talk)(scope, receive, send)  # type: ignore[arg-type]


# --- The client ---


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        yield channel


def method(channel: grpc.aio.Channel | grpc.Channel, name: str) -> Any:
    kind, request, response = METHODS[name]
    return getattr(channel, kind)(
        f"/{SERVICE}/{name}", request_serializer=request.to_binary, response_deserializer=response.from_binary
    )


def stream(channel: grpc.aio.Channel, path: str, metadata: list[tuple[str, str]] | None = None) -> Any:
    """A call whose messages are left as bytes."""
    multi: Any = channel.stream_stream(path)
    return multi(metadata=metadata)


def text(value: str) -> StringValue:
    return StringValue(value=value)


def fields(metadata: Any) -> dict[str, Any]:
    return dict(metadata or ())


async def was_seen(channel: grpc.aio.Channel, what: str) -> bool:
    answer: StringValue = await method(channel, "was_seen")(text(what))
    return answer.value == "True"


# --- Each kind of call ---


async def test_unary_call_and_its_metadata(channel: grpc.aio.Channel) -> None:
    call = method(channel, "hello")(text("Zoë"), metadata=[("x-token", "t1")])
    assert (await call).value == "hello Zoë, t1"
    assert fields(await call.initial_metadata())["x-first"] == "head"
    assert fields(await call.trailing_metadata())["x-last"] == "tail"
    assert await call.code() is grpc.StatusCode.OK


async def test_stream_of_requests(channel: grpc.aio.Channel) -> None:
    sizes = [0, 1, 100_000, 3, 16_384]

    async def requests() -> AsyncIterator[BytesValue]:
        for size in sizes:
            yield BytesValue(value=b"x" * size)

    assert (await method(channel, "sizes")(requests())).value == str(sizes)


async def test_stream_of_responses(channel: grpc.aio.Channel) -> None:
    for count in [0, 1, 1000]:
        call = method(channel, "count")(text(str(count)))
        assert [answer.value async for answer in call] == [str(number) for number in range(count)]
        assert await call.code() is grpc.StatusCode.OK


async def conversation(channel: grpc.aio.Channel, name: str, length: int) -> None:
    """A client that says the next thing only when it has the answer to the last."""
    call = method(channel, "talk")()
    for number in range(length):
        await call.write(text(f"{name} {number}"))
        assert (await call.read()).value == f"{name} {number}?"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_conversation_in_lock_step(channel: grpc.aio.Channel) -> None:
    await conversation(channel, "solo", 500)


async def test_many_conversations_at_once(channel: grpc.aio.Channel) -> None:
    """More of them than the streams that a connection may have open."""
    await asyncio.gather(*(conversation(channel, str(number), 20) for number in range(150)))


async def test_service_that_ends_the_conversation(channel: grpc.aio.Channel) -> None:
    call = method(channel, "talk")()
    await call.write(text("bye"))
    assert (await call.read()).value == "bye?"
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_messages_of_megabytes(channel: grpc.aio.Channel) -> None:
    message = BytesValue(value=bytes(range(256)) * 4096 * 8)
    assert (await method(channel, "echo")(message)).value == message.value
    sizes = [len(message.value)] * 4
    assert (await method(channel, "sizes")(iter([message] * 4))).value == str(sizes)


async def test_compressed_messages(channel: grpc.aio.Channel) -> None:
    message = BytesValue(value=b"again and again " * 50_000)
    call = method(channel, "echo")(message, compression=grpc.Compression.Gzip)
    assert (await call).value == message.value
    assert await call.code() is grpc.StatusCode.OK


def test_client_in_threads(server: Server) -> None:
    """The synchronous client; its messages are made by a generator in another thread."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.enable_http_proxy", 0)]) as channel:

        def requests() -> Iterator[StringValue]:
            for number in range(50):
                yield text(str(number))

        answers = method(channel, "talk")(requests(), timeout=DEADLINE)
        assert [answer.value for answer in answers] == [f"{number}?" for number in range(50)]
        assert method(channel, "hello")(text("you"), timeout=DEADLINE).value == "hello you, None"


@of_envoy("it has no TLS")
async def test_over_tls(serve: Serve, tmp_path: Path) -> None:
    server = serve(app, **Pair(tmp_path).options)
    credentials = grpc.ssl_channel_credentials(authority().cert_pem.bytes())
    address = f"localhost:{server.ssl_port}"
    async with grpc.aio.secure_channel(address, credentials, options=[("grpc.enable_http_proxy", 0)]) as channel:
        await conversation(channel, "secret", 20)


# --- Calls that fail ---


async def test_status_of_a_failed_call(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await method(channel, "fail")(text("Zoë: 100 %"))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    assert failure.value.details() == "no Zoë: 100 %"
    assert fields(failure.value.trailing_metadata())["x-last"] == "tail"


async def test_status_after_some_messages(channel: grpc.aio.Channel) -> None:
    call = method(channel, "fail_late")(text(""))
    assert [(await call.read()).value for _ in range(2)] == ["one", "two"]
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call.read()
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.value.details() == "no more"


async def test_unknown_method_and_crash(server: Server, channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stream(channel, f"/{SERVICE}/missing").read()
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await method(channel, "crash")(text(""))
    assert failure.value.code() is grpc.StatusCode.UNKNOWN
    await conversation(channel, "after it", 1)


async def test_deadline_ends_the_call_on_both_sides(channel: grpc.aio.Channel, key: str) -> None:
    await channel.channel_ready()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await method(channel, "wait")(text(key), timeout=2)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: was_seen(channel, f"end of {key}"))


async def test_cancelled_call_is_cancelled_in_the_service(channel: grpc.aio.Channel, key: str) -> None:
    call = method(channel, "wait")(text(key))
    await eventually(lambda: was_seen(channel, f"begin of {key}"))
    call.cancel()
    await eventually(lambda: was_seen(channel, f"end of {key}"))
    assert await call.code() is grpc.StatusCode.CANCELLED


# --- Without a package ---


async def test_plain_echo_ends_with_its_trailers(channel: grpc.aio.Channel) -> None:
    call = stream(channel, "/tests.Plain/echo")
    for number in range(100):
        await call.write(b"%d" % number * number)
        assert await call.read() == b"%d" % number * number
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    assert fields(await call.trailing_metadata())["x-count"] == "100"


async def test_client_that_leaves_a_plain_echo(channel: grpc.aio.Channel, key: str) -> None:
    call = stream(channel, "/tests.Plain/echo", [("x-key", key)])
    await call.write(b"hello")
    assert await call.read() == b"hello"
    assert await was_seen(channel, f"message of {key}")
    call.cancel()
    await eventually(lambda: was_seen(channel, f"disconnect of {key}"))


# --- The same service by other protocols ---


@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
async def test_connect_protocol(server: Server, http2: bool) -> None:
    kind: dict[str, Any] = {"http1": not http2, "http2": http2, "trust_env": False, "timeout": DEADLINE}
    async with httpx.AsyncClient(base_url=server.url, **kind) as client:
        response = await client.post(f"/{SERVICE}/hello", json="Zoë", headers={"x-token": "t2"})
        assert (response.status_code, response.json()) == (200, "hello Zoë, t2")
        assert response.headers["trailer-x-last"] == "tail"
        response = await client.post(f"/{SERVICE}/fail", json="tea")
        assert (response.status_code, response.json()) == (404, {"code": "not_found", "message": "no tea"})


@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
async def test_grpc_web(server: Server, http2: bool) -> None:
    """Messages as in gRPC, and the trailers in the body: what browsers can do."""
    message = text("you").to_binary()
    kind: dict[str, Any] = {"http1": not http2, "http2": http2, "trust_env": False, "timeout": DEADLINE}
    async with httpx.AsyncClient(base_url=server.url, **kind) as client:
        response = await client.post(
            f"/{SERVICE}/hello",
            content=struct.pack(">xI", len(message)) + message,
            headers={"content-type": "application/grpc-web+proto"},
        )
    answer = text("hello you, None").to_binary()
    assert response.content.startswith(struct.pack(">xI", len(answer)) + answer)
    assert b"grpc-status: 0\r\n" in response.content
