"""The command line: options → `Config` → `serve`.

What only some commands need is imported by these: `aiovoy upstream` has the options, too, and serves in its process.
"""

import contextlib
import errno
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from .. import __version__
from .addresses import Address
from .config import CERT_REQS, LIFESPANS, LOG_LEVELS, LOOPS, RANGES, REPLACE_FIRST, RESPONSE_PATHS, WS, Config
from .descriptors import write_all
from .environ import bridge_path
from .errors import AiovoyError, ConfigError
from .inherited import passed_by_systemd
from .port import reason, resolve


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from .binary import envoy_version

        python = ".".join(map(str, sys.version_info[:3]))
        click.echo(f"aiovoy {__version__}, CPython {python}, Envoy {envoy_version()}")
        context.exit()


def _print_module_path(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(bridge_path())
        context.exit()


def _octal(_: click.Context, __: click.Parameter, text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise click.BadParameter(f"expected an octal number, got `{text}`") from None


def _number_or_name(_: click.Context, __: click.Parameter, text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _read_file(context: click.Context, _: click.Parameter, path: str | None) -> None:
    """Takes the settings in a file as defaults: the one at `path`, or one in the working directory, if there is any."""
    if context.resilient_parsing or (found := path or _found_file()) is None:
        return
    from . import configfile  # only those who have one pay for it

    options = {one.name: one for one in context.command.params if one.name and getattr(one, "allow_from_autoenv", True)}
    try:
        context.obj = configfile.read(found, options, getattr(context.command, "refused", {}))
    except ConfigError as error:
        raise click.UsageError(str(error), context) from None
    if context.obj is not None:
        context.default_map = {name: value for name, value in context.obj.settings.items() if name != "mount"}
    elif path is not None:
        raise click.UsageError(f"`{path}` has no table `[tool.aiovoy]`", context)


def _found_file() -> str | None:
    if os.path.isfile("aiovoy.toml"):
        return "aiovoy.toml"
    try:
        with open("pyproject.toml", "rb") as file:
            return "pyproject.toml" if b"aiovoy" in file.read() else None  # whatever else is wrong with it
    except OSError:
        return None  # it is missing, or somebody else's


def _mounts(context: click.Context, _: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    mounts: dict[str, Any] = {}
    if not texts and context.obj is not None:
        mounts = context.obj.settings.get("mount", mounts)
    for text in texts:
        path, equals, app = text.partition("=")
        if not equals:
            raise click.BadParameter(f"expected PREFIX=MODULE:ATTRIBUTE, got `{text}`")
        if path in mounts:
            raise click.BadParameter(f"two applications below `{path}`")
        mounts[path] = app
    return mounts


_F = TypeVar("_F", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False)

_choice = functools.partial(click.Choice, case_sensitive=False)


class _Workers(click.IntRange):
    """A number, or `auto`."""

    name = "number, nor `auto`"

    def __init__(self) -> None:
        least, most = RANGES["workers"]
        super().__init__(int(least), int(most))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return "auto" if str(value).lower() == "auto" else super().convert(value, param, ctx)


def _number(name: str, kind: Any, **more: Any) -> Callable[[_F], _F]:
    """An option for a number; its range and default are those of `Config`."""
    field = name.removeprefix("--").replace("-", "_")
    default = getattr(Config, field)
    least, most = RANGES[field]
    more = {"default": default, "show_default": True, **more} if default is not None else more
    # A bound that hardly anybody comes upon is for `Config` to tell: it only makes the help longer.
    above_zero = 0 < least < 1
    bounds = kind(0 if above_zero else least, most if most < 2**16 else None, min_open=above_zero)
    return click.option(name, type=bounds, **more)


_count = functools.partial(_number, kind=click.IntRange)
_port = functools.partial(_count, metavar="PORT")
_seconds = functools.partial(_number, kind=click.FloatRange, metavar="SECONDS")

# Options that print something instead of serving; an environment variable for that would be a trap.
_print_option = functools.partial(click.option, is_flag=True, allow_from_autoenv=False)
_eager_print_option = functools.partial(_print_option, is_eager=True, expose_value=False)


SECTIONS = {
    "mount": "Application",
    "workers": "Workers",
    "host": "Sockets",
    "ssl_certfile": "TLS",
    "proxy_headers": "Proxies in front",
    "limit_request_header_bytes": "Limits",
    "response_path": "Router",
    "ws": "WebSocket",
    "log_level": "Logs",
    "config": "Other",
}
"""The sections of the help, each with its first option."""


class Command(click.Command):
    """One with a help in sections, and whose exit code is right even where nothing can be written: on a full disk, or
    when the reader has gone."""

    refused: Mapping[str, str] = {}
    """Settings that are not for this command, with the reason."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        title = ""
        for option in self.get_params(ctx):
            title = SECTIONS.get(option.name or "", title)
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)) is not None:
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        code: Any = 1
        try:
            try:
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            except click.ClickException as error:
                code = error.exit_code
                error.show()
            except click.Abort:
                click.echo("Aborted!", err=True)
        except OSError as error:
            with contextlib.suppress(OSError):
                if not isinstance(error, BrokenPipeError):
                    what = f"`{error.filename}`: " if error.filename else ""
                    what = "cannot write: " if error.errno in _OF_WRITING else what
                    write_all(2, f"error: {what}{reason(error)}\n".encode(errors="backslashreplace"))
            _forget_output()
        sys.exit(code)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from . import elsewhere

            if told := elsewhere.told(error.option_name, self.refused):
                raise click.UsageError(told, ctx) from None
            raise
        except click.BadParameter as error:
            name = (error.param and error.param.name) or ""
            if error.param is not None and (from_file(ctx, name) or from_variable(ctx, name)):
                error.param_hint = written(ctx, error.param)
            if from_variable(ctx, name):
                from . import elsewhere

                variable = elsewhere.variable_of(name)
                message = f"{error.message}{elsewhere.of_kubernetes(variable, os.environ.get(variable, ''))}"
                raise click.BadParameter(message, ctx, error.param, error.param_hint) from None
            raise
        settings = [one.name or "" for one in self.params]
        known = {f"AIOVOY_{setting}".upper() for setting in settings}
        strange = [name for name in os.environ if name.startswith(_SERVERS) and name not in known]
        if strange and not ctx.resilient_parsing:
            from . import elsewhere

            for warning in elsewhere.unread(strange, settings, self.refused):
                with contextlib.suppress(OSError):
                    write_all(2, f"warning: {warning}\n".encode())
        return rest


def given(context: click.Context, name: str | None) -> bool:
    """Whether the setting `name` has its value from the command line, or from a variable."""
    source = context.get_parameter_source(name or "")
    return source is click.core.ParameterSource.COMMANDLINE or from_variable(context, name)


def from_variable(context: click.Context, name: str | None) -> bool:
    """Whether the setting `name` has its value from a variable."""
    return context.get_parameter_source(name or "") is click.core.ParameterSource.ENVIRONMENT


def from_file(context: click.Context, name: str | None) -> bool:
    """Whether the setting `name` has its value from a file."""
    return context.get_parameter_source(name or "") is click.core.ParameterSource.DEFAULT_MAP


def written(context: click.Context, option: click.Parameter) -> str:
    """What has set `option`: a file, a variable, or else itself."""
    name = option.name or ""
    if from_file(context, name):
        return f"`{name}` in `{context.obj.path}`"
    if from_variable(context, name):
        from . import elsewhere

        return f"`{elsewhere.variable_of(name)}`"
    return f"`{option.opts[0]}`"


_SERVERS = ("AIOVOY_", "UVICORN_", "GRANIAN_", "GUNICORN_CMD_ARGS")
"""How variables begin that are meant for a server; hypercorn reads none."""


_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What the system says where nothing can be written."""


def _forget_output() -> None:
    """Sends nowhere what is still buffered: that it cannot be written would change the exit code."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


CONTEXT = {"auto_envvar_prefix": "AIOVOY", "help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("app", metavar="MODULE:ATTRIBUTE", envvar="AIOVOY_APP", default="")
@click.option(
    "--mount",
    metavar="PREFIX=MODULE:ATTRIBUTE",
    multiple=True,
    callback=_mounts,
    help="Another application, for the paths below PREFIX. May be repeated; the longest prefix wins.",
)
@click.option(
    "--app-dir",
    type=click.Path(exists=True),
    show_default="the working directory",
    help="Folder or zip archive to import the application from.",
)
@click.option("--factory/--no-factory", help="Call the attribute, without arguments, to make the application.")
@click.option("--root-path", default=Config.root_path, help="Path that a proxy in front strips off.")
@click.option("--loop", type=_choice(LOOPS), show_default="uvloop", help="Event loop.")
@click.option("--lifespan", type=_choice(LIFESPANS), show_default="auto", help="Whether to send lifespan events.")
@click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False),
    help="File of environment variables for the application; those already set win.",
)
@click.option(
    "--workers",
    type=_Workers(),
    metavar="NUMBER|auto",
    show_default="$WEB_CONCURRENCY or 1",
    help="Processes that serve; auto: as many as there are processors for them.",
)
@_count("--limit-max-requests", metavar="NUMBER", help="Replace a worker after so many requests, give or take a tenth.")
@_count("--limit-max-rss", metavar="BYTES", help="Replace a worker that has more resident memory.")
@_seconds("--worker-lifetime", help="Replace a worker after this time, give or take a tenth.")
@click.option(
    "--replace-first",
    type=_choice(REPLACE_FIRST),
    default=Config.replace_first,
    show_default=True,
    help="Whether the new worker comes first when one is replaced, or the old one goes first.",
)
@_seconds("--timeout-worker-healthcheck", help="Kill a worker that has not responded for so long; 0: never.")
@click.option("--reload/--no-reload", help="Replace the workers when files change, for development.")
@click.option(
    "--reload-dir",
    type=click.Path(exists=True, file_okay=False),
    multiple=True,
    show_default="that of --app-dir",
    help="Folder with the files. May be repeated.",
)
@click.option(
    "--reload-include", metavar="PATTERN", multiple=True, help="Files to watch besides *.py. May be repeated."
)
@click.option(
    "--reload-exclude", metavar="PATTERN", multiple=True, help="Files or folders not to watch. May be repeated."
)
@click.option("--host", default=Config.host, show_default=True, help="Address or host name to listen on.")
@_port("--port", help="Port to listen on; 0 takes a free one.")
@click.option(
    "--uds", type=click.Path(), metavar="PATH", help="Unix domain socket to listen on, instead of host and port."
)
@click.option(
    "--fd",
    callback=_number_or_name,
    metavar="NUMBER|NAME",
    help="Inherited socket to listen on, instead: its number, or the name that systemd has given it.",
)
@click.option(
    "--bind",
    multiple=True,
    metavar="ADDRESS",
    help="Where to listen, instead: HOST:PORT, unix:PATH, or fd://NUMBER or fd://NAME. May be repeated.",
)
@click.option(
    "--uds-permissions",
    callback=_octal,
    metavar="MODE",
    default=f"{Config.uds_permissions:o}",
    show_default=True,
    help="Who may connect to it: the mode of the file, in octal.",
)
@click.option("--proxy-protocol/--no-proxy-protocol", help="Connections begin with a header of the PROXY protocol.")
@click.option(
    "--ssl-certfile",
    type=_FILE,
    multiple=True,
    help="Certificate and its chain, in PEM; the port speaks TLS then. May be repeated, for several names.",
)
@click.option(
    "--ssl-keyfile",
    type=_FILE,
    multiple=True,
    show_default="in the certificate's file",
    help="Key of the certificate; repeated in the same order.",
)
@click.option("--ssl-keyfile-password", metavar="PASSWORD", help="Password of the keys.")
@click.option("--ssl-ca-certs", type=_FILE, help="Authorities that sign client certificates.")
@click.option(
    "--ssl-cert-reqs",
    type=_choice([*CERT_REQS, *map(str, range(len(CERT_REQS)))]),
    callback=_number_or_name,
    metavar="|".join(CERT_REQS),
    default=Config.ssl_cert_reqs,
    show_default=True,
    help="Whether clients are asked for a certificate.",
)
@_port("--ssl-port", help="Port that speaks TLS, where the other port is to stay without; 0 takes a free one.")
@click.option("--http3/--no-http3", help="HTTP/3, too, on the UDP port of the same number as the TLS port.")
@click.option(
    "--proxy-headers/--no-proxy-headers",
    default=Config.proxy_headers,
    show_default=True,
    help="Take client and scheme from the X-Forwarded-For and X-Forwarded-Proto of trusted proxies.",
)
@click.option(
    "--forwarded-allow-ips",
    metavar="LIST",
    show_default="$FORWARDED_ALLOW_IPS or 127.0.0.1,::1",
    help="Trusted proxies: addresses, networks, other names of peers, or *; with commas.",
)
@_count("--limit-request-header-bytes", metavar="BYTES", help="Longest head of a request; else 431.")
@_count("--limit-request-header-count", metavar="NUMBER", help="Most fields of a request; else 431.")
@_count("--limit-request-body", metavar="BYTES", help="Longest body of a request; else 413.")
@_count("--limit-concurrency", metavar="NUMBER", help="Most requests in the application; else 503.")
@_count(
    "--limit-connections",
    metavar="NUMBER",
    show_default="3/4 of the file descriptors beyond 64",
    help="Most connections; more are closed at once.",
)
@_count(
    "--http2-max-concurrent-streams",
    metavar="NUMBER",
    help="Most requests at a time on one connection of HTTP/2 or HTTP/3.",
)
@_seconds("--timeout-request-headers", help="How long the head of a request may take; else 408.")
@_seconds(
    "--timeout-idle",
    help="How long a client may keep the application waiting for the body (408), or for room for the response.",
)
@_seconds("--timeout-keep-alive", help="How long an idle connection stays open.")
@_seconds(
    "--timeout-graceful-shutdown",
    show_default="30",
    help="How long requests in flight may take when the server stops.",
)
@click.option(
    "--response-path",
    type=_choice(RESPONSE_PATHS),
    default=Config.response_path,
    show_default=True,
    help="Have requests answered in Envoy's filter chain, or behind its router.",
)
@_count("--router-max-requests", metavar="NUMBER", help="Most requests in the application; else 503, or they wait.")
@_count("--router-max-pending-requests", metavar="NUMBER", help="Most requests that wait for it; else 503.")
@_seconds("--router-timeout", help="How long a response may take, with the wait for a place; else 504.")
@_count("--router-retries", metavar="NUMBER", help="How often to repeat what is answered with 503, if it may be.")
@click.option(
    "--ws",
    type=_choice(WS),
    default=Config.ws,
    show_default=True,
    help="Whether to serve WebSockets; without, a handshake is a request like others.",
)
@_count("--ws-max-size", metavar="BYTES", show_default="16777216", help="Longest message from a client.")
@_count("--ws-max-queue", metavar="NUMBER", show_default="32", help="Most messages that wait for the application.")
@_seconds("--ws-ping-interval", show_default="20", help="Time between pings; 0 for none.")
@_seconds("--ws-ping-timeout", show_default="20", help="How long the answer to a ping may take; 0 for ever.")
@click.option(
    "--ws-per-message-deflate",
    type=bool,
    show_default="true",
    help="Compress messages if the client can.",
)
@click.option(
    "--log-level",
    type=_choice(LOG_LEVELS),
    default=Config.log_level,
    show_default=True,
    help="The least severe messages to log, on standard error.",
)
@click.option(
    "--log-config",
    type=_FILE,
    help="Configure Python's logging by this file: JSON, YAML (*.json, *.yaml), or as fileConfig has it.",
)
@click.option(
    "--use-colors/--no-use-colors",
    default=None,
    show_default="on a terminal",
    help="Have colours in the logs.",
)
@click.option(
    "--access-log/--no-access-log",
    default=None,
    show_default="on a terminal, and with --reload",
    help="Log each request on standard output, or where the application's logging has it.",
)
@click.option(
    "--access-log-format",
    metavar="FORMAT",
    show_default="common",
    help="How: common, combined, json, or a format string of Envoy; on standard output then, always.",
)
@click.option("--request-id/--no-request-id", help="Give requests without an X-Request-ID one.")
@click.option(
    "--config",
    type=_FILE,
    envvar="AIOVOY_CONFIG",
    allow_from_autoenv=False,
    is_eager=True,
    expose_value=False,
    callback=_read_file,
    show_default="aiovoy.toml, or [tool.aiovoy] in pyproject.toml, in the working directory",
    help="File of settings, in TOML: the options by their names. Options and variables win.",
)
@click.option(
    "--envoy",
    type=click.Path(),
    metavar="PATH",
    help="Another Envoy binary than the one that came with aiovoy.",
)
@_print_option("--print-envoy-config", help="Print the Envoy configuration and exit.")
@_eager_print_option(
    "--print-module-path",
    callback=_print_module_path,
    help="Print the path of the dynamic module, for Envoy configurations of your own, and exit.",
)
@_eager_print_option(
    "--version",
    callback=_print_version,
    help="Print the versions of aiovoy, Python and Envoy and exit.",
)
def main(print_envoy_config: bool, **settings: Any) -> None:
    """Serve the Python application MODULE:ATTRIBUTE from inside Envoy.

    CTRL+C lets requests in flight finish; a second CTRL+C quits at once. The exit code is 0 after the first, 128 plus
    the signal's number after the second, 2 for a wrong option, 3 if the application's lifespan fails, and 1 if anything
    else does, unless Envoy, or the application by os._exit, has ended with a code of its own. SIGHUP replaces all
    workers, SIGTTIN adds one, SIGTTOU takes one away.

    An option can also be set by a variable, --log-level by AIOVOY_LOG_LEVEL, and in a file (--config).
    """
    try:
        config = Config(**complete(settings))
        if print_envoy_config:
            click.echo(_envoy_config(config), nl=False)
        else:
            from .run import serve

            sys.exit(serve(config))
    except ConfigError as error:
        raise usage_error(error) from None
    except AiovoyError as error:
        raise click.ClickException(str(error)) from None


def usage_error(error: ConfigError) -> click.UsageError:
    """Tells of `error` on the command line: with the file that it comes from, else by options and variables."""
    context = click.get_current_context()
    hint = ""
    if context.obj is not None:
        names = [name for name in context.obj.settings if name == "mount" or from_file(context, name)]
        hint = context.obj.hint(str(error), names)
    # Where a file has a part in it, only what has been written elsewhere.
    options = {
        one.name: written(context, one)
        for one in context.command.params
        if isinstance(one, click.Option) and (not hint or given(context, one.name))
    }
    # What stands last after `got` is a value, even if it is called as a setting is.
    words = re.compile(r"got `\w+`$|`(\w+)`", re.MULTILINE)
    return click.UsageError(words.sub(lambda word: options.get(word[1], word[0]), str(error)) + hint)


def complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Adds to options what is not said by them. `click.UsageError` if there is no application."""
    if not settings["app"] and not settings["mount"]:
        raise click.UsageError("Missing argument 'MODULE:ATTRIBUTE'.")
    context = click.get_current_context()
    places = [name for name in ("uds", "fd", "bind") if from_file(context, name)]
    if places and any(given(context, name) for name in ("host", "port", "uds", "fd", "bind")):
        settings = {**settings, **{name: getattr(Config, name) for name in places}}
    if all(not settings[name] and settings[name] != 0 for name in ("uds", "fd", "bind")):
        settings = {**settings, "bind": [f"fd://{number}" for number in passed_by_systemd()]}
    return settings


def _envoy_config(config: Config) -> str:
    """The bootstrap for an Envoy started by hand; its admin socket is in the working directory then."""
    from .bootstrap import bootstrap
    from .environ import read_env_file

    read_env_file(config.env_file)  # which is checked, as all is
    admin = "./aiovoy-admin.sock"
    return bootstrap(config, addresses=list(_addresses(config)), admin=admin, python=sys.executable)


def _addresses(config: Config) -> Iterator[Address]:
    """Where that Envoy listens."""
    tls = bool(config.certificates) and config.ssl_port is None
    for place in config.places:
        if place.descriptor is not None:
            raise ConfigError("an Envoy that is started by hand inherits no sockets: no configuration for `fd`")
        if place.path is not None:
            yield Address(path=os.path.abspath(place.path), tls=tls)
        else:
            yield Address(resolve(place.host), place.port, tls=tls)
    if config.ssl_port is not None:
        yield Address(resolve(config.host), config.ssl_port, tls=True)
