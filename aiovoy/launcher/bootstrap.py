"""Config → Envoy's bootstrap, by filling in the files of `templates/`.

Values go in as JSON, which YAML reads as it stands: no value can change the shape of the document.
"""

import base64
import json
import os
import re
import resource
import string
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..logs import to_json
from .addresses import Address
from .certificates import Authorities, Certificate
from .config import LOG_LEVELS, Config, LogForm
from .environ import bridge_path
from .errors import StartupError
from .lanes import Lane


def bootstrap(
    config: Config,
    *,
    addresses: Sequence[Address],
    admin: str | Path,
    python: str,
    python_options: Sequence[str] = (),
    python_path: Sequence[str] = (),
    secrets: Path | None = None,
    log_form: LogForm | None = None,
    access_log: Path | None = None,
    pause: Path | None = None,
    lane: Lane | None = None,
) -> str:
    """The bootstrap that serves `config` at `addresses`.

    `admin` is where Envoy's admin interface listens; `python` is the executable of the environment that the
    application runs in, `python_options` are options for it, and in `python_path` modules are looked for first. With
    `secrets`, a folder where `write_secrets` has been, certificates can be renewed. The log looks like `log_form`,
    else like Envoy's own. `access_log` is the file for that, if it is not to be standard output. As long as there is
    a 1 in the file `pause`, and no 0, no connections are accepted. With a `lane` the ids of QUIC connections are
    those that lead there; without, one process has the port.
    """
    process = _process(python, python_options, python_path, log_form)
    return _fill(
        "bootstrap.yaml",
        admin=_quote(str(admin)),
        max_connections=_quote(config.limit_connections or most_connections()),
        pause=_fill("pause.yaml", file=_quote(str(pause))) if pause is not None else "",
        pause_action=_template("pause_action.yaml") if pause is not None else "",
        bridge=_quote(str(bridge_path())),
        settings=_lines(_settings(config, _quic(config, addresses), admin, process)),
        key=_key(lane) if lane is not None else "",
        listeners="".join(_listeners(config, addresses, secrets, _access_log(config, access_log, log_form), lane)),
        clusters=_cluster(config) if _routed(config) else "",
        extensions=_template("router_extension.yaml") if _routed(config) else "",
    )


def _quic(config: Config, addresses: Sequence[Address]) -> Address | None:
    """Where HTTP/3 is, over UDP: at the first port of the server's own that speaks TLS."""
    ports = (address for address in addresses if address.tls and address.host and not address.inherited)
    return next(ports, None) if config.http3 else None


def _routed(config: Config) -> bool:
    """Whether requests go through Envoy's router."""
    return config.response_path == "router"


def write_secrets(config: Config, folder: Path) -> dict[Path, Certificate | Authorities]:
    """Writes what tells Envoy of certificates. Returns them by the folders in which a renaming makes it read again."""
    watched = {}
    for name, secret in _secrets(config).items():
        watched_folder = folder / name
        watched_folder.mkdir()
        kind = "tls_certificate" if isinstance(secret, Certificate) else "validation_context"
        resource = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": name,
            kind: {**secret.message(), "watched_directory": {"path": str(watched_folder)}},
        }
        # Of the own user alone, as the folder is: there may be a password in it.
        (folder / f"{name}.json").write_text(_quote({"resources": [resource]}), "utf-8")
        watched[watched_folder] = secret
    return watched


def _secrets(config: Config) -> dict[str, Certificate | Authorities]:
    secrets: dict[str, Certificate | Authorities] = {}
    for number, certificate in enumerate(config.certificates):
        secrets[f"certificate_{number}"] = certificate
    if config.authorities is not None:
        secrets["authorities"] = config.authorities
    return secrets


def _process(executable: str, options: Sequence[str], path: Sequence[str], log_form: LogForm | None) -> dict[str, Any]:
    """What the bridge is told of the interpreter, and of the log."""
    settings = {"python": executable, "python_options": options, "python_path": path, "log_form": log_form}
    return {name: value for name, value in settings.items() if value}


def _settings(config: Config, quic: Address | None, admin: str | Path, process: dict[str, Any]) -> dict[str, Any]:
    """What the bridge is told where it is in Envoy."""
    settings = {
        "limit_router_requests": _queue(config),
        "alt_svc": f'h3=":{quic.port}"; ma=86400' if quic else None,
        "log_refusals": config.log_level == "info" or None,
        "access_log": _log_fields(config) or None,
        "client_certs": True if config.authorities else None,
        "admin": str(admin),
    }
    told = {name: value for name, value in settings.items() if value is not None}
    return {**bridge_settings(config), **process, **told}


def bridge_settings(config: Config) -> dict[str, Any]:
    """What the bridge is told, in Envoy or not. What is not set is left out: `src/config.rs` has the defaults."""
    settings = {
        "app": config.app or None,
        "mounts": [{"path": path, **mount} for path, mount in config.mounts.items()] or None,
        "factory": config.factory or None,
        "app_dir": None if config.app_dir is None else os.path.abspath(config.app_dir),
        "loop": config.loop,
        "lifespan": config.lifespan,
        "root_path": config.root_path or None,
        "forwarded_allow_ips": config.trusted_proxies,
        "proxy_protocol": config.proxy_protocol or None,
        "limit_request_header_bytes": config.limit_request_header_bytes,
        "limit_request_header_count": config.limit_request_header_count,
        "limit_request_body": config.limit_request_body,
        "limit_concurrency": config.limit_concurrency,
        "ws_max_size": config.ws_max_size,
        "ws_max_queue": config.ws_max_queue,
        "ws_ping_interval": _number(config.ws_ping_interval),
        "ws_ping_timeout": _number(config.ws_ping_timeout),
        "ws_per_message_deflate": config.ws_per_message_deflate,
        "timeout_idle": _number(config.timeout_idle),
        "timeout_graceful_shutdown": _number(config.timeout_graceful_shutdown),
        "log_level": None if config.log_level == "info" else config.log_level,
        "log_config": config.logging_config,
        "log_requests": (bool(config.access_log) and config.access_log_format is None) or None,
    }
    told = {name: value for name, value in settings.items() if value is not None}
    _lines(told)  # which refuses what is not UTF-8
    return told


def _number(value: float | None) -> float | None:
    """Whole numbers as such: of a `Struct` in YAML Envoy reads `1` as a number, but `1.0` as a string."""
    return int(value) if value is not None and value == int(value) else value


def _listeners(
    config: Config, addresses: Sequence[Address], secrets: Path | None, log: str, lane: Lane | None
) -> list[str]:
    tls = _fill("tls.yaml", context=_tls_context(config, "[h2, http/1.1]", secrets)) if config.certificates else ""
    listeners = []
    for number, address in enumerate(addresses, 1):
        name = "aiovoy" if number == 1 else "aiovoy_tls" if config.ssl_port is not None else f"aiovoy_{number}"
        place = _pipe(config, address.path) if address.path else _tcp(config, address)
        listeners.append(_listener(config, log, name, place, tls if address.tls else ""))
    if (quic := _quic(config, addresses)) is not None:
        place = _fill(
            "udp.yaml",
            host=_quote(quic.host),
            port=_quote(quic.port),
            ids=_fill("quic_ids.yaml", nonce_length=_quote(lane.length - 1)) if lane is not None else "",
            **_streams(config, 24 * 2**20),
        )
        transport = _fill("quic.yaml", context=_tls_context(config, "[h3]", secrets))
        listeners.append(_listener(config, log, "aiovoy_quic", place, transport, udp=True))
    return [*listeners, _behind(config)] if _routed(config) else listeners


def _key(lane: Lane) -> str:
    """What the ids of a lane are made with."""
    key, version = (base64.b64encode(data).decode() for data in (os.urandom(16), bytes([lane.version])))
    return _fill("quic_key.yaml", key=_quote(key), version=_quote(version))


def _behind(config: Config) -> str:
    """The internal listener behind the router. Its limits are above those in front of it, which have been kept."""
    count = _quote(min(config.limit_request_header_count + 2 * FIELDS_ABOVE, 2**32 - 1))
    return _fill("router_behind.yaml", header_count=count)


def _cluster(config: Config) -> str:
    """The application as the router's upstream."""
    requests = config.router_max_requests
    # What a connection has no room for waits, which the circuit breaker for requests does not let it. How many wait,
    # the bridge counts: to Envoy those, too, wait that come before its connection is there.
    queues = _queue(config) is not None
    return _fill(
        "router_cluster.yaml",
        streams=_quote(requests if queues else 2**31 - 1),
        max_connections=_quote(1 if queues else 2**32 - 1),
        max_requests=_quote(2**32 - 1 if queues or requests is None else requests),
    )


def _queue(config: Config) -> int | None:
    """The requests that a worker has under way through the router, with those that wait there, if so many may."""
    requests, pending = config.router_max_requests, config.router_max_pending_requests
    return None if requests is None or pending is None else requests + pending


def _route(config: Config) -> str:
    """What the router does with requests."""
    retries = config.router_retries
    return _fill(
        "router_routing.yaml",
        timeout=_duration(config.router_timeout or 0),
        retries=_fill("router_retries.yaml", retries=_quote(retries)) if retries is not None else "",
    )


def _tcp(config: Config, address: Address) -> str:
    user_timeout = ""
    if config.timeout_idle:
        milliseconds = max(1, round(config.timeout_idle * 1000))
        user_timeout = _fill("user_timeout.yaml", milliseconds=_quote(milliseconds))
    return _fill("tcp.yaml", host=_quote(address.host), port=_quote(address.port), user_timeout=user_timeout)


def _pipe(config: Config, path: str) -> str:
    mode = f"{config.uds_permissions} # 0{config.uds_permissions:o}"
    return _fill("pipe.yaml", path=_quote(path), mode=mode)


def _listener(
    config: Config, access_log: str, name: str, place: str, transport_socket: str = "", *, udp: bool = False
) -> str:
    headers_timeout = _duration(config.timeout_request_headers)
    proxy_protocol = _fill("proxy_protocol.yaml", timeout=headers_timeout)
    connection_manager = _fill(
        "connection_manager.yaml",
        codec="HTTP3" if udp else "AUTO",
        keep_alive=_duration(config.timeout_keep_alive),
        header_count=_quote(min(config.limit_request_header_count + FIELDS_ABOVE, 2**32 - 1)),
        header_kb=_quote(min(-(-config.limit_request_header_bytes // 1024) + KIB_ABOVE, 8192)),
        headers_timeout=headers_timeout,
        **_streams(config, 2**31 - 1),
        idle=_duration(config.timeout_idle),
        ignored_upgrades=_quote("[^wW].*" if config.ws == "auto" else ".*"),
        upgrades=_template("upgrades.yaml") if config.ws == "auto" else "",
        allow_connect=_quote(config.ws == "auto"),
        client_certificate=_template("client_certificate.yaml") if transport_socket and config.authorities else "",
        request_id=_template("request_id.yaml") if config.request_id else "generate_request_id: false",
        access_log=access_log,
        routing=_route(config) if _routed(config) else _template("direct_routing.yaml"),
    )
    # On QUIC a connection holds what all its streams have for the client. One that nobody reads must not stop others.
    limit = _streams(config, 24 * 2**20)["connection_window"] if udp else "262144"
    return _fill(
        "listener.yaml",
        name=name,
        buffer_limit=limit,
        buffer_note="of all streams" if udp else "as much of a body waits for the application or for the client",
        place=place,
        proxy_protocol=proxy_protocol if config.proxy_protocol and not udp else "",
        tls_cipher=_template("tls_cipher.yaml") if transport_socket else "",
        connection_manager=connection_manager,
        handshake_timeout=f"transport_socket_connect_timeout: {headers_timeout}" if transport_socket else "",
        transport_socket=transport_socket,
    )


def _streams(config: Config, largest_window: int) -> dict[str, str]:
    """How many streams a connection may have, and as many bytes of each as fit into its window."""
    streams = config.http2_max_concurrent_streams
    window = min(streams * STREAM_WINDOW, largest_window)
    return {"streams": _quote(streams), "stream_window": _quote(STREAM_WINDOW), "connection_window": _quote(window)}


def _tls_context(config: Config, alpn: str, secrets: Path | None) -> str:
    authorities = config.authorities
    if secrets is None:
        certificates = "".join(_item(_lines(certificate.message())) for certificate in config.certificates)
        filled = "tls_certificates:\n" + certificates
        if authorities is not None:
            filled += f"validation_context: {_quote(authorities.message())}\n"
        note = "# Started by hand, Envoy does not see when these files change."
    else:
        sources = {name: _source(name, secrets) for name in _secrets(config)}
        validation = sources.pop("authorities", None)
        filled = "tls_certificate_sds_secret_configs:\n"
        filled += "".join(_item(_lines(source)) for source in sources.values())
        if validation is not None:
            filled += f"validation_context_sds_secret_config: {_quote(validation)}\n"
        note = "# The files of the certificates are in these, and are read again when they change."
    required = _quote(config.cert_reqs == "required")
    return _fill("tls_context.yaml", required=required, alpn=alpn, note=note, certificates=filled)


def _source(name: str, secrets: Path) -> dict[str, Any]:
    source = {"path_config_source": {"path": str(secrets / f"{name}.json")}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _access_log(config: Config, path: Path | None, log_form: LogForm | None) -> str:
    loggers = ""
    if LOG_LEVELS.index(config.log_level) >= LOG_LEVELS.index("info"):
        line = _REFUSAL_JSON if log_form == "json" else _REFUSAL
        loggers += _item(_fill("refusal_log.yaml", line=_quote(line + chr(10))))
    if config.access_log:
        template = "access_log.yaml" if path is None else "access_log_file.yaml"
        loggers += _item(_fill(template, format=_log_format(config), path=_quote(str(path))))
    return "access_log:\n" + loggers if loggers else ""


def _log_fields(config: Config) -> list[str]:
    """What the bridge is to tell the access log."""
    if not config.access_log:
        return []
    fields = {"common": _COMMON_FIELDS, "combined": _COMBINED_FIELDS, "json": ["named_client"]}
    return fields.get(config.access_format, ["client"])


def _log_format(config: Config) -> str:
    match config.access_format:
        case "json":
            return f"json_format: {_quote(JSON_LOG)}"
        case "common" | "combined" as name:
            return f"text_format_source: {{inline_string: {_quote(TEXT_LOGS[name] + chr(10))}}}"
        case text:
            return f"text_format_source: {{inline_string: {_quote(text + chr(10))}}}"


# A head above its limits is answered by the bridge, and by Envoy, which on HTTP/2 and 3 resets the stream, only if it
# is above them by so much. Envoy counts each cookie, of which browsers send a field each on HTTP/2, and keep 180 or
# more of a site. A field takes some 300 bytes of memory, whatever is in it, so this makes a head cost 400 kB at most.
FIELDS_ABOVE = 1024
KIB_ABOVE = 32

# Bytes of a request body that are on their way and not read yet, on HTTP/2 and 3.
STREAM_WINDOW = 256 * 1024

# The scope's; the bridge says it only where it is not the connection's.
_CLIENT = (
    '%COALESCE({"operators": [{"command": "FILTER_STATE", "param": "aiovoy.client:PLAIN"}, '
    '"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"]})%'
)

# Envoy escapes nothing in a text format. So what a client may choose comes from the bridge, which does, and of a
# request that the bridge has not seen there is nothing.
_COMMON_FIELDS = ["named_client", "request"]
_COMBINED_FIELDS = [*_COMMON_FIELDS, "referer", "user_agent"]

_COMMON = (
    _CLIENT + ' - - [%START_TIME(%d/%b/%Y:%H:%M:%S %z)%] "%FILTER_STATE(aiovoy.request:PLAIN)%" '
    "%RESPONSE_CODE% %BYTES_SENT%"
)

_COMBINED = _COMMON + ' "%FILTER_STATE(aiovoy.referer:PLAIN)%" "%FILTER_STATE(aiovoy.user_agent:PLAIN)%"'

_REFUSED = "refused with a reset (%RESPONSE_CODE_DETAILS%): no head, from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
_REFUSAL = f"[%START_TIME_LOCAL(%Y-%m-%d %H:%M:%S.%3f)%] [info] {_REFUSED}"
_REFUSAL_JSON = to_json("info", "aiovoy.error", _REFUSED, time="%START_TIME%")

TEXT_LOGS = {"common": _COMMON, "combined": _COMBINED}

JSON_LOG = {
    "time": "%START_TIME%",
    "client": _CLIENT,
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "bytes": "%BYTES_SENT%",
    "milliseconds": "%DURATION%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "referer": "%REQ(REFERER)%",
    "user_agent": "%REQ(USER-AGENT)%",
}


OWN_DESCRIPTORS = 64
"""File descriptors that an Envoy without connections has: 41 to 54, and a few more for what is to come."""


def most_connections() -> int:
    """Three quarters of the file descriptors that Envoy itself does not need; the rest is for the application."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return 1_000_000
    return max(1, (descriptors - OWN_DESCRIPTORS) * 3 // 4)


def _duration(seconds: float) -> str:
    """`google.protobuf.Duration` as JSON: decimals, no exponent. Not rounded to 0, which would mean no limit at all."""
    least = 0.001 if seconds else 0
    return f"{max(seconds, least):.3f}".rstrip("0").rstrip(".") + "s"


def _quote(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StartupError(f"expected a setting in UTF-8, got {json.dumps(value)}") from None
    return text


def _lines(settings: dict[str, Any]) -> str:
    """A mapping, a line for each key."""
    return "".join(f"{name}: {_quote(value)}\n" for name, value in settings.items())


def _item(lines: str) -> str:
    """Lines as an item of a list."""
    return "- " + textwrap.indent(lines, "  ").lstrip()


def _fill(template: str, **values: str) -> str:
    """Fills in a template. A placeholder alone on its line takes lines, any number, and gives them its indentation."""
    filled = []
    for line in _template(template).splitlines(keepends=True):
        alone = _ALONE.fullmatch(line)
        if alone is None:
            filled.append(string.Template(line).substitute(values))
        elif lines := values[alone["name"]].strip("\n"):
            filled.append(textwrap.indent(lines, alone["indentation"]) + "\n")
    return "".join(filled)


_ALONE = re.compile(r"(?P<indentation> *)\$(?P<name>\w+)\n")


def _template(name: str) -> str:
    return Path(__file__).with_name("templates").joinpath(name).read_text("utf-8")
