"""Which requests, and lines, those who configure Python's `logging` want to be written, and which nowhere."""

import contextlib
import json
import logging
import logging.config
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.deadline import eventually
from py_tests.harness.plain_envoy import free_port, listens
from py_tests.harness.serving import Serve, Server, launch, unlike_uvicorn
from py_tests.operations.test_logging import app, be_asked, configured, dictionary, root_is_json

pytestmark = unlike_uvicorn("this is about aiovoy")


def _alone(name: str, **own: Any) -> Callable[[], None]:
    """Configures this logger, and the root logger by JSON."""
    loggers = {name: {"handlers": [], **own}}
    return lambda: logging.config.dictConfig(dictionary("", disable_existing_loggers=False, loggers=loggers))


def _disable(*names: str) -> None:
    _alone(names[0])()
    for name in names:
        logging.getLogger(name).disabled = True


def _clear() -> None:
    """As people do who write a line for each request themselves."""
    root_is_json()
    logging.getLogger("uvicorn.access").handlers.clear()
    logging.getLogger("uvicorn.access").propagate = False


def for_level(level: str, *loggers: str, **more: Any) -> dict[str, Any]:
    """A configuration with a handler for this level and above, and one without a level for the root logger."""
    own = {"handlers": ["high"], "level": "INFO", **more}
    handlers = {"high": {"class": "logging.StreamHandler", "level": level}, **dictionary()["handlers"]}
    return dictionary("", handlers=handlers, loggers=dict.fromkeys(loggers, own), disable_existing_loggers=False)


WITHOUT_REQUESTS: dict[str, Callable[[], object]] = {
    "disabled": lambda: _disable("aiovoy.access"),
    "uvicorn's disabled": lambda: _disable("uvicorn.access"),
    "uvicorn's disabled, and the one above": lambda: _disable("uvicorn.access", "uvicorn"),
    "level": _alone("aiovoy.access", level="WARNING"),
    "uvicorn's level": _alone("uvicorn.access", level="WARNING"),
    "uvicorn's level alone": lambda: logging.getLogger("uvicorn.access").setLevel("WARNING"),
    "level of all of ours": lambda: logging.getLogger("aiovoy").setLevel("WARNING"),
    "level of a handler": lambda: logging.config.dictConfig(for_level("ERROR", "uvicorn.access", propagate=False)),
    "no handler": _alone("aiovoy.access", propagate=False),
    "uvicorn's without handler": _alone("uvicorn.access", propagate=False),
    "uvicorn's cleared": _clear,
    "logging.disable": lambda: logging.disable(logging.INFO),
}
"""How requests are silenced."""


def without_requests() -> Any:
    WITHOUT_REQUESTS[os.environ["HOW"]]()
    return app


def errors_by_mail() -> Any:
    """Handlers for errors alone."""
    handler = logging.StreamHandler()
    handler.setLevel("ERROR")
    for name in ("", "uvicorn.access"):
        logging.getLogger(name).addHandler(handler)
    return app


def errors_of_requests_by_mail() -> Any:
    logging.config.dictConfig(for_level("ERROR", "uvicorn.access"))
    return app


aiovoys_are_json = configured("aiovoy")


def aiovoys_are_json_at_any_level() -> Any:
    """With more to say than `--log-level` has, and a handler of signals that is not installed."""
    logging.config.dictConfig(dictionary("aiovoy", disable_existing_loggers=False))
    signal.signal(signal.SIGTERM, lambda *_: None)
    return app


@contextlib.asynccontextmanager
async def that_need_not_say_so(application: str, **options: Any) -> AsyncIterator[Server]:
    """A server that runs; it may be one whose log has nothing of that."""
    options = options if application == "app" else {"factory": True, **options}
    port = free_port()
    with launch(f"{__name__}:{application}", port=port, access_log=True, **options) as server:
        server.port = port
        await eventually(lambda: listens(port))
        yield server


@pytest.mark.parametrize(
    ("how", "level"),
    # The same level is another one's than the server's.
    [*((how, "info") for how in WITHOUT_REQUESTS), ("level of all of ours", "warning"), ("uvicorn's level", "warning")],
)
async def test_requests_that_nobody_wants(how: str, level: str) -> None:
    async with that_need_not_say_so("without_requests", env={"HOW": how}, log_level=level) as server:
        await be_asked(server)
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
    assert "to raise" in server.log
    assert "HTTP/1.1" not in server.log
    assert server.output == ""


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.access"])
async def test_requests_that_log_config_silences(name: str, serve: Serve, tmp_path: Path) -> None:
    """It may be applied before the server has set up its own."""
    own = {"handlers": ["json"], "level": "WARNING", "propagate": False}
    (tmp_path / "log.json").write_text(json.dumps(dictionary(loggers={name: own})))
    server = serve(f"{__name__}:app", access_log=True, log_config=tmp_path / "log.json")
    await be_asked(server)
    server.signal(signal.SIGTERM)
    assert await server.exit_code() == 0
    assert "HTTP/1.1" not in server.log
    assert server.output == ""


async def test_handler_of_uvicorn_has_requests(serve: Serve, tmp_path: Path) -> None:
    """As under uvicorn, where a configuration leaves its logger for requests as it is."""
    (tmp_path / "log.json").write_text(json.dumps(dictionary("uvicorn")))
    server = serve(f"{__name__}:app", access_log=True, log_config=tmp_path / "log.json")
    await server.get("/raises?q=1")
    await eventually(lambda: '"GET /raises?q=1 HTTP/1.1\\" 500' in server.log)
    assert server.output == ""


async def test_handlers_for_errors_keep_no_request_away(serve: Serve) -> None:
    server = serve(f"{__name__}:errors_by_mail", factory=True, access_log=True)
    await server.get("/health")
    await eventually(lambda: '"GET /health HTTP/1.1" 200' in server.output)
    server = serve(f"{__name__}:errors_of_requests_by_mail", factory=True, access_log=True)
    await server.get("/raises?q=1")
    await eventually(lambda: '"GET /raises?q=1 HTTP/1.1\\" 500' in server.log)


async def test_loggers_that_a_configuration_does_not_know_of_are_heard(serve: Serve) -> None:
    """Though `disable_existing_loggers` is the default."""
    server = serve(f"{__name__}:aiovoys_are_json", factory=True, access_log=True)
    await be_asked(server)
    await eventually(lambda: "refused with 400" in server.log)
    assert '"GET /raises?q=1 HTTP/1.1\\" 500' in server.log
    assert "exception in ASGI application: GET /raises" in server.log
    assert server.output == ""


@pytest.mark.parametrize("application", ["app", "root_is_json"])
async def test_requests_are_logged_at_any_level(application: str) -> None:
    """That there are such lines is said by `--access-log`."""
    async with that_need_not_say_so(application, log_level="error") as server:
        await server.get("/raises?q=1")
        await eventually(lambda: "GET /raises?q=1 HTTP/1.1" in (server.output if application == "app" else server.log))
        await server.get("/logs_as_the_server")
        await server.get("/mistaken")
        await eventually(lambda: "a %d" in server.log)
        assert "told as the server" not in server.log


async def test_level_of_an_application_s_own_is_heard() -> None:
    """What others of these loggers were given by `--log-level` is no level of somebody's."""
    async with that_need_not_say_so("aiovoys_are_json_at_any_level", log_level="error") as server:
        assert '"no handler installed for SIGTERM' in server.log
