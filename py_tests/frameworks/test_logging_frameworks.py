"""Logs in JSON as frameworks' users have them: the server's lines are such, too, and so are their exceptions."""

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from fastapi import FastAPI, Request, Response

from py_tests.harness.deadline import eventually
from py_tests.harness.serving import Serve, Server, launch, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso"),
    structlog.processors.format_exc_info,
]

log = structlog.stdlib.get_logger("shop")


def json_formatter() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )


def fastapi_with_structlog() -> FastAPI:
    """As in structlog's documentation of the standard library's formatters."""
    structlog.configure(
        processors=[*SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(json_formatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    app = FastAPI()

    @app.middleware("http")
    async def bind(request: Request, call_next: Callable[[Request], Any]) -> Response:
        structlog.contextvars.bind_contextvars(path=request.url.path)
        response: Response = await call_next(request)
        return response

    @app.get("/hello")
    async def hello() -> str:
        log.info("greets", name="world")
        return "hello"

    @app.get("/raises")
    async def raises() -> None:
        raise LookupError("no such thing")

    _fail_if_told()
    return app


def django_with_dictionary() -> Any:
    """`LOGGING` as in Django's documentation; by default loggers that exist are disabled."""
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        LOGGING={
            "version": 1,
            "formatters": {"json": {"()": f"{__name__}.JsonFormatter"}},
            "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["console"], "level": "INFO"},
            # Django's own, which has a handler besides.
            "loggers": {"django": {"handlers": [], "level": "INFO", "propagate": True}},
        },
    )
    app = get_asgi_application()
    _fail_if_told()
    return app


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"event": record.getMessage(), "logger": record.name, "level": record.levelname.lower()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


async def hello(_: HttpRequest) -> HttpResponse:
    logging.getLogger("shop").info("greets")
    return HttpResponse("hello")


async def raises(_: HttpRequest) -> HttpResponse:
    raise LookupError("no such thing")


urlpatterns = [path("hello", hello), path("raises", raises)]


def _fail_if_told() -> None:
    if "FAIL" in os.environ:
        raise RuntimeError("told to fail")


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines()]


APPLICATIONS = pytest.mark.parametrize("application", [fastapi_with_structlog, django_with_dictionary])


@APPLICATIONS
async def test_every_line_is_json(application: Any, serve: Serve) -> None:
    server = serve(application, factory=True, access_log=True, workers=1)
    assert (await server.get("/hello")).status == 200
    assert (await server.get("/raises")).status == 500
    await eventually(lambda: server.log.count('"aiovoy.access"') == 2)
    server.signal(signal.SIGHUP)  # has its worker replaced
    await eventually(lambda: "has replaced pid" in server.log)
    server.signal(signal.SIGTERM)
    await server.exit_code()
    told = lines(server)
    by_logger: dict[str, list[dict[str, Any]]] = {}
    for line in told:
        by_logger.setdefault(line["logger"], []).append(line)
    assert by_logger["shop"][0]["event"] == "greets"
    assert [line["event"].partition(" - ")[2] for line in by_logger["aiovoy.access"]] == [
        '"GET /hello HTTP/1.1" 200',
        '"GET /raises HTTP/1.1" 500',
    ]
    raised = [line for line in told if "LookupError: no such thing" in line.get("exception", "")]
    assert raised
    assert all(
        "running on" not in line or json.loads(line)["logger"] == "aiovoy.error" for line in server.log.splitlines()
    )


@APPLICATIONS
async def test_start_that_fails_is_json(application: Any) -> None:
    with launch(application, factory=True, env={"FAIL": "1"}) as server:
        assert await server.exit_code() == 1
    (line,) = lines(server)
    assert "RuntimeError: told to fail" in line["event"]
    assert line["level"] == "error"


async def test_context_of_a_request(serve: Serve) -> None:
    """What structlog has bound in a request stands in its exception and in its line of the access log."""
    server = serve(fastapi_with_structlog, factory=True, access_log=True)
    assert (await server.get("/raises")).status == 500
    # A request is logged when its answer is on its way.
    await eventually(lambda: '"aiovoy.access"' in server.log)
    told = [line for line in lines(server) if line["logger"] == "aiovoy.access"]
    assert [line.get("path") for line in told] == ["/raises"]


async def test_configuration_of_a_file(serve: Serve, tmp_path: Path) -> None:
    """In YAML, with structlog's formatter, for an application that configures nothing."""
    (tmp_path / "log.yaml").write_text(
        "version: 1\n"
        "disable_existing_loggers: false\n"
        "formatters:\n"
        f"  json: {{(): {__name__}.json_formatter}}\n"
        "handlers: {console: {class: logging.StreamHandler, formatter: json}}\n"
        "root: {handlers: [console], level: INFO}\n"
    )
    server = serve("examples.hello:app", log_config=tmp_path / "log.yaml", access_log=True)
    assert (await server.get("/")).status == 200
    await eventually(lambda: '"aiovoy.access"' in server.log)
    assert {line["logger"] for line in lines(server)} == {"aiovoy.error", "aiovoy.access"}
