"""What uvicorn, gunicorn, granian, hypercorn and pyvoy call otherwise, or have and this server has not."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping

RENAMED = {
    "-b": "--bind",
    "-w": "--workers",
    "-c": "--config, a file in TOML",
    "-v": "--version",
    "--address": "--host",
    "--insecure-bind": "--port, beside `--ssl-port` if there is one",
    "--quic-bind": "--http3, on the UDP port of the TLS port's number",
    "--max-requests": "--limit-max-requests",
    "--timeout": "--timeout-worker-healthcheck",
    "-t": "--timeout-worker-healthcheck",
    "--workers-kill-timeout": "--timeout-graceful-shutdown",
    "--graceful-timeout": "--timeout-graceful-shutdown",
    "--keep-alive": "--timeout-keep-alive",
    "--read-timeout": "--timeout-idle",
    "--workers-lifetime": "--worker-lifetime",
    "--workers-max-rss": "--limit-max-rss",
    "--chdir": "--app-dir",
    "--pythonpath": "--app-dir",
    "--working-dir": "--app-dir",
    "--additional-mount": "--mount, as PREFIX=MODULE:ATTRIBUTE",
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
    "--websockets-max-message-size": "--ws-max-size",
    "--websocket-ping-interval": "--ws-ping-interval",
    "--websockets-compression": "--ws-per-message-deflate true",
    "--no-websockets-compression": "--ws-per-message-deflate false",
    "--websockets": "--ws auto, the default",
    "--no-ws": "--ws none",
    "--backpressure": "--limit-concurrency",
    "--worker-connections": "--limit-connections",
    "--access-logfile": "--access-log, on standard output",
    "--access-logformat": "--access-log-format",
    "--log-config-json": "--log-config",
    "--debug": "--log-level debug",
    "--access-log-fmt": "--access-log-format",
    "--asgi-lifespan": "--lifespan",
    "--no-lifespan": "--lifespan off",
    "--asgi-loop": "--loop",
    "--certfile": "--ssl-certfile",
    "--ssl-certificate": "--ssl-certfile",
    "--tls-cert": "--ssl-certfile",
    "--tls-port": "--ssl-port",
    "--keyfile": "--ssl-keyfile",
    "--tls-key": "--ssl-keyfile",
    "--keyfile-password": "--ssl-keyfile-password",
    "--ca-certs": "--ssl-ca-certs",
    "--ssl-ca": "--ssl-ca-certs",
    "--tls-ca-cert": "--ssl-ca-certs",
    "--cert-reqs": "--ssl-cert-reqs",
    "--verify-mode": "--ssl-cert-reqs",
    "--ssl-client-verify": "--ssl-cert-reqs required",
    "--no-ssl-client-verify": "--ssl-cert-reqs none",
    "--tls-require-client-certificate": "--ssl-cert-reqs required",
    "--no-tls-require-client-certificate": "--ssl-cert-reqs optional",
    "--proxy-allow-from": "--forwarded-allow-ips",
    "--reload-extra-file": "--reload-include",
    "--reload-includes": "--reload-include",
    "--reload-paths": "--reload-dir",
    "--reload-dirs": "--reload-dir",
    "--reload-excludes": "--reload-exclude",
    "--reload-ignore-dirs": "--reload-exclude",
    "--reload-ignore-paths": "--reload-exclude",
    "--reload-ignore-patterns": "--reload-exclude",
}
"""Their options, by what is to be written here."""

_ABSENT = {
    "applications are ASGI ones, each on an event loop": (
        "-k --worker-class --interface --threads --blocking-threads --task-impl --runtime-mode --runtime-threads "
        "--runtime-blocking-threads --blocking-threads-idle-timeout --worker-threads --paste --paster --paste-global"
    ),
    "all versions of HTTP are on one port, and nothing but HTTP": (
        "--http --http2 --http2-cleartext --http-protocols --http-parser --protocol --uwsgi-allow-from"
    ),
    "what is taken of HTTP is not to be set, see docs/protocols.md": (
        "--permit-obsolete-folding --strip-header-spaces --casefold-http-method "
        "--permit-unconventional-http-method --permit-unconventional-http-version"
    ),
    "windows, frames and pings of HTTP/2 are not to be set, see docs/settings.md": (
        "--http2-initial-window-size --http2-initial-stream-window-size --http2-initial-connection-window-size "
        "--http2-max-frame-size --http2-adaptive-window --no-http2-adaptive-window --http2-max-send-buffer-size "
        "--http2-keep-alive-interval --http2-keep-alive-timeout"
    ),
    "how responses are written is not to be set": "--http1-pipeline-flush --no-http1-pipeline-flush --no-sendfile",
    "it is off as it is": "--no-metrics --spew",
    "it is on as it is": "--http1-keep-alive -R --enable-stdio-inheritance --reset-contextvars",
    "`date` is added and `server` is not; other headers are the application's, or a middleware's": (
        "--header --server-header --no-server-header --date-header --no-date-header"
    ),
    "which hosts are answered is for the application, or a middleware": "--server-name",
    "nothing cancels a call whose client has left, see docs/protocols.md": "--asgi-disconnect-grace-period",
    "the application sees headers as they came, by their own names": "--forwarder-headers --header-map",
    "versions, ciphers and handshakes of TLS are Envoy's, or the proxy's in front": (
        "--ssl-version --ssl-ciphers --ciphers --ssl-protocol-min --ssl-crl --suppress-ragged-eofs "
        "--do-handshake-on-connect"
    ),
    "the log is on standard error, the access log on standard output; there are --log-level and --log-config": (
        "--log-file --error-log --error-logfile --log --no-log --capture-output --logger-class --log-syslog "
        "--log-syslog-to --log-syslog-prefix --log-syslog-facility --disable-redirect-access-to-syslog"
    ),
    "it is for what starts the server, such as systemd or a container": (
        "-D --daemon -p --pid --pid-file -u --user -g --group -m --umask --initgroups -n --name --process-name"
    ),
    "--limit-max-requests and --worker-lifetime vary by a tenth as they are": (
        "--limit-max-requests-jitter --max-requests-jitter"
    ),
    "memory is looked at each second": "--rss-samples --rss-sample-interval",
    "Envoy counts, see docs/envoy.md, or the proxy in front does": (
        "--statsd-host --statsd-prefix --dogstatsd-tags --enable-backlog-metric --metrics --metrics-port "
        "--metrics-address --metrics-scrape-interval"
    ),
    "files are the application's, or a proxy's in front": (
        "--static-path-mount --static-path-route --static-path-dir-to-file --static-path-expires --static-mount"
    ),
    "compressing is for the application, a middleware, or a proxy in front": "--content-encodings",
    "the application's own requests are for a client of HTTP that it brings along": "--upstream",
    "without --http3 there is no HTTP/3": "--tls-disable-http3",
    "--env-file names a file of variables": "-e --env",
    "files of the server are in $TMPDIR": "--worker-tmp-dir",
    "each worker imports the application itself": "--preload",
    "it is 4096, or as much as the kernel has in `net.core.somaxconn`": "--backlog",
    "all workers are on one port as they are": "--reuse-port",
    "--timeout-keep-alive may be a fraction of a second": "--no-http1-keep-alive",
    "workers that die are replaced as they are, see docs/workers.md": (
        "--respawn-failed-workers --no-respawn-failed-workers --respawn-interval"
    ),
    "how files are watched is not to be set": "--reload-delay --reload-tick --reload-engine",
    "--reload waits for the next change as it is": "--reload-ignore-worker-failure --no-reload-ignore-worker-failure",
    "signals are what controls the server, see docs/workers.md": (
        "--control-socket --control-socket-mode --no-control-socket"
    ),
    "work besides requests is for a queue of tasks, or the application's own processes": (
        "--dirty-app --dirty-workers --dirty-threads --dirty-timeout --dirty-graceful-timeout"
    ),
    "`aiovoy --print-envoy-config` checks the options, too": "--check-config --print-config",
    "docs/envoy.md says how an Envoy is started by hand": "--print-envoy-entrypoint",
}

ABSENT = {option: reason for reason, options in _ABSENT.items() for option in options.split()}
"""Their options that are none here, with the reason or what there is instead."""


_BY_VARIABLE = {
    "HEADERS": "--header",
    "LOG_ACCESS_ENABLED": "--access-log",
    "LOG_ACCESS_FMT": "--access-log-fmt",
    "LOG_ENABLED": "--log",
    "METRICS_ENABLED": "--metrics",
    "WEBSOCKETS": "--ws",
}
"""Options of theirs whose variables have other names."""


def told(option: str, refused: Mapping[str, str]) -> str | None:
    """What to say to who writes `option`, if it is one of theirs.

    `refused` are the settings that are not for `aiovoy upstream`, with the reason, if that is the command.
    """
    if reason := _refusal(option, refused):
        return f"`{option}` is not for `aiovoy upstream`: {reason}"
    if option in RENAMED:
        name, comma, more = RENAMED[option].partition(",")
        return f"`{option}` is `{name}` here{comma}{more}"
    return f"there is no `{option}` here: {ABSENT[option]}" if option in ABSENT else None


def _refusal(option: str, refused: Mapping[str, str]) -> str | None:
    """Why `option`, by whatever it is here, is refused."""
    name, *_ = RENAMED.get(option, option).removeprefix("--").replace("-", "_").replace(",", " ").split()
    return refused.get(name)


def unknown(key: str, settings: Iterable[str], refused: Mapping[str, str]) -> str:
    """What to say to who has `key` in a file, which is none of `settings`."""
    if there := told(f"--{key.replace('_', '-')}", refused):
        return there
    hint = ""
    for nearest in difflib.get_close_matches(key.replace("-", "_"), settings, 1):
        hint = f"; did you mean `{nearest.replace('_', '-') if '-' in key else nearest}`?"
    return f"no setting is called `{key}`{hint}"


def unread(variables: Iterable[str], settings: Iterable[str], refused: Mapping[str, str]) -> Iterator[str]:
    """What to say of `variables` that are not read: almost the name of a setting, or meant for another server."""
    names = [variable_of(name) for name in settings]
    for variable in variables:
        server, _, name = variable.partition("_")
        option = _BY_VARIABLE.get(name) or f"--{name}".lower().replace("_", "-")
        if server == "GUNICORN":
            yield f"`{variable}` is not read: write options on the command line"
        elif reason := _refusal(option, refused):
            yield f"`{variable}` is not read: {reason}"
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
