"""Envoy without aiovoy, as the floor and as a proxy, with the settings that aiovoy has for it.

Whatever costs time in a listener is the same then: what differs is what the module, Python and a second hop cost.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from harness.cases import CASES
from harness.tls import Certificate

ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers": True,
    },
}


def floor(port: int, tls: Certificate | None, directory: Path) -> dict[str, Any]:
    """The configuration of an Envoy that answers by itself, from files that it finds in `directory`."""
    routes = []
    for case in CASES.values():
        if case.direct:
            file = directory / case.name
            file.write_bytes(case.answer)
            kind = {"key": "content-type", "value": "application/json" if case.name == "json" else "text/plain"}
            routes.append(
                {
                    "match": {"path": case.path.partition("?")[0]},
                    "direct_response": {"status": 200, "body": {"filename": str(file)}},
                    "response_headers_to_add": [{"header": kind, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
                }
            )
    config, managers = own(port, tls)
    for manager in managers:
        manager["route_config"] = {
            "max_direct_response_body_size_bytes": 2**21,
            "virtual_hosts": [{"name": "floor", "domains": ["*"], "routes": routes}],
        }
    return config


def proxy(port: int, tls: Certificate | None, address: dict[str, Any]) -> dict[str, Any]:
    """The configuration of an Envoy that passes everything on to `address`, as a proxy does that faces the world."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}
    config, managers = own(port, tls)
    for manager in managers:
        manager["route_config"] = {"virtual_hosts": [{"name": "server", "domains": ["*"], "routes": [route]}]}
        manager["use_remote_address"] = True
        manager["common_http_protocol_options"]["idle_timeout"] = "3600s"  # Envoy's own
        for key in ("xff_num_trusted_hops", "skip_xff_append", "proxy_100_continue"):
            del manager[key]
    config["static_resources"]["clusters"] = [
        {
            "name": "server",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "server",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }
    ]
    return config


def own(port: int, tls: Certificate | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """aiovoy's configuration without the bridge, and in it the connection managers, which have no routes yet."""
    options = ["--host=127.0.0.1", f"--port={port}", "--no-access-log"]
    if tls is not None:
        options += ["--http3", f"--ssl-certfile={tls.certfile}", f"--ssl-keyfile={tls.keyfile}"]
    command = [sys.executable, "-m", "aiovoy", "--print-envoy-config", *options, "nobody:asks"]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    config: dict[str, Any] = yaml.safe_load(printed)
    del config["bootstrap_extensions"], config["admin"]
    managers = []
    for listener in config["static_resources"]["listeners"]:
        (chain,) = listener["filter_chains"]
        # Before it stands what tells the bridge of the connection.
        chain["filters"] = chain["filters"][-1:]
        manager = chain["filters"][0]["typed_config"]
        del manager["access_log"]
        manager["http_filters"] = [ROUTER]
        managers.append(manager)
    return config, managers
