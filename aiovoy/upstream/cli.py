"""`aiovoy upstream`: the options of `aiovoy` that make sense without Envoy."""

import copy
import sys
from typing import Any

import click

from ..launcher import cli
from ..launcher.config import Config
from ..launcher.errors import AiovoyError, ConfigError

_TLS = "TLS is for the proxy in front, or for the mesh"

REFUSED = {
    "ssl_certfile": _TLS,
    "ssl_keyfile": _TLS,
    "ssl_keyfile_password": _TLS,
    "ssl_ca_certs": _TLS,
    "ssl_cert_reqs": _TLS,
    "ssl_port": _TLS,
    "http3": "HTTP/3 is for the proxy in front: proxies speak HTTP/1.1 or HTTP/2 to their upstreams",
    "proxy_protocol": "the proxy in front says who the client is by `x-forwarded-for`",
    "response_path": "there is no router here: the proxy in front has one",
    "router_max_requests": "the proxy in front counts requests; `--limit-concurrency` does here",
    "router_max_pending_requests": "the proxy in front lets requests wait",
    "router_timeout": "the proxy in front has time-outs for responses",
    "router_retries": "the proxy in front repeats requests",
    "envoy": "there is no Envoy in this server",
    "print_envoy_config": "there is no Envoy in this server",
    "print_module_path": "there is no Envoy in this server",
}
"""Options of `aiovoy` that are refused here, with the reason."""


FORMS = ("common", "combined", "json")
"""What the access log may look like."""


def _refuse(context: click.Context, option: click.Parameter, value: Any) -> None:
    name = option.name or ""
    if value is not False and (cli.given(context, name) or cli.from_file(context, name)):
        raise click.UsageError(f"{cli.written(context, option)} is not for `aiovoy upstream`: {REFUSED[name]}")


def _options() -> list[click.Parameter]:
    options = []
    for option in cli.main.params:
        if option.name in REFUSED:
            option = copy.copy(option)
            option.callback, option.expose_value, option.is_eager = _refuse, False, False
            option.hidden = True  # type: ignore[attr-defined]
        options.append(option)
    return options


SUPERVISED = (
    "workers",
    "reload",
    "limit_max_requests",
    "limit_max_rss",
    "worker_lifetime",
    "timeout_worker_healthcheck",
)


def _is_supervised(config: Config) -> bool:
    """Whether the server is to have workers, and not this process alone: by what is asked for, be it the default."""
    context = click.get_current_context()
    asked = (name for name in SUPERVISED if cli.given(context, name) or cli.from_file(context, name))
    return config.worker_count > 1 or any(getattr(config, name) is not False for name in asked)


def _serve(config: Config) -> int:
    # A process that serves has nothing in memory of one that watches over others.
    if _is_supervised(config):
        from ..launcher.run import serve as watch_over
        from .workers import UpstreamServer

        return watch_over(config, UpstreamServer)
    from .serve import serve

    return serve(config)


def _main(**settings: Any) -> None:
    """Serve the Python application MODULE:ATTRIBUTE behind an Envoy, or another proxy, that runs elsewhere.

    An ordinary process: HTTP/1.1 and HTTP/2 on one port, without Envoy. CTRL+C lets requests in flight finish; a second
    CTRL+C quits at once. The exit code is 0 after the first, 128 plus the signal's number after the second, 2 for a
    wrong option, 3 if the application's lifespan fails, and 1 if anything else does, unless the application has ended
    with a code of its own, by os._exit. With --workers, also of 1, with --reload, or with anything after which a worker
    is replaced, each worker is such a process below this one: SIGHUP replaces all, SIGTTIN adds one, SIGTTOU takes one
    away.

    An option can also be set by a variable, --log-level by AIOVOY_LOG_LEVEL, and in a file (--config).
    """
    form = settings["access_log_format"] or FORMS[0]
    if form not in FORMS:
        raise cli.usage_error(ConfigError(f"`access_log_format` is {', '.join(FORMS)} here, got `{form}`"))
    try:
        config = Config(**cli.complete(settings))
        sys.exit(_serve(config))
    except ConfigError as error:
        raise cli.usage_error(error) from None
    except AiovoyError as error:
        raise click.ClickException(str(error)) from None


main = cli.Command("upstream", params=_options(), callback=_main, help=_main.__doc__, context_settings=cli.CONTEXT)
main.refused = REFUSED
