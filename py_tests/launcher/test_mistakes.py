"""What those write who come from another server, and what the command line says to it."""

import contextlib
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from aiovoy import Config, ConfigError, StartupError
from aiovoy.launcher import elsewhere
from aiovoy.launcher.cli import main
from aiovoy.launcher.port import HeldPort
from aiovoy.launcher.uds import HeldUds
from aiovoy.upstream.cli import REFUSED
from aiovoy.upstream.cli import main as upstream
from py_tests.harness.certificates import Pair

COMMANDS = pytest.mark.parametrize("command", [main, upstream], ids=["aiovoy", "upstream"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(command: click.Command, *arguments: str, code: int = 2) -> str:
    """What is written beside the usage."""
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == code, result.output
    return re.sub(r"Usage: .*\nTry .*\n\n", "", result.output)


@COMMANDS
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-b :80", "`-b` is `--bind` here"),
        ("-w4", "`-w` is `--workers` here"),
        ("-w 4", "`-w` is `--workers` here"),
        ("-c gunicorn.conf.py", "`-c` is `--config` here, a file in TOML"),
        ("--max-requests 9", "`--max-requests` is `--limit-max-requests` here"),
        ("--timeout=9", "`--timeout` is `--timeout-worker-healthcheck` here"),
        ("--no-ws", "`--no-ws` is `--ws none` here"),
        ("--access-logfile -", "`--access-logfile` is `--access-log` here, on standard output"),
        ("-k gthread", "there is no `-k` here: applications are ASGI ones, each on an event loop"),
        ("--http auto", "there is no `--http` here: all versions of HTTP are on one port, and nothing but HTTP"),
        ("-R", "there is no `-R` here: it is on as it is"),
        ("--no-metrics", "there is no `--no-metrics` here: it is off as it is"),
        ("--preload", "there is no `--preload` here: each worker imports the application itself"),
        (
            "--ciphers x",
            "there is no `--ciphers` here: "
            "versions, ciphers and handshakes of TLS are Envoy's, or the proxy's in front",
        ),
        ("--metrics", "there is no `--metrics` here: Envoy counts, see docs/envoy.md, or the proxy in front does"),
        ("--check-config", "there is no `--check-config` here: `aiovoy --print-envoy-config` checks the options, too"),
        ("--address ::1", "`--address` is `--host` here"),
        ("--additional-mount a:b=/b=asgi", "`--additional-mount` is `--mount` here, as PREFIX=MODULE:ATTRIBUTE"),
        ("--insecure-bind :80", "`--insecure-bind` is `--port` here, beside `--ssl-port` if there is one"),
        ("--websockets", "`--websockets` is `--ws auto` here, the default"),
        ("--no-lifespan", "`--no-lifespan` is `--lifespan off` here"),
        ("--reload-dirs src", "`--reload-dirs` is `--reload-dir` here"),
        ("--tls-disable-http3", "there is no `--tls-disable-http3` here: without --http3 there is no HTTP/3"),
    ],
)
def test_option_of_another_server(command: click.Command, words: str, message: str) -> None:
    assert told(command, "main:app", *words.split()) == f"Error: {message}\n"


@pytest.mark.parametrize(
    ("words", "message", "reason"),
    [
        ("--ssl-certificate x.pem", "is `--ssl-certfile` here", "ssl_certfile"),
        ("--quic-bind :443", "is `--http3` here, on the UDP port of the TLS port's number", "http3"),
        ("--verify-mode 2", "is `--ssl-cert-reqs` here", "ssl_cert_reqs"),
        ("--no-ssl-client-verify", "is `--ssl-cert-reqs none` here", "ssl_cert_reqs"),
        ("--tls-key x.key", "is `--ssl-keyfile` here", "ssl_keyfile"),
        ("--tls-port 443", "is `--ssl-port` here", "ssl_port"),
    ],
)
def test_option_of_another_server_that_is_not_for_upstream(words: str, message: str, reason: str, folder: Path) -> None:
    option, *_ = words.split()
    refusal = f"`{option}` is not for `aiovoy upstream`: {REFUSED[reason]}\n"
    assert told(main, "main:app", *words.split()) == f"Error: `{option}` {message}\n"
    assert told(upstream, "main:app", *words.split()) == f"Error: {refusal}"
    (folder / "aiovoy.toml").write_text(f"{option[2:]} = 1")
    assert told(upstream, "main:app") == f"Error: `aiovoy.toml`: {refusal}"


def test_words_for_other_servers_hold_for_upstream() -> None:
    ours = {name for option in upstream.params if option.name not in REFUSED for name in option.opts}
    for option, name in elsewhere.RENAMED.items():
        assert name.split(",")[0].split()[0] in ours or "is not for" in str(elsewhere.told(option, REFUSED)), option


@COMMANDS
def test_option_that_is_mistyped(command: click.Command) -> None:
    assert "'--root-path'" in told(command, "main:app", "--root-pth", "/shop")


def test_options_of_other_servers_are_none_of_ours() -> None:
    ours = {name for option in main.params for name in [*option.opts, *option.secondary_opts]}
    assert not ours & {*elsewhere.RENAMED, *elsewhere.ABSENT}
    assert {name.split(",")[0].split()[0] for name in elsewhere.RENAMED.values()} <= ours


@COMMANDS
@pytest.mark.parametrize(
    "words", ["--log-level INFO", "--loop UVLoop", "--lifespan Off", "--ws NONE", "--workers AUTO"]
)
def test_choice_in_capitals_is_taken(command: click.Command, words: str) -> None:
    assert told(command, *words.split()) == "Error: Missing argument 'MODULE:ATTRIBUTE'.\n"


@COMMANDS
def test_variable_that_is_mistyped(command: click.Command, capfd: pytest.CaptureFixture[str]) -> None:
    variables = {
        "AIOVOY_LOGLEVEL": "debug",
        "AIOVOY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "AIOVOY_WORKER": "4",
        "AIOVOY_WS": "none",
        "AIOVOY_MAX_REQUESTS": "1000",
        "AIOVOY_RELOAD_DIRS": "src",
        "AIOVOY_METRICS_PORT": "tcp://10.0.0.1:80",
    }
    assert CliRunner(env=variables).invoke(command, []).exit_code == 2
    assert sorted(capfd.readouterr().err.splitlines()) == [
        "warning: `AIOVOY_MAX_REQUESTS` is not read: it is `AIOVOY_LIMIT_MAX_REQUESTS` here",
        "warning: `AIOVOY_RELOAD_DIRS` is not read: it is `AIOVOY_RELOAD_DIR` here",
        "warning: no setting is called `AIOVOY_LOGLEVEL`; did you mean `AIOVOY_LOG_LEVEL`?",
        "warning: no setting is called `AIOVOY_WORKER`; did you mean `AIOVOY_WORKERS`?",
    ]


@COMMANDS
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AIOVOY_LOOP", "trio", "`AIOVOY_LOOP`: 'trio' is not one of 'uvloop', 'asyncio'."),
        ("AIOVOY_UDS_PERMISSIONS", "9", "`AIOVOY_UDS_PERMISSIONS`: expected an octal number, got `9`"),
        ("AIOVOY_WORKERS", "many", "`AIOVOY_WORKERS`: 'many' is not a valid number, nor `auto`."),
        (
            "AIOVOY_PORT",
            "tcp://10.0.0.1:80",
            "`AIOVOY_PORT`: 'tcp://10.0.0.1:80' is not a valid integer range.\nhint: Kubernetes sets it for a Service "
            "called `aiovoy`: give that another name, or the pod `enableServiceLinks: false`",
        ),
    ],
)
def test_variable_with_a_wrong_value(
    command: click.Command, variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert told(command, "main:app") == f"Error: Invalid value for {message}\n"


@COMMANDS
def test_variable_of_another_server(command: click.Command, capfd: pytest.CaptureFixture[str]) -> None:
    variables = {
        "UVICORN_ROOT_PATH": "/shop",
        "UVICORN_APP": "main:app",
        "UVICORN_USE_COLORS": "0",
        "UVICORN_RELOAD_DIRS": "src",
        "UVICORN_SERVICE_HOST": "10.0.0.1",
        "GRANIAN_WORKERS_LIFETIME": "3600",
        "GRANIAN_ACCESS_LOGFILE": "-",
        "GUNICORN_CMD_ARGS": "--workers 4",
        "WEB_CONCURRENCY": "2",
        "FORWARDED_ALLOW_IPS": "*",
    }
    assert CliRunner(env=variables).invoke(command, []).exit_code == 2
    assert sorted(capfd.readouterr().err.splitlines()) == [
        "warning: `GRANIAN_ACCESS_LOGFILE` is not read: it is `AIOVOY_ACCESS_LOG` here, on standard output",
        "warning: `GRANIAN_WORKERS_LIFETIME` is not read: it is `AIOVOY_WORKER_LIFETIME` here",
        "warning: `GUNICORN_CMD_ARGS` is not read: write options on the command line",
        "warning: `UVICORN_APP` is not read: it is `AIOVOY_APP` here",
        "warning: `UVICORN_RELOAD_DIRS` is not read: it is `AIOVOY_RELOAD_DIR` here",
        "warning: `UVICORN_ROOT_PATH` is not read: it is `AIOVOY_ROOT_PATH` here",
        "warning: `UVICORN_USE_COLORS` is not read: it is `AIOVOY_USE_COLORS` here",
    ]


def test_variable_of_another_server_that_is_not_for_upstream(capfd: pytest.CaptureFixture[str]) -> None:
    variables = {"GRANIAN_SSL_CLIENT_VERIFY": "1", "UVICORN_SSL_KEYFILE": "a.key"}
    assert CliRunner(env=variables).invoke(main, []).exit_code == 2
    assert capfd.readouterr().err.splitlines() == [
        "warning: `GRANIAN_SSL_CLIENT_VERIFY` is not read: it is `AIOVOY_SSL_CERT_REQS=required` here",
        "warning: `UVICORN_SSL_KEYFILE` is not read: it is `AIOVOY_SSL_KEYFILE` here",
    ]
    assert CliRunner(env=variables).invoke(upstream, []).exit_code == 2
    assert capfd.readouterr().err.splitlines() == [
        f"warning: `GRANIAN_SSL_CLIENT_VERIFY` is not read: {REFUSED['ssl_cert_reqs']}",
        f"warning: `UVICORN_SSL_KEYFILE` is not read: {REFUSED['ssl_keyfile']}",
    ]


@COMMANDS
def test_help_is_short(command: click.Command) -> None:
    text = told(command, "-h", code=0)
    assert text == told(command, "--help", code=0)
    assert not re.search(r"<=?\d{6}|e-\d", re.sub(r"\s", "", text))


@COMMANDS
@pytest.mark.parametrize(
    ("app", "hint"),
    [
        ("main", "main:app"),
        ("main.py", "main:app"),
        ("main.py:app", "main:app"),
        ("./shop/main:app", "shop.main:app"),
        ("shop/main.py:make.app", "shop.main:make.app"),
        ("/srv/shop/main.py:app", "main:app --app-dir /srv/shop"),
        ("../shop/main.py:app", "main:app --app-dir ../shop"),
        ("main:create_app()", "main:create_app --factory"),
        ("main:create_app('shop', 2)", "main:create_app --factory"),
        ("shop.main.create_app()", "shop.main:create_app --factory"),
        ("~/shop/main.py:app", "main:app --app-dir ~/shop"),
        ("shop.asgi", "shop.asgi:application"),
        ("shop/asgi.py", "shop.asgi:application"),
    ],
)
def test_application_that_is_a_file_or_a_call(command: click.Command, app: str, hint: str) -> None:
    message = f"Error: expected an application as `module:attribute`, got `{app}`\nhint: write `{hint}`\n"
    assert told(command, app) == message


@pytest.mark.parametrize(
    "app", ["", ":app", "main:app:app", "my main:app", "/:app", "../:app", "main()", "/my shop/main.py"]
)
def test_application_that_cannot_be_guessed(app: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config(app)
    assert str(error.value) == f"expected an application as `module:attribute`, got `{app}`"


@pytest.mark.parametrize("field", ["%(h)s", "%({x-request-id}i)s", "%(addr)s", "%(M)d"])
def test_access_log_format_of_another_server(field: str) -> None:
    assert told(main, "main:app", "--access-log-format", f"GET {field} 200") == (
        "Error: expected `--access-log-format` of common, combined, json, or a format string of Envoy, "
        f"got one with `{field}`, which is gunicorn's or granian's\n"
    )


def test_error_names_what_was_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = "`{}` needs `{}` of `router`, got `direct`"
    message = needed.format("--router-timeout", "--response-path")
    assert told(main, "main:app", "--router-timeout", "1") == f"Error: {message}\n"
    monkeypatch.setenv("AIOVOY_RESPONSE_PATH", "direct")
    monkeypatch.setenv("AIOVOY_ROUTER_TIMEOUT", "1")
    message = needed.format("AIOVOY_ROUTER_TIMEOUT", "AIOVOY_RESPONSE_PATH")
    assert told(main, "main:app") == f"Error: {message}\n"
    monkeypatch.delenv("AIOVOY_ROUTER_TIMEOUT")
    (folder / "aiovoy.toml").write_text("router-timeout = 1")
    message = needed.format("router_timeout", "AIOVOY_RESPONSE_PATH")
    assert told(main, "main:app") == f"Error: {message}\nhint: `aiovoy.toml` has `router_timeout`\n"
    assert (
        told(main, "reload")
        == "Error: expected an application as `module:attribute`, got `reload`\nhint: write `reload:app`\n"
    )


@pytest.mark.parametrize(
    ("name", "value"), [("ssl_certfile", __file__), ("http3", "1"), ("envoy", "envoy"), ("response_path", "direct")]
)
def test_variable_that_is_not_for_upstream(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"AIOVOY_{name.upper()}"
    monkeypatch.setenv(variable, value)
    message = f"`{variable}` is not for `aiovoy upstream`: {REFUSED[name]}"
    assert told(upstream, "main:app") == f"Error: {message}\n"


def test_access_log_format_that_is_not_for_upstream(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "` is common, combined, json here, got `%PROTOCOL%`\n"
    assert told(upstream, "main:app", "--access-log-format=%PROTOCOL%") == f"Error: `--access-log-format{message}"
    (folder / "aiovoy.toml").write_text("access-log-format = '%PROTOCOL%'")
    assert told(upstream, "main:app").startswith(f"Error: `access_log_format{message}hint: ")
    monkeypatch.setenv("AIOVOY_ACCESS_LOG_FORMAT", "%PROTOCOL%")
    assert told(upstream, "main:app") == f"Error: `AIOVOY_ACCESS_LOG_FORMAT{message}"


def test_parentheses_behind_a_field_of_envoy() -> None:
    Config("main:app", access_log_format="%REQ(A)%(s)s %PROTOCOL%(s)s")


@COMMANDS
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 81", "`aiovoy.toml`: no setting is called `prot`; did you mean `port`?"),
        ("no-access-log = true", "`aiovoy.toml`: no setting is called `no-access-log`; did you mean `access-log`?"),
        (
            "limit-request-bdy = 9",
            "`aiovoy.toml`: no setting is called `limit-request-bdy`; did you mean `limit-request-body`?",
        ),
        (
            "limit_request_bdy = 9",
            "`aiovoy.toml`: no setting is called `limit_request_bdy`; did you mean `limit_request_body`?",
        ),
        ("version = true", "`aiovoy.toml`: no setting is called `version`"),
        ("max_requests = 9", "`aiovoy.toml`: `--max-requests` is `--limit-max-requests` here"),
        ("preload = true", "`aiovoy.toml`: there is no `--preload` here: each worker imports the application itself"),
        ("root-path = ''\nroot_path = ''", "`aiovoy.toml`: `root_path` stands there twice, as `root_path`, too"),
        ('port = "81"', "`aiovoy.toml`: expected `port` to be a whole number, got a string"),
        ("port = true", "`aiovoy.toml`: expected `port` to be a whole number, got a boolean"),
        ("port = 81.0", "`aiovoy.toml`: expected `port` to be a whole number, got a number"),
        ("port = 65536", "Invalid value for `port` in `aiovoy.toml`: 65536 is not in the range 0<=x<=65535."),
        ("timeout-idle = [1]", "`aiovoy.toml`: expected `timeout-idle` to be a number, got an array"),
        ('reload = "yes"', "`aiovoy.toml`: expected `reload` to be a boolean, got a string"),
        ("host = 1979-05-27", "`aiovoy.toml`: expected `host` to be a string, got a `date`"),
        ("bind = [81]", "`aiovoy.toml`: expected `bind` to be a string or an array of such, got an array"),
        (
            "uds-permissions = 0o660",
            "`aiovoy.toml`: expected `uds-permissions` to be a string of octal digits, got a whole number",
        ),
        ('mount = "/api=api:app"', "`aiovoy.toml`: expected `mount` to be a table, got a string"),
        ('loop = "trio"', "`aiovoy.toml`: expected `loop` to be one of uvloop, asyncio, got the string `trio`"),
        ('workers = "many"', "`aiovoy.toml`: expected `workers` to be a whole number or auto, got the string `many`"),
        ("log-config = {version = 1}", "`aiovoy.toml`: expected `log-config` to be a string, got a table"),
        (
            "[project]\nname = 'shop'\n[tool.aiovoy]\nport = 81",
            "`aiovoy.toml`: `[tool.aiovoy]` is for `pyproject.toml`; here the settings stand at the top",
        ),
        ('env-file = "env"', "Invalid value for `env_file` in `aiovoy.toml`: File 'env' does not exist."),
        ("worker-lifetime = 1e9", "expected `worker_lifetime` of 2000000 or less, got `1000000000.0`"),
        ("fd = 3\nbind = ':1'", "expected one of `uds`, `fd` and `bind`, got `fd` and `bind`"),
        ('[mount]\napi = "api:app"', "expected the prefix of a mount as `/path`, got `api`"),
        (
            '[mount]\n"/api" = "api"',
            "expected an application as `module:attribute` for the mount `/api`, got `api`",
        ),
        ('[mount]\n"/api" = 1', "expected an application for the mount `/api`, or its settings, got `1`"),
        ('[mount."/api"]\nfactory = true', "the mount `/api` needs an `app`"),
        (
            '[mount."/api"]\napp = "api:app"\nlifespan = "no"',
            "expected `lifespan` of the mount `/api` to be one of auto, on, off, got the string `no`",
        ),
        ('[mount."/api"]\nfactory = 1', "expected `factory` of the mount `/api` to be a boolean, got a whole number"),
        (
            '[mount."/api"]\napp = "api:app"\nroot-path = "/a"\nroot_path = "/b"',
            "`aiovoy.toml`: `root_path` stands there twice, as `root_path`, too",
        ),
        (
            '[mount."/api"]\napp = "api:app"\nlimit-concurrency = 1',
            "the mount `/api` has no `limit_concurrency` of its own, only app, factory, lifespan, root_path",
        ),
    ],
)
def test_file_of_settings(command: click.Command, text: str, message: str, folder: Path) -> None:
    (folder / "aiovoy.toml").write_text(text)
    lines = told(command, "main:app").splitlines()
    assert lines[0] == f"Error: {message}"
    assert any("`aiovoy.toml`" in line for line in lines)


@COMMANDS
def test_file_of_settings_that_is_none(command: click.Command, folder: Path) -> None:
    (folder / "gunicorn.conf.py").write_text("bind = ':80'\nworkers = 2 * 2\n")
    message = told(command, "--config", "gunicorn.conf.py")
    assert re.fullmatch(r"Error: `gunicorn.conf.py` is not TOML: .*\(at line 2, column 13\)\n", message)
    message = "cannot read `/proc/self/mem`: input/output error"
    assert told(command, "--config", "/proc/self/mem") == f"Error: {message}\n"
    (folder / "pyproject.toml").write_text("[tool.ruff]\n")
    assert told(command, "--config", "pyproject.toml") == "Error: `pyproject.toml` has no table `[tool.aiovoy]`\n"
    (folder / "pyproject.toml").write_text("[tool]\naiovoy = 1\n")
    message = "`pyproject.toml`: expected `tool.aiovoy` to be a table, got a whole number"
    assert told(command, "main:app") == f"Error: {message}\n"
    (folder / "pyproject.toml").write_text("[tool.aiovoy\n")
    assert told(command, "main:app").startswith("Error: `pyproject.toml` is not TOML: Expected ']'")
    (folder / "aiovoy.toml").write_bytes(b"port = 81 # \xff\n")
    assert told(command, "main:app").startswith("Error: `aiovoy.toml` is not TOML: 'utf-8' codec can't decode byte")
    assert told(command, "--help", code=0).startswith("Usage: ")


@COMMANDS
def test_reload_without_watchfiles(command: click.Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    message = "`--reload` needs the package watchfiles, which aiovoy was installed without"
    assert told(command, "main:app", "--reload") == f"Error: {message}\n"


def test_certificate_without_its_key(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "server", name="localhost")
    assert told(main, "main:app", "--ssl-certfile", str(pair.certfile)) == (
        f"Error: found no private key in `{pair.certfile}`: `--ssl-keyfile` says in which file it is\n"
    )
    message = "Error: `--ssl-keyfile` needs `--ssl-certfile`\n"
    assert told(main, "main:app", "--ssl-keyfile", str(pair.keyfile)) == message


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that everybody gets to."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        os.chmod(made, 0o1777)
        yield Path(made)


@contextlib.contextmanager
def not_root() -> Iterator[int]:
    """Who the test is meanwhile."""
    user = os.getuid() or 65534
    os.seteuid(user)
    try:
        yield user
    finally:
        os.seteuid(os.getuid())


def refused(path: Path) -> str:
    with pytest.raises(StartupError, match=re.escape(f"cannot listen on `{path}`: ")) as error:
        HeldUds(path, 0o600)
    return str(error.value).removeprefix(f"cannot listen on `{path}`: ")


def test_socket_whose_path_is_wrong(open_folder: Path) -> None:
    assert refused(open_folder / "run" / "a.sock") == f"there is no folder `{open_folder}/run`"
    assert refused(open_folder) == "it is a folder\nhint: write the name of a file in it"
    (open_folder / "file").write_text("mine")
    assert refused(open_folder / "file") == "there is a file that is no socket"
    assert refused(open_folder / "file" / "a.sock") == f"`{open_folder}/file` is no folder"
    long = open_folder / ("x" * (107 - len(str(open_folder))))
    assert refused(long) == "the path has 108 bytes, and 107 are the most"
    HeldUds(str(long)[:-1], 0o600).close()


def test_socket_in_a_folder_of_others(open_folder: Path) -> None:
    (open_folder / "in").mkdir(0o500)
    open_folder.chmod(0o500)
    with not_root() as user:
        for place in (open_folder, open_folder / "in"):
            assert refused(place / "a.sock") == (
                f"user {user} may not make files in `{place}`\n"
                "hint: give the folder to the user that runs the server, or choose another one"
            )


@pytest.mark.skipif(os.getuid() != 0, reason="there is one user")
def test_socket_of_others(open_folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(open_folder / "a.sock"))
    with not_root() as user:
        assert refused(open_folder / "a.sock") == f"there is a socket of user 0, which user {user} may not replace"


def test_address_of_another_machine() -> None:
    with pytest.raises(StartupError) as error:
        HeldPort("203.0.113.1", 8000)
    assert str(error.value) == (
        "cannot listen on 203.0.113.1:8000: this machine has no address `203.0.113.1`\n"
        "hint: `0.0.0.0` stands for all that it has"
    )


EVERYBODYS = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


@pytest.mark.skipif(EVERYBODYS < 2, reason="all ports are everybody's here, as in many containers")
def test_port_of_root() -> None:
    with not_root() as user, pytest.raises(StartupError) as error:
        HeldPort("127.0.0.1", 1)
    assert str(error.value) == (
        f"cannot listen on 127.0.0.1:1: user {user} may not take ports below 1024\n"
        "hint: another port; or the capability CAP_NET_BIND_SERVICE, which systemd gives by AmbientCapabilities"
    )
