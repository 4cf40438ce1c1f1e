"""Settings: what is refused, and applications that are passed as objects."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aiovoy import Config, ConfigError
from aiovoy.launcher.config import LOG_LEVELS


@pytest.mark.parametrize("app", ["main", "main:", ":app", "main:app:x", "main app", ""])
def test_app_is_module_and_attribute(app: str) -> None:
    with pytest.raises(ConfigError, match="expected an application as `module:attribute`"):
        Config(app)


@pytest.mark.parametrize(
    "setting",
    [
        {"loop": "trio"},
        {"lifespan": "maybe"},
        {"log_level": "loud"},
        {"port": 65536},
        {"port": -1},
        {"timeout_graceful_shutdown": -1},
        {"timeout_keep_alive": 0},
        {"timeout_idle": -1},
        {"timeout_request_headers": -0.5},
        {"ssl_port": 70000},
        {"limit_request_header_bytes": 0},
        {"limit_request_header_count": 0},
        {"limit_request_body": -1},
        {"limit_concurrency": 0},
        {"limit_connections": 0},
        {"http2_max_concurrent_streams": 0},
        {"ws": "wsproto"},
        {"ws_max_size": -1},
        {"env_file": "/nowhere/.env"},
        {"timeout_idle": math.nan},
        {"workers": "many"},
        {"ssl_cert_reqs": 3},
    ],
)
def test_wrong_setting_is_named_with_its_value(setting: dict[str, Any]) -> None:
    (name, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=f"`{name}`.*`{value}`"):
        Config("main:app", **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"port": "8000"}, "expected `port` to be a whole number, got a string"),
        ({"port": "auto"}, "expected `port` to be a whole number, got a string"),
        ({"port": True}, "expected `port` to be a whole number, got a boolean"),
        ({"port": None}, "expected `port` to be a whole number, got `None`"),
        ({"workers": 1.5}, "expected `workers` to be a whole number or auto, got a number"),
        ({"workers": "2"}, "expected `workers` to be a whole number or auto, got the string `2`"),
        ({"timeout_idle": "5"}, "expected `timeout_idle` to be a number, got a string"),
        ({"timeout_keep_alive": None}, "expected `timeout_keep_alive` to be a number, got `None`"),
        ({"uds_permissions": "660"}, "expected `uds_permissions` to be a whole number, got a string"),
        ({"uds_permissions": 0o1000}, "expected `uds_permissions` of 0o777 or less, got `0o1000`"),
        ({"uds": ""}, "expected `uds` to be a path, got an empty string"),
        ({"uds": 1}, "expected `uds` to be a string or a path, got a whole number"),
        ({"ssl_keyfile_password": 1234}, "expected `ssl_keyfile_password` to be a string, got a whole number"),
        ({"access_log": "no"}, "expected `access_log` to be a boolean, got a string"),
        ({"reload": 1}, "expected `reload` to be a boolean, got a whole number"),
        ({"log_level": None}, f"expected `log_level` to be one of {', '.join(LOG_LEVELS)}, got `None`"),
        ({"bind": 8000}, "expected `bind` to be a string or an array of such, got a whole number"),
        ({"bind": [8000]}, "expected `bind` to be a string or an array of such, got an array"),
        ({"reload_dir": b"."}, "expected `reload_dir` to be a string or a path or an array of such, got a `bytes`"),
        ({"mount": ["/api"]}, "expected `mount` to be a table, got an array"),
        ({"mount": {1: "api:app"}}, "expected the prefix of a mount as `/path`, got `1`"),
        (
            {"mount": {"/api": {"app": "api:app", "factory": "true"}}},
            "expected `factory` of the mount `/api` to be a boolean, got a string",
        ),
    ],
)
def test_setting_of_another_type(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config("main:app", **setting)
    assert str(error.value) == message


def test_what_is_not_said_may_be_none() -> None:
    Config("main:app", bind=None, reload_dir=None, ssl_certfile=None, ssl_keyfile=None)


def test_words_to_choose_from_may_be_in_capitals() -> None:
    words: dict[str, Any] = {
        "log_level": "INFO",
        "workers": "AUTO",
        "mount": {"/a": {"app": "a:app", "lifespan": "ON"}},
    }
    config = Config("main:app", **words)
    assert (config.log_level, config.workers, config.mounts["/a"]["lifespan"]) == ("info", "auto", "on")


def test_number_of_processes_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "two")
    with pytest.raises(ConfigError, match=r"expected \$WEB_CONCURRENCY to be a number from 1 to 1000, got `two`"):
        Config("main:app")


def test_working_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="the working directory has been removed\nhint: `cd` to one that is there"):
        Config("main:app")


@pytest.mark.parametrize("prefix", ["", "/", "api", "/api/", "//api"])
def test_prefix_of_a_mount_is_a_path(prefix: str) -> None:
    with pytest.raises(ConfigError, match=f"expected the prefix of a mount as `/path`, got `{prefix}`"):
        Config(mount={prefix: "api:app"})


def test_application_of_a_mount_is_module_and_attribute() -> None:
    message = "expected an application as `module:attribute` for the mount `/api`, got `api`"
    for app in ("api", {"app": "api"}):
        with pytest.raises(ConfigError, match=message):
            Config(mount={"/api": app})


def test_mounts_need_no_other_application() -> None:
    assert Config(mount={"/api": "api:app", "/api/v2": "api:v2"}).app == ""


@pytest.mark.parametrize(
    ("settings", "variable", "trusted"),
    [
        ({}, None, ["127.0.0.1", "::1"]),
        ({}, "10.0.0.0/8, ::1", ["10.0.0.0/8", "::1"]),
        ({"forwarded_allow_ips": "*"}, "10.0.0.0/8", ["*"]),
        ({"forwarded_allow_ips": ["10.1.2.3", "proxy"]}, None, ["10.1.2.3", "proxy"]),
        ({"forwarded_allow_ips": ""}, None, []),
        ({"forwarded_allow_ips": "*", "proxy_headers": False}, None, []),
    ],
)
def test_trusted_proxies(
    settings: dict[str, Any], variable: str | None, trusted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is None:
        monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    else:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", variable)
    assert Config("main:app", **settings).trusted_proxies == trusted


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="wrokers"):
        Config.of("main:app", wrokers=2)


def test_settings_change_a_config() -> None:
    config = Config.of(Config("main:app", port=1), port=2)
    assert (config.app, config.port) == ("main:app", 2)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`shop`, whose application is in `shop.web.main`; `shop.web` has it too."""
    web = tmp_path / "shop" / "web"
    web.mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    (web / "__init__.py").write_text("from .main import app\n")
    (web / "main.py").write_text("class App:\n    def __call__(self): pass\napp = App()\ndef function(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import shop.web.main  # type: ignore[import-not-found]

    yield shop.web.main
    for name in ["shop", "shop.web", "shop.web.main"]:
        del sys.modules[name]


def test_app_object_is_named_by_its_module(package: ModuleType, tmp_path: Path) -> None:
    config = Config.of(package.app)
    assert (config.app, config.app_dir) == ("shop.web.main:app", str(tmp_path))


def test_function_is_named_by_its_module(package: ModuleType, tmp_path: Path) -> None:
    config = Config.of(package.function)
    assert (config.app, config.app_dir) == ("shop.web.main:function", str(tmp_path))


def test_app_object_of_a_package(package: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = lambda: None  # noqa: E731
    monkeypatch.setattr(sys.modules["shop"], "app", app, raising=False)
    config = Config.of(app)
    assert (config.app, config.app_dir) == ("shop:app", str(tmp_path))


def test_app_dir_may_be_chosen(package: ModuleType) -> None:
    assert Config.of(package.app, app_dir="/srv").app_dir == "/srv"


def test_app_object_of_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "serve_it.py")
    app = lambda: None  # noqa: E731
    vars(script)["app"] = app
    monkeypatch.setitem(sys.modules, "__main__", script)
    config = Config.of(app)
    assert (config.app, config.app_dir) == ("serve_it:app", str(tmp_path))


def test_script_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "serve-it.py")
    app = lambda: None  # noqa: E731
    vars(script)["app"] = app
    monkeypatch.setitem(sys.modules, "__main__", script)
    with pytest.raises(ConfigError, match=r"`serve-it\.py` cannot be imported"):
        Config.of(app)


def test_app_object_without_a_name() -> None:
    with pytest.raises(ConfigError, match="hint: pass it as `module:attribute`"):
        Config.of(lambda: None)


def test_app_object_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"got an object of type `NoneType`, .*\nhint: .* its `return`"):
        Config.of(None)
    with pytest.raises(ConfigError, match=r"got an object of type `module`, which can't be called$"):
        Config.of(sys)


def test_several_may_be_a_set() -> None:
    trusted: Any = {"10.0.0.1", "10.0.0.2"}
    assert Config("main:app", forwarded_allow_ips=trusted).forwarded_allow_ips == trusted


def test_config_may_have_more() -> None:
    """Whose types are for others to check, and may be written in any way."""

    @dataclass(frozen=True)
    class Own(Config):
        team: "str" = "a"

    assert Own("main:app", team="b").team == "b"
