"""`--access-log`: a line for each request, on standard output, and only if it is asked for."""

import pytest
from apps import Receive, Scope, Send, answer
from conftest import Connect, Serve, unlike_uvicorn
from deadline import eventually


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"not here", status=404)


async def test_access_log_has_a_line_for_each_request(serve: Serve, connect: Connect) -> None:
    server = serve(app, access_log=True, lifespan="off")
    connection = await connect(server)
    for number in range(3):
        await connection.get(f"/some/path/{number}?query")

    def lines() -> list[str]:
        return [line for line in server.output.splitlines() if "/some/path/" in line]

    await eventually(lambda: len(lines()) == 3)
    for number, line in enumerate(lines()):
        assert "GET" in line
        assert f"/some/path/{number}?query" in line
        assert "404" in line
        assert "127.0.0.1" in line


@unlike_uvicorn("it logs each request by default")
@pytest.mark.parametrize("options", [{}, {"access_log": False}])
async def test_requests_are_not_logged_by_default(serve: Serve, options: dict[str, bool]) -> None:
    server = serve(app, lifespan="off", **options)
    log = server.log
    assert (await server.get("/some/path")).status == 404
    await server.get("/some/path")
    assert server.log == log
    assert server.output == ""
