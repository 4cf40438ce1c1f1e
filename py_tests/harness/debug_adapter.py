"""A client of debuggers: one session of the Debug Adapter Protocol."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from py_tests.harness.deadline import DEADLINE, eventually

Message = dict[str, Any]


class Session:
    """Messages that nobody has asked for yet are kept in `unread`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._sent = 0
        self.unread: list[Message] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator["Session"]:
        """Waits until somebody listens."""

        async def connected() -> Any:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection("127.0.0.1", port)

        reader, writer = await eventually(connected)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def attach(self, breakpoints: dict[str, list[int]], request: str = "attach", **arguments: Any) -> None:
        """Has the program run with breakpoints on these lines of files."""
        await self.ask("initialize", adapterID="debugpy", pathFormat="path")
        attached = self._send(request, arguments)
        await self.event("initialized")
        for path, lines in breakpoints.items():
            await self.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": line} for line in lines])
        await self.ask("configurationDone")
        await self._response(attached)

    async def ask(self, command: str, **arguments: Any) -> Any:
        return await self._response(self._send(command, arguments))

    async def event(self, name: str) -> Message:
        body: Message = (await self._take(lambda message: message.get("event") == name)).get("body", {})
        return body

    def _send(self, command: str, arguments: Message) -> int:
        self._sent += 1
        request = {"seq": self._sent, "type": "request", "command": command, "arguments": arguments}
        data = json.dumps(request).encode()
        self._writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        return self._sent

    async def _response(self, request: int) -> Any:
        response = await self._take(lambda message: message.get("request_seq") == request)
        assert response["success"], response
        return response.get("body")

    async def _take(self, wanted: Callable[[Message], bool]) -> Message:
        try:
            async with asyncio.timeout(3 * DEADLINE):
                while not (found := next(filter(wanted, self.unread), None)):
                    head = await self._reader.readuntil(b"\r\n\r\n")
                    length = int(head.split(b":")[1])
                    self.unread.append(json.loads(await self._reader.readexactly(length)))
        except TimeoutError:
            raise TimeoutError(f"what came was {self.unread}") from None
        self.unread.remove(found)
        return found
