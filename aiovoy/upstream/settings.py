"""What a server without Envoy is told."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..launcher.config import Config, LogForm, LogLevel


@dataclass(frozen=True, slots=True)
class Settings:
    """All that it is told; of what JSON has."""

    bridge: dict[str, Any]
    """What the bridge is told, in Envoy or not."""
    network: dict[str, Any]
    """What is told to Envoy elsewhere."""
    log_level: "LogLevel"
    app_dir: str
    """Where its modules are."""

    @classmethod
    def of(cls, config: "Config", log_form: "LogForm | None" = None, access_log: Path | None = None) -> "Settings":
        """`access_log` is the file for that, if it is not to be standard output."""
        from ..launcher.bootstrap import bridge_settings, most_connections  # workers do without it

        log = {"form": config.access_format, "file": None if access_log is None else str(access_log)}
        network = {
            "timeout_request_headers": config.timeout_request_headers,
            "timeout_keep_alive": config.timeout_keep_alive,
            "http2_max_concurrent_streams": config.http2_max_concurrent_streams,
            "websockets": config.ws == "auto",
            "limit_connections": config.limit_connections or most_connections(),
            "request_id": config.request_id,
            "access_log": log if config.access_log else None,
        }
        bridge = {**bridge_settings(config), "log_form": log_form or ("colored" if config.use_colors else "text")}
        return cls(bridge, network, config.log_level, bridge.get("app_dir") or os.getcwd())
