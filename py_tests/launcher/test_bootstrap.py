"""The generated bootstrap, and the environment and arguments that Envoy gets with it."""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from aiovoy import Config, StartupError
from aiovoy.launcher.addresses import Address, authority
from aiovoy.launcher.binary import envoy_binary
from aiovoy.launcher.bootstrap import bootstrap
from aiovoy.launcher.environ import bridge_path, libpython_path
from aiovoy.launcher.port import resolve
from aiovoy.launcher.workers.envoy import envoy_arguments, envoy_environ


def make(app_: str = "main:app", *, host: str = "127.0.0.1", port: int = 8000, **settings: Any) -> str:
    config = Config(app_, **settings)
    addresses = [Address(host, port, tls=bool(config.certificates))]
    return bootstrap(config, addresses=addresses, admin=Path("admin.sock"), python=sys.executable)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"host": "::1", "access_log": True},
        {
            "factory": True,
            "app_dir": "examples",
            "root_path": '/a "quoted"\n: #path\\',
            "loop": "asyncio",
            "lifespan": "off",
            "timeout_graceful_shutdown": 0.5,
            "timeout_keep_alive": 0.25,
            "timeout_idle": 0,
            "proxy_protocol": True,
            "request_id": True,
            "access_log": True,
            "access_log_format": "json",
            "limit_connections": 5,
        },
        {"access_log": True, "access_log_format": '%PROTOCOL% "quoted"'},
        {"uds": "/run/shop.sock", "uds_permissions": 0o600},
    ],
    ids=["defaults", "access log", "everything", "access log format", "uds"],
)
def test_envoy_accepts_it(settings: dict[str, Any], tmp_path: Path) -> None:
    config = Config("main:app")
    file = tmp_path / "bootstrap.yaml"
    file.write_text(make(**settings))
    command = [str(envoy_binary()), *envoy_arguments(config, file, "text"), "--mode", "validate"]
    environ = envoy_environ(config, tmp_path / "control.sock", 1)
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if "[warning]" in line]
    assert [line for line in warnings if "work-in-progress" not in line] == []  # fields that are new


def test_unset_settings_are_left_out() -> None:
    settings = make().partition("value:\n")[2].partition("static_resources")[0]
    assert [line.split(":")[0].strip() for line in settings.splitlines() if line] == [
        *("app", "forwarded_allow_ips", "limit_request_header_bytes", "limit_request_header_count"),
        *("timeout_idle", "python", "log_refusals", "admin"),
    ]


def test_app_dir_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert f'app_dir: "{tmp_path}/src"' in make(app_dir="src")


def test_values_are_quoted() -> None:
    assert r'root_path: "/\"a\"\n: #"' in make(root_path='/"a"\n: #')


def test_values_that_are_no_text_are_refused() -> None:
    with pytest.raises(StartupError, match=r"expected a setting in UTF-8, got "):
        make(app_dir="/srv/\udcff")


@pytest.mark.parametrize(("log_level", "told"), [("warning", False), ("info", True), ("debug", True)])
def test_refusals_are_logged_from_level_info_on(log_level: str, told: bool) -> None:
    assert ("StderrAccessLog" in make(log_level=log_level)) == told


def test_route_is_one_that_filters_understand() -> None:
    assert "route: {cluster: nobody}" in make()
    assert "- {name: nobody, type: STATIC}" in make()


def test_access_log_only_if_wanted() -> None:
    assert "StdoutAccessLog" not in make()
    assert "StdoutAccessLog" in make(access_log=True)


@pytest.mark.parametrize(("seconds", "text"), [(5, "5s"), (0.25, "0.25s"), (1e-9, "0.001s"), (86400, "86400s")])
def test_durations(seconds: float, text: str) -> None:
    assert f" idle_timeout: {text}\n" in make(timeout_keep_alive=seconds)


@pytest.mark.parametrize(("seconds", "text"), [(1, "1"), (1.0, "1"), (0.5, "0.5")])
def test_whole_numbers_stay_numbers(seconds: float, text: str) -> None:
    assert f"timeout_graceful_shutdown: {text}\n" in make(timeout_graceful_shutdown=seconds)


@pytest.mark.parametrize(
    ("log_level", "levels"),
    [
        ("critical", ["critical", "dynamic_modules:critical,main:off,misc:error"]),
        ("info", ["warning", "dynamic_modules:warning,main:off,misc:error"]),
        ("trace", ["warning", "dynamic_modules:trace,main:off,misc:error"]),
    ],
)
def test_log_levels(log_level: Any, levels: list[str]) -> None:
    arguments = envoy_arguments(Config("main:app", log_level=log_level), Path("bootstrap.yaml"), "text")
    assert arguments[arguments.index("--log-level") + 1] == levels[0]
    assert arguments[arguments.index("--component-log-level") + 1] == levels[1]


def test_bridge_is_named_as_it_is_built() -> None:
    assert bridge_path().name == f"bridge{sysconfig.get_config_var('EXT_SUFFIX')}"


def test_library_path_is_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    environ = envoy_environ(Config("main:app"), Path("control.sock"), 1)
    assert environ["LD_LIBRARY_PATH"] == f"{libpython_path().parent}:/opt/lib"
    assert environ["AIOVOY_LD_LIBRARY_PATH"] == "/opt/lib"


def test_library_path_that_was_unset_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setenv("AIOVOY_LD_LIBRARY_PATH", "/left/by/a/server/around/us")
    environ = envoy_environ(Config("main:app"), Path("control.sock"), 1)
    assert environ["LD_LIBRARY_PATH"] == str(libpython_path().parent)
    assert "AIOVOY_LD_LIBRARY_PATH" not in environ


def test_env_file_does_not_override(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("SHOP_DB=file\nSHOP_KEY='a b'\n")
    monkeypatch.setenv("SHOP_DB", "environment")
    environ = envoy_environ(Config("main:app", env_file=env_file), Path("control.sock"), 1)
    assert (environ["SHOP_DB"], environ["SHOP_KEY"]) == ("environment", "a b")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_env_file_that_is_no_text(tmp_path: Path, encoding: str) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes("SHOP_DB=file\n".encode(encoding))
    with pytest.raises(StartupError, match=f"cannot read `env_file` `{env_file}`: it is not in UTF-8"):
        envoy_environ(Config("main:app", env_file=env_file), Path("control.sock"), 1)


def interpreter(folder: Path, **config_vars: str) -> dict[str, object]:
    return {"LDVERSION": "3.11", "py_version_short": "3.11", "LIBDIR": str(folder), **config_vars}


def test_libpython_of_a_shared_build(tmp_path: Path) -> None:
    library = tmp_path / "libpython3.11.so.1.0"
    library.touch()
    assert libpython_path(interpreter(tmp_path, INSTSONAME=library.name), "/nowhere") == library


def test_libpython_of_a_relocated_build(tmp_path: Path) -> None:
    library = tmp_path / "lib" / "libpython3.11.so.1.0"
    library.parent.mkdir()
    library.touch()
    assert libpython_path(interpreter(Path("/install/lib"), INSTSONAME=library.name), str(tmp_path)) == library


def test_libpython_beside_a_static_build(tmp_path: Path) -> None:
    library = tmp_path / "libpython3.11.so.1.0"
    library.touch()
    assert libpython_path(interpreter(tmp_path, INSTSONAME="libpython3.11.a"), "/nowhere") == library


def test_libpython_missing(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"(?s)no shared libpython.*apt install libpython3\.11.*--enable-shared"):
        libpython_path(interpreter(tmp_path, INSTSONAME="libpython3.11.a"), "/nowhere")


def test_addresses_in_urls() -> None:
    assert authority("127.0.0.1", 80) == "127.0.0.1:80"
    assert authority("::1", 80) == "[::1]:80"
    assert resolve("localhost") == "127.0.0.1"
