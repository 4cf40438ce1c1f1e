"""The command line: options → `Config` → `run`."""

import functools
import platform
import sys
from typing import Any

import click

from . import __version__
from .binary import envoy_version
from .bootstrap import bootstrap
from .config import LIFESPANS, LOG_LEVELS, LOOPS, Config
from .environ import bridge_path
from .errors import AiovoyError, ConfigError
from .port import resolve
from .run import run


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        click.echo(f"aiovoy {__version__}, {python}, Envoy {envoy_version()}")
        context.exit()


def _print_module_path(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(bridge_path())
        context.exit()


_option = functools.partial(click.option, show_envvar=True)

# Options that print something instead of serving; an environment variable for that would be a trap.
_print_option = functools.partial(click.option, is_flag=True, allow_from_autoenv=False)
_eager_print_option = functools.partial(_print_option, is_eager=True, expose_value=False)


@click.command(context_settings={"auto_envvar_prefix": "AIOVOY"})
@click.argument("app", metavar="MODULE:ATTRIBUTE", envvar="AIOVOY_APP")
@_option("--host", default=Config.host, show_default=True, help="Address or host name to listen on.")
@_option(
    "--port",
    type=click.IntRange(0, 65535),
    default=Config.port,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@_option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False),
    show_default="the working directory",
    help="Folder to import the application from.",
)
@_option("--factory", is_flag=True, help="Call the attribute, without arguments, to make the application.")
@_option("--root-path", default=Config.root_path, help="Path that a proxy in front strips off.")
@_option("--loop", type=click.Choice(LOOPS), show_default="uvloop", help="Event loop.")
@_option("--lifespan", type=click.Choice(LIFESPANS), show_default="auto", help="Whether to send lifespan events.")
@_option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default=Config.log_level,
    show_default=True,
    help="The least severe messages to log, on standard error.",
)
@_option(
    "--access-log/--no-access-log",
    default=Config.access_log,
    show_default=True,
    help="Log each request on standard output.",
)
@_option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False),
    help="File of environment variables for the application; those already set win.",
)
@_option(
    "--timeout-graceful-shutdown",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    show_default="30",
    help="How long requests in flight may take when the server stops.",
)
@_option(
    "--timeout-keep-alive",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=Config.timeout_keep_alive,
    show_default=True,
    help="How long an idle connection stays open.",
)
@_option(
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
    the signal's number after the second, and Envoy's own if it fails.
    """
    try:
        config = Config(**settings)
        if print_envoy_config:
            click.echo(_envoy_config(config), nl=False)
        else:
            sys.exit(run(config))
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except AiovoyError as error:
        raise click.ClickException(str(error)) from None


def _envoy_config(config: Config) -> str:
    """The bootstrap for an Envoy started by hand; its admin socket is in the working directory then."""
    admin = "./aiovoy-admin.sock"
    return bootstrap(config, host=resolve(config.host), port=config.port, admin=admin, python=sys.executable)
