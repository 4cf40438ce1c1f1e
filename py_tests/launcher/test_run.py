"""`aiovoy.run` in scripts."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import aiovoy
from py_tests.harness.serving import AIOVOY, Server, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

SCRIPT = """
import aiovoy

async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": __name__.encode()}})

if __name__ == "__main__":
    aiovoy.run({arguments})
    print("over")
"""

Start = Callable[[str], Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as servers:

        def start(arguments: str) -> Server:
            script = tmp_path / "script.py"
            script.write_text(SCRIPT.format(arguments=arguments))
            server = Server([sys.executable, str(script)], AIOVOY, tmp_path, {})
            servers.callback(server.stop)
            return server

        yield start


@pytest.mark.parametrize(
    "app", ["app", "'script:app'", "aiovoy.Config('script:app')", "aiovoy.Config.of(app, port=1)"], ids=str
)
async def test_it_serves_until_it_is_told_to_stop(start: Start, app: str) -> None:
    server = start(f"{app}, port=0, lifespan='off'")
    server.wait_until_started()
    assert (await server.get("/")).body == b"script"
    server.signal(signal.SIGINT)
    assert await server.exit_code() == 0
    assert server.output == "over\n"
    assert "Traceback" not in server.log


async def test_server_that_does_not_start_ends_the_script(start: Start) -> None:
    server = start("'script:missing', port=0")
    assert await server.exit_code() == 1
    assert server.output == ""
    assert "no attribute `missing` in the module `script`" in server.log
    assert "SystemExit" not in server.log


def test_wrong_setting_raises() -> None:
    with pytest.raises(aiovoy.ConfigError, match="expected `port` of 65535 or less, got `70000`"):
        aiovoy.run("script:app", port=70000)


def test_it_is_for_the_main_thread() -> None:
    raised: list[RuntimeError] = []

    def run() -> None:
        try:
            aiovoy.run("script:app", port=0)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "use `aiovoy.Server`" in str(raised[0])
