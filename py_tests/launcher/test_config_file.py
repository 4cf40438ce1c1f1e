"""The file of settings: which one counts, what may stand in it, and what wins."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from aiovoy import Config
from aiovoy.launcher.cli import complete, main
from aiovoy.upstream.cli import REFUSED
from aiovoy.upstream.cli import main as upstream
from py_tests.harness.certificates import Pair
from py_tests.harness.folders import ROOT
from py_tests.harness.serving import AIOVOY, Server

COMMANDS = pytest.mark.parametrize("command", [main, upstream], ids=["aiovoy", "upstream"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(*arguments: str, command: click.Command = main) -> Config:
    with command.make_context("aiovoy", list(arguments)) as context:
        settings = {name: value for name, value in context.params.items() if "print" not in name}
        return Config(**complete(settings))


def port_of(*arguments: str) -> int:
    return config_of("main:app", *arguments).port


# Which file


def test_one_in_the_working_directory_is_read(folder: Path) -> None:
    assert port_of() == 8000
    (folder / "pyproject.toml").write_text('[project]\nname = "shop"\n[tool.aiovoy]\nport = 81\n')
    assert port_of() == 81
    (folder / "aiovoy.toml").write_text("port = 82\n")
    assert port_of() == 82
    assert Config("main:app").port == 8000
    (folder / "other.toml").write_text("port = 83\n")
    assert port_of("--config", "other.toml") == 83
    assert port_of("--config", "pyproject.toml") == 81
    assert port_of("--config", os.devnull) == 8000


def test_one_that_a_variable_names_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "aiovoy.toml").write_text("port = 82\n")
    (folder / "other.toml").write_text("port = 83\n")
    monkeypatch.setenv("AIOVOY_CONFIG", str(folder / "other.toml"))
    assert port_of() == 83
    assert port_of("--config", "aiovoy.toml") == 82


def test_one_in_the_folder_of_the_application_is_not_read(folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "aiovoy.toml").write_text("port = 82\n")
    assert port_of("--app-dir", "shop") == 8000


@pytest.mark.parametrize("text", ["[project\n", "tool = 3 # aiovoy\n", "[tool.aio]\n", '[project]\nname = "aiovoy"\n'])
def test_project_without_settings(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    assert port_of() == 8000


def test_project_that_cannot_be_read(folder: Path) -> None:
    (folder / "pyproject.toml").mkdir()  # of a file, root can read all
    assert port_of() == 8000


def test_who_has_none_does_not_pay_for_it(folder: Path) -> None:
    (folder / "pyproject.toml").touch()
    script = (
        "import sys; from aiovoy.launcher.cli import main\n"
        "main(['main:app', '--print-envoy-config'], standalone_mode=False)\n"
        "assert 'tomllib' not in sys.modules, 'imported'\n"
    )
    for text, code in [("[project]\n", 0), ("[tool.aiovoy]\n", 1)]:
        (folder / "pyproject.toml").write_text(text)
        done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
        assert done.returncode == code, done.stderr


# What may stand there

VALUES: dict[str, Any] = {
    "log_config": __file__,
    "use_colors": True,
    "app": "shop:app",
    "mount": {"/api": "api:app", "/old": {"app": "old:make", "factory": True, "lifespan": "off", "root_path": "/v1"}},
    "factory": True,
    "app_dir": ".",
    "root_path": "/shop",
    "workers": 3,
    "limit_max_requests": 1000,
    "limit_max_rss": 2**33,
    "worker_lifetime": 3600.5,
    "replace_first": "old",
    "timeout_worker_healthcheck": 0,
    "reload": True,
    "reload_dir": ["."],
    "reload_include": ["*.html", "*.css"],
    "reload_exclude": ["build"],
    "loop": "asyncio",
    "lifespan": "on",
    "response_path": "router",
    "router_max_requests": 10,
    "router_max_pending_requests": 20,
    "router_timeout": 1.5,
    "router_retries": 2,
    "ws": "none",
    "ws_max_size": 1,
    "ws_max_queue": 2,
    "ws_ping_interval": 3,
    "ws_ping_timeout": 4.5,
    "ws_per_message_deflate": False,
    "host": "::1",
    "port": 81,
    "bind": ["127.0.0.1:82", "[::1]:82"],
    "uds_permissions": "660",
    "ssl_certfile": ["server.pem"],
    "ssl_keyfile": ["server.key"],
    "ssl_ca_certs": "server.pem",
    "ssl_cert_reqs": "optional",
    "ssl_port": 443,
    "http3": True,
    "proxy_protocol": True,
    "proxy_headers": False,
    "forwarded_allow_ips": ["10.0.0.0/8", "::1"],
    "limit_request_header_bytes": 5,
    "limit_request_header_count": 6,
    "limit_request_body": 7,
    "limit_concurrency": 8,
    "limit_connections": 9,
    "http2_max_concurrent_streams": 10,
    "timeout_request_headers": 11,
    "timeout_idle": 12,
    "timeout_keep_alive": 13,
    "timeout_graceful_shutdown": 14,
    "log_level": "debug",
    "access_log": True,
    "access_log_format": "json",
    "request_id": True,
    "env_file": "env",
    "envoy": "envoy-1.40",
}

OTHERS: dict[str, Any] = {
    "uds": "aiovoy.sock",
    "fd": 3,
    "ssl_keyfile_password": "secret",
    "workers": "auto",
    "ssl_cert_reqs": 0,
    "bind": "127.0.0.1:82",
    "forwarded_allow_ips": "*",
}
"""What cannot stand beside the others, or may look otherwise."""

CONVERTED = {"uds_permissions": 0o660, "forwarded_allow_ips": "10.0.0.0/8,::1", "ssl_cert_reqs": 0}


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize("dash", ["_", "-"])
def test_each_setting_may_stand_there(folder: Path, dash: str) -> None:
    Pair(folder)
    (folder / "env").touch()
    assert {*VALUES, *OTHERS} == {field.name for field in fields(Config) if field.init}
    lines = [f"{name.replace('_', dash)} = {toml(value)}\n" for name, value in VALUES.items()]
    (folder / "aiovoy.toml").write_text("".join(lines))
    config = config_of()
    for name, value in VALUES.items():
        seen = getattr(config, name)
        assert (list(seen) if isinstance(seen, tuple) else seen) == {**CONVERTED, "ssl_cert_reqs": value}.get(
            name, value
        )


@pytest.mark.parametrize(("name", "value"), OTHERS.items())
def test_setting_that_stands_alone(folder: Path, name: str, value: Any) -> None:
    (folder / "aiovoy.toml").write_text(f"app = 'main:app'\n{name} = {toml(value)}\n")
    seen = getattr(config_of(), name)
    assert seen in (value, str(value), (value,))


def test_file_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    (folder / "aiovoy.toml").write_text("port = 82\n", "utf-8-sig")
    assert port_of() == 82


def test_settings_of_a_mount_may_have_dashes(folder: Path) -> None:
    (folder / "aiovoy.toml").write_text('[mount."/api"]\napp = "api:app"\nroot-path = "/v2"\n')
    assert config_of().mount == {"/api": {"app": "api:app", "root_path": "/v2"}}


@pytest.mark.parametrize("name", sorted({*REFUSED} & {*VALUES}))
def test_setting_that_is_not_for_upstream(folder: Path, name: str) -> None:
    Pair(folder)
    (folder / "aiovoy.toml").write_text(f"{name} = {toml(VALUES[name])}\n")
    result = CliRunner().invoke(upstream, ["main:app"])
    assert result.exit_code == 2
    assert f"Error: `{name}` in `aiovoy.toml` is not for `aiovoy upstream`: {REFUSED[name]}\n" in result.output


# What wins


@COMMANDS
def test_options_and_variables_win(folder: Path, monkeypatch: pytest.MonkeyPatch, command: click.Command) -> None:
    (folder / "aiovoy.toml").write_text(
        'app = "file:app"\naccess_log = true\nport = 1\nlimit_concurrency = 1\nroot_path = "/file"\n'
        'reload_dir = ["/"]\n[mount]\n"/file" = "file:app"\n'
    )
    monkeypatch.setenv("AIOVOY_PORT", "2")
    monkeypatch.setenv("AIOVOY_LIMIT_CONCURRENCY", "2")
    monkeypatch.setenv("AIOVOY_RELOAD_DIR", str(folder))
    config = config_of("--port", "3", "--no-access-log", "--mount", "/a=a:app", command=command)
    assert (config.app, config.root_path, config.limit_concurrency, config.port) == ("file:app", "/file", 2, 3)
    assert config.reload_dir == (str(folder),)
    assert config.mount == {"/a": "a:app"}
    assert not config.access_log
    assert config_of("b:app", command=command).app == "b:app"


@COMMANDS
@pytest.mark.parametrize("name", [name for name, value in VALUES.items() if value is True and name not in REFUSED])
def test_switch_can_be_turned_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: click.Command, name: str
) -> None:
    (folder / "aiovoy.toml").write_text(f'app = "main:app"\n{name} = true\n')
    option = f"--no-{name.replace('_', '-')}"
    assert getattr(config_of(command=command), name) is True
    assert getattr(config_of(option, command=command), name) is False
    monkeypatch.setenv(f"AIOVOY_{name.upper()}", "1")
    assert getattr(config_of(option, command=command), name) is False


@pytest.mark.parametrize("name", ["http3", "proxy_protocol"])
def test_switch_that_needs_envoy_can_be_turned_off(folder: Path, name: str) -> None:
    (folder / "aiovoy.toml").write_text(f'app = "main:app"\n{name} = true\n')
    option = f"--no-{name.replace('_', '-')}"
    assert getattr(config_of(option), name) is False
    assert getattr(config_of(option, command=upstream), name) is False


@pytest.mark.parametrize("there", ['uds = "a.sock"', "fd = 3", 'bind = ["127.0.0.1:1"]'])
@pytest.mark.parametrize("here", ["--port=9", "--host=::1", "--uds=b.sock", "--fd=4", "--bind=127.0.0.1:2"])
def test_address_takes_the_place_of_that_in_the_file(folder: Path, there: str, here: str) -> None:
    (folder / "aiovoy.toml").write_text(f'app = "main:app"\nhost = "127.0.0.2"\n{there}\n')
    plain = config_of("--config", os.devnull, "main:app", "--host=127.0.0.2", here)
    assert config_of(here).places == plain.places
    assert config_of().places != plain.places


# Served

APP = """
async def app(scope, receive, send):
    body = scope["root_path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("words", [[], ["upstream"]], ids=["aiovoy", "upstream"])
async def test_command_alone_serves_what_the_file_says(folder: Path, words: list[str]) -> None:
    (folder / "main.py").write_text(APP)
    (folder / "pyproject.toml").write_text('[tool.aiovoy]\napp = "main:app"\nport = 0\nroot-path = "/from/file"\n')
    server = Server([sys.executable, "-m", "aiovoy", *words], AIOVOY, folder, {"PYTHONPATH": str(ROOT)})
    try:
        server.wait_until_started()
        assert (await server.get("/")).body == b"/from/file"
    finally:
        server.stop()


def test_process_that_is_told_of_the_file(folder: Path) -> None:
    def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
        words = [sys.executable, "-m", "aiovoy", "--print-envoy-config", *arguments]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
        done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True)
        return done.returncode, "".join(re.findall(r"port_value: (\d+)", done.stdout)), done.stderr

    (folder / "aiovoy.toml").write_text('app = "main:app"\nport = 81\n')
    assert run() == (0, "81", "")
    assert run(AIOVOY_PORT="82") == (0, "82", "")
    assert run("--port=83", AIOVOY_PORT="82") == (0, "83", "")
    (folder / "aiovoy.toml").write_text('app = "main:app"\nprot = 81\n')
    code, _, error = run()
    assert (code, error.splitlines()[-1]) == (
        2,
        "Error: `aiovoy.toml`: no setting is called `prot`; did you mean `port`?",
    )


def test_documented_files_are_right(folder: Path) -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    files = re.findall(r"^```toml\n(# \w+\.toml\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(files) == 2
    for text in files:
        name = text.partition("\n")[0].removeprefix("# ")
        (folder / name).write_text(text)
        assert config_of("--config", name).app == "shop.main:app"
