"""The logs of a command: what is decided for people who look at them, and Python's `logging`."""

import logging
import os
import sys
from dataclasses import replace

from .. import logs
from .config import Config
from .errors import ConfigError


def for_people(config: Config) -> Config:
    """Decides for a command what is not said of its logs."""
    if config.access_log is None:
        config = replace(config, access_log=config.reload or os.isatty(1))
    if config.use_colors is None:
        config = replace(config, use_colors=logs.wants_colors(2))
    return config


def configure(config: Config) -> None:
    """Configures `logging` of this process, too. `ConfigError` if it cannot be."""
    if (source := config.logging_config) is None:
        return
    path = sys.path[:]
    sys.path.insert(0, os.fspath(config.app_dir or os.getcwd()))  # formatters may be the application's
    try:
        logs.configure(source)
    except logs.LoggingConfigError as error:
        raise ConfigError(str(error)) from None
    finally:
        sys.path[:] = path


def handlers_of_launcher(config: Config) -> list[logging.Handler]:
    """What is to have the launcher's lines. The files of `log_config` are the workers', and closed here."""
    found = logs.takers(logs.logger_of("aiovoy.error", logging.CRITICAL), logging.CRITICAL)
    if config.log_config is None:
        return found
    for handler in found:
        if isinstance(handler, logging.FileHandler):
            handler.close()
    return [handler for handler in found if not isinstance(handler, logging.FileHandler)]
