"""The settings of a server.

A setting that Envoy's side interprets and that is not set here is left out of the bootstrap, so that its default is
written once, in `src/config.rs`.
"""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

from .addresses import Place, parse_bind
from .appname import app_name
from .certificates import Authorities, Certificate
from .errors import ConfigError
from .lanes import MOST_WORKERS
from .processors import processors

Loop = Literal["uvloop", "asyncio"]
Lifespan = Literal["auto", "on", "off"]
Ws = Literal["auto", "none"]
LogLevel = Literal["critical", "error", "warning", "info", "debug", "trace"]
LogForm = Literal["text", "colored", "json"]
CertReqs = Literal["none", "optional", "required"]
ResponsePath = Literal["direct", "router"]
ReplaceFirst = Literal["new", "old"]
StrPath = str | os.PathLike[str]
Texts = str | Sequence[str] | None
Paths = StrPath | Sequence[StrPath] | None

LOOPS: tuple[Loop, ...] = get_args(Loop)
WS: tuple[Ws, ...] = get_args(Ws)
LIFESPANS: tuple[Lifespan, ...] = get_args(Lifespan)
LOG_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
"""Least talkative first."""
RESPONSE_PATHS: tuple[ResponsePath, ...] = get_args(ResponsePath)
REPLACE_FIRST: tuple[ReplaceFirst, ...] = get_args(ReplaceFirst)
CERT_REQS: tuple[CertReqs, ...] = get_args(CertReqs)
"""Each at the index that is its number in the module `ssl`."""

_LONGEST = 2_000_000
"""Seconds; more milliseconds do not fit in an option of a socket."""

RANGES: dict[str, tuple[float, float]] = {
    "workers": (1, 1000),
    "limit_max_requests": (1, 2**53),
    "limit_max_rss": (1, 2**63 - 1),
    "worker_lifetime": (1, _LONGEST),
    "timeout_worker_healthcheck": (0, _LONGEST),
    "port": (0, 65535),
    "ssl_port": (0, 65535),
    "uds_permissions": (0, 0o777),
    "limit_request_header_bytes": (1, 8192 * 1024),
    "limit_request_header_count": (1, 2**32 - 1),
    "limit_request_body": (0, 2**53),
    "limit_concurrency": (1, 2**53),
    "ws_max_size": (0, 2**53),
    "ws_max_queue": (1, 2**53),
    "ws_ping_interval": (0, _LONGEST),
    "ws_ping_timeout": (0, _LONGEST),
    "limit_connections": (1, 2**63 - 1),
    "router_max_requests": (1, 2**31 - 1),
    "router_max_pending_requests": (1, 2**32 - 1),
    "router_timeout": (1e-9, _LONGEST),
    "router_retries": (1, 2**32 - 1),
    "http2_max_concurrent_streams": (1, 2**31 - 1),
    "timeout_request_headers": (0, _LONGEST),
    "timeout_idle": (0, _LONGEST),
    "timeout_keep_alive": (1e-9, _LONGEST),
    "timeout_graceful_shutdown": (0, _LONGEST),
}
"""The least and the greatest value of each number."""


@dataclass(frozen=True)
class Config:
    """Settings of one server; a wrong one raises `ConfigError`."""

    app: str = ""
    """The application, as `module:attribute`; may be left out where there is a `mount`."""

    _: KW_ONLY

    mount: Mapping[str, str | Mapping[str, str | bool]] = field(default_factory=dict)
    """More applications, by the path prefix below which they are: `{"/api": "api:app"}`. The longest prefix wins.

    One with settings of its own is `{"/api": {"app": "api:app", "factory": True}}`; there are `factory`, `lifespan` and
    `root_path`, else those of the server count."""

    factory: bool = False
    """Whether the attribute is called, without arguments, to make the application."""

    app_dir: StrPath | None = None
    """Folder or zip archive to import the application from; by default the working directory."""

    root_path: str = ""
    """Path that a proxy in front strips: the scope's `root_path`."""

    workers: int | Literal["auto"] | None = None
    """Processes that serve; `auto` is as many as there are processors for them; by default $WEB_CONCURRENCY, else 1."""

    limit_max_requests: int | None = None
    """Requests after which a worker is replaced, give or take a tenth."""

    limit_max_rss: int | None = None
    """Bytes of resident memory beyond which a worker is replaced."""

    worker_lifetime: float | None = None
    """Seconds after which a worker is replaced, give or take a tenth."""

    replace_first: ReplaceFirst = "new"
    """Whether the `new` worker comes first when one is replaced, or the `old` one goes first."""

    timeout_worker_healthcheck: float = 30
    """Seconds after which a worker is killed that does not respond, or whose event loop does not turn; 0 is never."""

    reload: bool = False
    """Whether workers are replaced when files change."""

    reload_dir: Paths = ()
    """Folders whose files are watched for that; by default `app_dir`."""

    reload_include: Texts = ()
    """Patterns of names of files that are watched besides `*.py`."""

    reload_exclude: Texts = ()
    """Patterns of names of files or folders that are not watched."""

    loop: Loop | None = None
    """Event loop; by default uvloop."""

    lifespan: Lifespan | None = None
    """Whether lifespan events are sent; by default `auto`: if the application understands them."""

    response_path: ResponsePath = "direct"
    """Whether the application answers in Envoy's filter chain, or behind Envoy's router, as an upstream."""

    router_max_requests: int | None = None
    """Requests that the router has in the application; one more is answered with 503, or waits."""

    router_max_pending_requests: int | None = None
    """Requests that wait in the router for one of `router_max_requests` to end; one more is answered with 503."""

    router_timeout: float | None = None
    """Seconds from the end of a request to the end of its response, with the time that it has waited; else 504."""

    router_retries: int | None = None
    """How often a request that may be repeated is tried again if it is answered with 503, or not at all."""

    ws: Ws = "auto"
    """Whether WebSockets are served; without, a handshake is a request like others."""

    ws_max_size: int | None = None
    """Bytes of a message from the client; by default 16 MiB."""

    ws_max_queue: int | None = None
    """Messages from the client that wait for the application; by default 32."""

    ws_ping_interval: float | None = None
    """Seconds between pings, 0 for none; by default 20."""

    ws_ping_timeout: float | None = None
    """Seconds that a client may take to answer one, 0 for ever; by default 20."""

    ws_per_message_deflate: bool | None = None
    """Whether messages are compressed if the client can do it; by default they are."""

    host: str = "127.0.0.1"
    """Address or host name to listen on."""

    port: int = 8000
    """Port to listen on; 0 takes a free one."""

    uds: StrPath | None = None
    """Unix domain socket to listen on, instead of `host` and `port`."""

    fd: int | str | None = None
    """Inherited socket to listen on instead: its number, or the name that systemd has given it."""

    bind: Texts = ()
    """Addresses to listen on instead, each `HOST:PORT`, `unix:PATH`, or `fd://NUMBER` or `fd://NAME`."""

    uds_permissions: int = 0o666
    """Who may connect to it."""

    ssl_certfile: Paths = ()
    """File of a certificate and its chain, or several, among which a client's SNI chooses. `port` speaks TLS then."""

    ssl_keyfile: Paths = ()
    """File of the certificate's key, or one for each certificate; by default it is in the certificate's file."""

    ssl_keyfile_password: str | None = field(default=None, repr=False)
    """Password of the keys."""

    ssl_ca_certs: StrPath | None = None
    """File of the authorities that sign client certificates."""

    ssl_cert_reqs: CertReqs | int = "none"
    """Whether clients are asked for a certificate; also as a number of the module `ssl`."""

    ssl_port: int | None = None
    """Port that speaks TLS, where `port` is to stay without; 0 takes a free one."""

    http3: bool = False
    """Whether the TLS port speaks HTTP/3 as well, over UDP."""

    proxy_protocol: bool = False
    """Whether connections begin with a header of the PROXY protocol, version 1 or 2."""

    proxy_headers: bool = True
    """Whether `x-forwarded-for` and `x-forwarded-proto` of trusted proxies set the scope's client and scheme."""

    forwarded_allow_ips: Texts = None
    """Trusted proxies: addresses, networks, other names of peers, or `*`; by default $FORWARDED_ALLOW_IPS, else
    127.0.0.1 and ::1."""

    limit_request_header_bytes: int = 61440
    """Bytes of a request's head; more is answered with 431."""

    limit_request_header_count: int = 100
    """Fields of a request's head, all cookies counted as one; more is answered with 431."""

    limit_request_body: int | None = None
    """Bytes of a request's body; more is answered with 413."""

    limit_concurrency: int | None = None
    """Requests in the application; one more is answered with 503."""

    limit_connections: int | None = None
    """Connections; more are closed at once. By default three quarters of the file descriptors beyond 64."""

    http2_max_concurrent_streams: int = 100
    """Requests at a time on one connection of HTTP/2 or HTTP/3."""

    timeout_request_headers: float = 30
    """Seconds until a request's head must have come, else it is answered with 408; 0 is for ever."""

    timeout_idle: float = 300
    """Seconds that a client may neither send the body that is asked for nor take the response; 0 is for ever."""

    timeout_keep_alive: float = 5
    """Seconds after which an idle connection is closed."""

    timeout_graceful_shutdown: float | None = None
    """Seconds that requests in flight get to finish when the server stops; by default 30."""

    log_level: LogLevel = "info"
    """The least severe messages that are logged."""

    log_config: StrPath | Mapping[str, Any] | None = None
    """File that Python's `logging` is configured by, or what `dictConfig` takes, in what JSON has."""

    use_colors: bool | None = None
    """Whether logs have colours; by default those of the command, on a terminal."""

    access_log: bool | None = None
    """Whether each request is logged; by default those of the command, on a terminal and with `reload`."""

    access_log_format: str | None = None
    """`common`, `combined`, `json`, or a format string of Envoy, on standard output. By default `common`, unless
    Python's `logging` has handlers for requests."""

    request_id: bool = False
    """Whether requests without an `x-request-id` get one."""

    env_file: StrPath | None = None
    """File of environment variables for the application; those already set win."""

    envoy: StrPath | None = None
    """Another Envoy binary than the one installed with aiovoy."""

    @classmethod
    def of(cls, app: object, **settings: Any) -> Self:
        """Settings for an application object, or for `module:attribute`; changes `settings` of a `Config`."""
        if isinstance(app, cls):
            return replace(app, **settings)
        if not isinstance(app, str):
            app, app_dir = app_name(app)
            settings.setdefault("app_dir", app_dir)
        return cls(app, **settings)

    def __post_init__(self) -> None:
        for one in fields(Config):
            object.__setattr__(self, one.name, checked(f"`{one.name}`", getattr(self, one.name), one.type))
        self._check_apps()
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value not in (None, "auto") and not least <= value <= most:
                form = "#o" if name == "uds_permissions" else ""
                bound = f"{most:{form}} or less" if value > most else f"{least:{form}} or more"
                raise ConfigError(f"expected `{name}` of {bound}, got `{value:{form}}`")
        if foreign := _GUNICORN_FIELD.findall(self.access_format):
            raise ConfigError(
                f"expected `access_log_format` of common, combined, json, or a format string of Envoy, got one with "
                f"`{foreign[0]}`, which is gunicorn's or granian's"
            )
        self._check_log_config()
        if self.env_file is not None and not Path(self.env_file).is_file():
            raise ConfigError(f"found no `env_file` at `{self.env_file}`")
        try:
            os.getcwd()
        except FileNotFoundError:
            raise ConfigError("the working directory has been removed\nhint: `cd` to one that is there") from None
        if self.app_dir is not None and Path(self.app_dir).is_file() and not _is_zip_file(self.app_dir):
            raise ConfigError(f"expected `app_dir` to be a folder or a zip archive, got `{self.app_dir}`")
        if self.reload and not _can_watch_files():
            raise ConfigError("`reload` needs the package watchfiles, which aiovoy was installed without")
        for folder in self.reload_dirs:
            if self.reload and not folder.is_dir():
                raise ConfigError(f"expected `reload_dir` to be a folder, got `{folder}`")
        self._check_places()
        self._check_router()
        self._check_tls()
        workers = self.worker_count  # which looks at $WEB_CONCURRENCY
        if self.http3 and workers > MOST_WORKERS:
            raise ConfigError(f"`http3` allows {MOST_WORKERS} workers, got `workers` of {workers}")

    def _check_log_config(self) -> None:
        source = self.log_config
        if source is not None and not isinstance(source, Mapping) and not Path(source).is_file():
            raise ConfigError(f"found no `log_config` at `{source}`")
        try:
            self.logging_config  # noqa: B018
        except (TypeError, ValueError) as error:
            raise ConfigError(f"expected `log_config` of what JSON has: {error}") from None

    def _check_places(self) -> None:
        given = [name for name in ("uds", "fd", "bind") if getattr(self, name) not in (None, (), [])]
        if len(given) > 1:
            raise ConfigError(f"expected one of `uds`, `fd` and `bind`, got {' and '.join(f'`{n}`' for n in given)}")
        if self.uds is not None and not os.fspath(self.uds):
            raise ConfigError("expected `uds` to be a path, got an empty string")
        for place in self.places:
            if place.descriptor is not None and place.descriptor in range(3):
                raise ConfigError(f"expected a descriptor of 3 or more, got `{place.descriptor}`")

    def _check_router(self) -> None:
        for name in RANGES:
            if name.startswith("router_") and getattr(self, name) is not None and self.response_path != "router":
                raise ConfigError(f"`{name}` needs `response_path` of `router`, got `{self.response_path}`")
        if self.router_max_pending_requests is not None and self.router_max_requests is None:
            raise ConfigError("`router_max_pending_requests` needs `router_max_requests`")

    def _check_apps(self) -> None:
        if self.app or not self.mount:
            _check_app(self.app)
        mounts = {path: _checked_mount(path, app) for path, app in self.mount.items()}
        object.__setattr__(self, "mount", mounts)

    def _check_tls(self) -> None:
        certificates = self.certificates
        for certificate in certificates:
            certificate.check()
        for name in ["ssl_port", "ssl_ca_certs", "http3"]:
            if getattr(self, name) != getattr(type(self), name) and not certificates:
                raise ConfigError(f"`{name}` needs `ssl_certfile`")
        ports = [place for place in self.places if place.path is None and place.descriptor is None]
        if self.http3 and not ports and self.ssl_port is None:
            raise ConfigError("`http3` needs a port of the server's own: add `ssl_port`")
        asked = self.cert_reqs
        if self.ssl_ca_certs is not None:
            Authorities(Path(self.ssl_ca_certs)).check()
        elif asked != "none":
            raise ConfigError(f"`ssl_cert_reqs` of `{asked}` needs `ssl_ca_certs`")

    @property
    def access_format(self) -> str:
        """`access_log_format`, or its default."""
        return self.access_log_format or "common"

    @property
    def logging_config(self) -> str | None:
        """`log_config` as a path, or in JSON."""
        if self.log_config is None:
            return None
        if isinstance(self.log_config, Mapping):
            return json.dumps(dict(self.log_config))
        return os.path.abspath(self.log_config)

    @property
    def first_app(self) -> str:
        """`app`, else that of the first mount."""
        return self.app or str(next(iter(self.mounts.values()))["app"])

    @property
    def mounts(self) -> dict[str, Mapping[str, str | bool]]:
        """What is said of each of `mount`, by prefix."""
        return {path: {"app": app} if isinstance(app, str) else app for path, app in self.mount.items()}

    @property
    def reload_dirs(self) -> list[Path]:
        """The folders of `reload_dir`, or where the application is."""
        app_dir = Path(self.app_dir or ".")
        return [Path(folder) for folder in _several(self.reload_dir)] or [
            app_dir if app_dir.is_dir() else app_dir.parent
        ]

    @property
    def reload_includes(self) -> list[str]:
        """`reload_include` as a list."""
        return _several(self.reload_include)

    @property
    def reload_excludes(self) -> list[str]:
        """`reload_exclude` as a list."""
        return _several(self.reload_exclude)

    @property
    def places(self) -> list[Place]:
        """Where to listen, without `ssl_port`."""
        if self.bind:
            return [parse_bind(text, self.port) for text in _several(self.bind)]
        if self.fd is not None:
            return [Place(descriptor=self.fd)]
        if self.uds is not None:
            return [Place(path=os.fspath(self.uds))]
        return [Place(self.host, self.port)]

    @property
    def worker_count(self) -> int:
        """`workers` as a number."""
        if self.workers == "auto":
            return processors()
        if self.workers is not None:
            return self.workers
        asked = os.environ.get("WEB_CONCURRENCY", "") or "1"
        least, most = RANGES["workers"]
        if not asked.isdecimal() or not least <= int(asked) <= most:
            raise ConfigError(f"expected $WEB_CONCURRENCY to be a number from {least} to {most}, got `{asked}`")
        return int(asked)

    @property
    def certificates(self) -> list[Certificate]:
        """What the server shows, the one for clients without SNI first."""
        certfiles, keyfiles = _several(self.ssl_certfile), _several(self.ssl_keyfile)
        if keyfiles and not certfiles:
            raise ConfigError("`ssl_keyfile` needs `ssl_certfile`")
        if keyfiles and len(keyfiles) != len(certfiles):
            raise ConfigError(f"expected an `ssl_keyfile` for each `ssl_certfile`, got {len(keyfiles)}: {keyfiles}")
        pairs = zip(certfiles, keyfiles or certfiles, strict=True)
        return [Certificate(Path(cert), Path(key), self.ssl_keyfile_password, self.http3) for cert, key in pairs]

    @property
    def authorities(self) -> Authorities | None:
        """Whom the server asks clients for certificates of."""
        if self.cert_reqs == "none" or self.ssl_ca_certs is None:
            return None
        return Authorities(Path(self.ssl_ca_certs))

    @property
    def cert_reqs(self) -> CertReqs:
        """`ssl_cert_reqs` as a word."""
        for number, word in enumerate(CERT_REQS):
            if self.ssl_cert_reqs in (word, number):
                return word
        raise ConfigError(f"expected `ssl_cert_reqs` to be one of {', '.join(CERT_REQS)}, got `{self.ssl_cert_reqs}`")

    @property
    def trusted_proxies(self) -> list[str]:
        """`forwarded_allow_ips` one by one; none where no proxy's headers count."""
        if not self.proxy_headers:
            return []
        allowed = self.forwarded_allow_ips
        if allowed is None:
            allowed = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")
        names = allowed.split(",") if isinstance(allowed, str) else allowed
        return [name.strip() for name in names if name.strip()]


_APP = re.compile(r"(?!\S+\.py:)[^\s:/]+:[^\s:()]+")
"""Not stricter: what can be imported is for the import to say, inside Envoy."""

_GUNICORN_FIELD = re.compile(r"(?<![\w)])%\([^()]+\)[a-z]")
"""Of Envoy's `%PROTOCOL%(s)` the second percent sign is an end."""

_PREFIX = re.compile(r"(/[^/]+)+")


def _check_app(app: str, where: str = "") -> None:
    if not _APP.fullmatch(app):
        raise ConfigError(f"expected an application as `module:attribute`{where}, got `{app}`{_meant(app)}")


def _checked_mount(path: Any, app: Any) -> str | Mapping[str, str | bool]:
    if not isinstance(path, str) or not _PREFIX.fullmatch(path):
        raise ConfigError(f"expected the prefix of a mount as `/path`, got `{path}`")
    mount = f"the mount `{path}`"
    if isinstance(app, str):
        _check_app(app, f" for {mount}")
        return app
    if not isinstance(app, Mapping):
        raise ConfigError(f"expected an application for {mount}, or its settings, got `{app}`")
    for name in app:
        if name not in _OF_MOUNT:
            raise ConfigError(f"{mount} has no `{name}` of its own, only {', '.join(_OF_MOUNT)}")
    settings = {name: checked(f"`{name}` of {mount}", value, _OF_MOUNT[name]) for name, value in app.items()}
    if "app" not in settings:
        raise ConfigError(f"{mount} needs an `app`")
    _check_app(settings["app"], f" for {mount}")
    return settings


_OF_MOUNT: dict[str, Any] = {"app": str, "factory": bool, "lifespan": Lifespan, "root_path": str}


def _meant(app: str) -> str:
    """A hint, if `app` has a file or a call in it, or no attribute, and can be guessed."""
    target, called, _ = app.partition("(")
    file, _, attribute = target.rpartition(".") if called and ":" not in target else target.partition(":")
    *folders, name = Path(file.removesuffix(".py")).parts or [""]
    options = " --factory" if called else ""
    if folders and (folders[0] in ("/", "..") or folders[0].startswith("~")):
        options += f" --app-dir {Path(*folders)}"
        folders = []
    module = ".".join([*folders, name])
    usual = "application" if module.split(".")[-1] == "asgi" else "app"  # as Django has it
    guess = f"{module}:{attribute or usual}"
    known = not re.search(r"\s", target) and re.fullmatch(r"[\w-]+(\.[\w-]+)*:\w+(\.\w+)*", guess)
    return f"\nhint: write `{guess}{options}`" if known else ""


def checked(what: str, value: Any, kind: Any) -> Any:
    """`value`, a word to choose from in small letters; `ConfigError` if it is not of `kind`, which is an annotation."""
    kinds = _alternatives(kind)
    choices = any(get_origin(one) is Literal for one in kinds)
    if not _fits(value, kind):
        names = " or ".join(_name(one) for one in kinds if one is not type(None))
        got = f"the string `{value}`" if choices and isinstance(value, str) else kind_of(value)
        raise ConfigError(f"expected {what} to be {names}, got {got}")
    return value.lower() if choices and isinstance(value, str) else value


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _fits(value: object, kind: Any) -> bool:
    for one in _alternatives(kind):
        origin = get_origin(one) or one
        if origin is Literal:
            fits = isinstance(value, str) and value.lower() in get_args(one)
        elif origin is Sequence:
            fits = isinstance(value, Collection) and all(_fits(item, *get_args(one)) for item in value)
        elif isinstance(value, bool):  # to `isinstance` it is a number
            fits = one is bool
        else:
            fits = isinstance(value, int | float if one is float else origin)
        if fits:
            return True
    return False


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return ", ".join(choices) if len(choices) == 1 else f"one of {', '.join(choices)}"
    return _NAMES[get_origin(kind) or kind]


def kind_of(value: object) -> str:
    """What `value` is, without what may be secret in it."""
    return _NAMES.get(type(value), f"a `{type(value).__name__}`")


_NAMES = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "a table",
    type(None): "`None`",
    os.PathLike: "a path",
    Sequence: "an array of such",
    Mapping: "a table",
}


def _several(paths: Paths) -> list[str]:
    if paths is None or isinstance(paths, str | os.PathLike):
        paths = [] if paths is None else [paths]
    return [os.fspath(path) for path in paths]


def _can_watch_files() -> bool:
    # Few need it.
    from importlib.util import find_spec

    return find_spec("watchfiles") is not None


def _is_zip_file(path: str | os.PathLike[str]) -> bool:
    # Few need it.
    import zipfile

    return zipfile.is_zipfile(path)
