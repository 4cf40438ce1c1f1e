"""Settings: what is refused, and applications that are passed as objects."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aiovoy import Config, ConfigError


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
        {"env_file": "/nowhere/.env"},
    ],
)
def test_wrong_setting_is_named_with_its_value(setting: dict[str, Any]) -> None:
    (name, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=f"`{name}`.*`{value}`"):
        Config("main:app", **setting)


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
    (web / "main.py").write_text("class App: pass\napp = App()\ndef function(): pass\n")
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
    app = object()
    monkeypatch.setattr(sys.modules["shop"], "app", app, raising=False)
    config = Config.of(app)
    assert (config.app, config.app_dir) == ("shop:app", str(tmp_path))


def test_app_dir_may_be_chosen(package: ModuleType) -> None:
    assert Config.of(package.app, app_dir="/srv").app_dir == "/srv"


def test_app_object_of_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "serve_it.py")
    app = object()
    vars(script)["app"] = app
    monkeypatch.setitem(sys.modules, "__main__", script)
    config = Config.of(app)
    assert (config.app, config.app_dir) == ("serve_it:app", str(tmp_path))


def test_script_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "serve-it.py")
    app = object()
    vars(script)["app"] = app
    monkeypatch.setitem(sys.modules, "__main__", script)
    with pytest.raises(ConfigError, match=r"`serve-it\.py` cannot be imported"):
        Config.of(app)


def test_app_object_without_a_name() -> None:
    with pytest.raises(ConfigError, match="hint: pass it as `module:attribute`"):
        Config.of(object())
