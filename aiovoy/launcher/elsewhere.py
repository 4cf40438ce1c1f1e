"""What uvicorn, gunicorn and granian call otherwise, or have and this server has not."""

import difflib
import re
from collections.abc import Iterable, Iterator

RENAMED = {
    "-b": "--bind",
    "-w": "--workers",
    "-c": "--config, a file in TOML",
    "--max-requests": "--limit-max-requests",
    "--timeout": "--timeout-worker-healthcheck",
    "-t": "--timeout-worker-healthcheck",
    "--workers-kill-timeout": "--timeout-graceful-shutdown",
    "--graceful-timeout": "--timeout-graceful-shutdown",
    "--keep-alive": "--timeout-keep-alive",
    "--workers-lifetime": "--worker-lifetime",
    "--workers-max-rss": "--limit-max-rss",
    "--chdir": "--app-dir",
    "--pythonpath": "--app-dir",
    "--working-dir": "--app-dir",
    "--url-path-prefix": "--root-path",
    "--env-files": "--env-file",
    "--limit-request-fields": "--limit-request-header-count",
    "--limit-request-field_size": "--limit-request-header-bytes",
    "--limit-request-line": "--limit-request-header-bytes",
    "--h11-max-incomplete-event-size": "--limit-request-header-bytes",
    "--http1-buffer-size": "--limit-request-header-bytes",
    "--http1-header-read-timeout": "--timeout-request-headers, in seconds",
    "--http2-max-headers-size": "--limit-request-header-bytes",
    "--http2-max-header-list-size": "--limit-request-header-bytes",
    "--websocket-max-message-size": "--ws-max-size",
    "--no-ws": "--ws none",
    "--backpressure": "--limit-concurrency",
    "--worker-connections": "--limit-connections",
    "--access-logfile": "--access-log, on standard output",
    "--access-logformat": "--access-log-format",
    "--log-config-json": "--log-config",
    "--access-log-fmt": "--access-log-format",
    "--asgi-lifespan": "--lifespan",
    "--asgi-loop": "--loop",
    "--certfile": "--ssl-certfile",
    "--ssl-certificate": "--ssl-certfile",
    "--keyfile": "--ssl-keyfile",
    "--ca-certs": "--ssl-ca-certs",
    "--ssl-ca": "--ssl-ca-certs",
    "--cert-reqs": "--ssl-cert-reqs",
    "--ssl-client-verify": "--ssl-cert-reqs required",
    "--proxy-allow-from": "--forwarded-allow-ips",
    "--reload-extra-file": "--reload-include",
    "--reload-paths": "--reload-dir",
    "--reload-ignore-dirs": "--reload-exclude",
    "--reload-ignore-paths": "--reload-exclude",
    "--reload-ignore-patterns": "--reload-exclude",
}
"""Their options, by what is to be written here."""

_ASGI = "applications are ASGI ones, each on an event loop"
_VERSIONS = "all versions of HTTP are on one port"
_HEADERS = "`date` is added and `server` is not; other headers are the application's, or a middleware's"
_WINDOWS = "windows and frames of HTTP/2 are not to be set, see docs/settings.md"
_OFF = "it is off as it is"
_TLS = "the versions and ciphers of TLS are Envoy's"
_LOG = "the log is on standard error, the access log on standard output; there are --log-level and --log-config"
_SERVICE = "it is for what starts the server, such as systemd or a container"
_JITTER = "--limit-max-requests and --worker-lifetime vary by a tenth as they are"
_STATS = "Envoy counts, see docs/envoy.md"
_FILES = "files are the application's, or a proxy's in front"

ABSENT = {
    **dict.fromkeys(["-k", "--worker-class", "--interface", "--threads", "--blocking-threads", "--task-impl"], _ASGI),
    **dict.fromkeys(["--runtime-mode", "--runtime-threads", "--runtime-blocking-threads"], _ASGI),
    **dict.fromkeys(["--http", "--http2", "--http-protocols", "--http-parser", "--protocol"], _VERSIONS),
    **dict.fromkeys(["--http2-initial-window-size", "--http2-initial-stream-window-size"], _WINDOWS),
    **dict.fromkeys(["--http2-initial-connection-window-size", "--http2-max-frame-size"], _WINDOWS),
    **dict.fromkeys(["--no-factory", "--no-reload", "--no-metrics", "--no-ssl-client-verify"], _OFF),
    **dict.fromkeys(["--header", "--server-header", "--no-server-header"], _HEADERS),
    **dict.fromkeys(["--date-header", "--no-date-header"], _HEADERS),
    **dict.fromkeys(["--ssl-version", "--ssl-ciphers", "--ciphers", "--ssl-protocol-min", "--ssl-crl"], _TLS),
    **dict.fromkeys(["--log-file", "--error-logfile"], _LOG),
    **dict.fromkeys(["--log", "--no-log", "--capture-output", "--logger-class", "--log-syslog"], _LOG),
    **dict.fromkeys(["-D", "--daemon", "-p", "--pid", "--pid-file", "-u", "--user", "-g", "--group"], _SERVICE),
    **dict.fromkeys(["-m", "--umask", "-n", "--name", "--process-name"], _SERVICE),
    **dict.fromkeys(["--limit-max-requests-jitter", "--max-requests-jitter"], _JITTER),
    **dict.fromkeys(["--statsd-host", "--metrics", "--metrics-port", "--metrics-address"], _STATS),
    **dict.fromkeys(["--static-path-mount", "--static-path-route"], _FILES),
    **dict.fromkeys(["-e", "--env"], "--env-file names a file of variables"),
    "--worker-tmp-dir": "files of the server are in $TMPDIR",
    "--preload": "each worker imports the application itself",
    "--backlog": "it is 4096, or as much as the kernel has in `net.core.somaxconn`",
    "--reuse-port": "all workers are on one port as they are",
    "--respawn-failed-workers": "workers that die are replaced as they are",
    **dict.fromkeys(["--reload-delay", "--reload-tick", "--reload-engine"], "how files are watched is not to be set"),
    **dict.fromkeys(["--check-config", "--print-config"], "--print-envoy-config checks the options, too"),
}
"""Their options that are none here, with the reason or what there is instead."""


_BY_VARIABLE = {
    "HEADERS": "--header",
    "LOG_ACCESS_ENABLED": "--access-log",
    "LOG_ACCESS_FMT": "--access-log-fmt",
    "LOG_ENABLED": "--log",
    "METRICS_ENABLED": "--metrics",
    "RELOAD_DIRS": "--reload-dir",
    "RELOAD_EXCLUDES": "--reload-exclude",
    "RELOAD_INCLUDES": "--reload-include",
    "WEBSOCKETS": "--ws",
}
"""Options of theirs whose variables have other names."""


def told(option: str) -> str | None:
    """What to say to who writes `option`, if it is one of theirs."""
    if option in RENAMED:
        name, comma, more = RENAMED[option].partition(",")
        return f"`{option}` is `{name}` here{comma}{more}"
    return f"there is no `{option}` here: {ABSENT[option]}" if option in ABSENT else None


def unknown(key: str, settings: Iterable[str]) -> str:
    """What to say to who has `key` in a file, which is none of `settings`."""
    if there := told(f"--{key.replace('_', '-')}"):
        return there
    nearest = difflib.get_close_matches(key, settings, 1)
    return f"no setting is called `{key}`" + (f"; did you mean `{nearest[0]}`?" if nearest else "")


def unread(variables: Iterable[str], settings: Iterable[str]) -> Iterator[str]:
    """What to say of `variables` that are not read: almost the name of a setting, or meant for another server."""
    names = [variable_of(name) for name in settings]
    for variable in variables:
        server, _, name = variable.partition("_")
        option = _BY_VARIABLE.get(name) or f"--{name}".lower().replace("_", "-")
        if server == "GUNICORN":
            yield f"`{variable}` is not read: write options on the command line"
        elif (ours := variable_of(option[2:])) in names:
            yield f"`{variable}` is not read: it is `{ours}` here"
        elif option in RENAMED:
            ours, comma, more = RENAMED[option].partition(",")
            name, *value = ours.removeprefix("--").split()
            yield f"`{variable}` is not read: it is `{'='.join([variable_of(name), *value])}` here{comma}{more}"
        elif server == "AIOVOY":
            for nearest in difflib.get_close_matches(variable, names, 1, _LIKENESS):
                yield f"no setting is called `{variable}`; did you mean `{nearest}`?"
        elif option in ABSENT:
            yield f"`{variable}` is not read: {ABSENT[option]}"


def variable_of(setting: str) -> str:
    """The variable of a setting, or of an option without its first dashes."""
    return f"AIOVOY_{setting}".replace("-", "_").upper()


def of_kubernetes(variable: str, value: str) -> str:
    """A hint, if `variable` looks as Kubernetes sets it for a Service."""
    if not re.match("(tcp|udp|sctp)://", value):
        return ""
    service = variable.removesuffix("_PORT").replace("_", "-").lower()
    return (
        f"\nhint: Kubernetes sets it for a Service called `{service}`: "
        "give that another name, or the pod `enableServiceLinks: false`"
    )


_LIKENESS = 0.9
"""Kubernetes has variables of services, such as `AIOVOY_PORT_80_TCP`, which are less like those of settings."""
