"""What the server is told."""

from typing import Any

from ..launcher.bootstrap import bridge_settings, most_connections
from ..launcher.config import Config


def settings(config: Config) -> dict[str, Any]:
    """What the bridge is told, in Envoy or not."""
    return bridge_settings(config)


def network_settings(config: Config) -> dict[str, Any]:
    """What is told to Envoy elsewhere."""
    return {
        "timeout_request_headers": config.timeout_request_headers,
        "timeout_keep_alive": config.timeout_keep_alive,
        "http2_max_concurrent_streams": config.http2_max_concurrent_streams,
        "websockets": config.ws == "auto",
        "limit_connections": config.limit_connections or most_connections(),
    }
