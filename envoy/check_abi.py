#!/usr/bin/env python3
"""Hold a module, and the SDK's declarations, against an Envoy binary.

Proves that
- Envoy exports every callback that the SDK declares and the module calls,
- the module defines every hook that Envoy demands, and none that Envoy does not know,
- Envoy knows the ABI version that the module answers,
- Envoy loads the module as HTTP filter and as bootstrap extension, and its per-route configuration
  is refused with a reason,
- Envoy accepts each configuration given with --validate.

Needs pyelftools. Exits with 1 and says what is wrong if any of it fails.
"""

import argparse
import json
import mmap
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

CALLBACK = "envoy_dynamic_module_callback_"
HOOK = "envoy_dynamic_module_on_"

PROGRAM_INIT = {"program_init"}

HTTP_HOOKS = {
    "http_filter_config_new",
    "http_filter_config_destroy",
    "http_filter_new",
    "http_filter_destroy",
    "http_filter_request_headers",
    "http_filter_request_body",
    "http_filter_request_trailers",
    "http_filter_response_headers",
    "http_filter_response_body",
    "http_filter_response_trailers",
    "http_filter_stream_complete",
    "http_filter_scheduled",
    "http_filter_downstream_above_write_buffer_high_watermark",
    "http_filter_downstream_below_write_buffer_low_watermark",
    "http_filter_http_callout_done",
    "http_filter_http_stream_headers",
    "http_filter_http_stream_data",
    "http_filter_http_stream_trailers",
    "http_filter_http_stream_complete",
    "http_filter_http_stream_reset",
}

BOOTSTRAP_HOOKS = {
    "bootstrap_extension_config_new",
    "bootstrap_extension_config_destroy",
    "bootstrap_extension_new",
    "bootstrap_extension_destroy",
    "bootstrap_extension_worker_thread_initialized",
    "bootstrap_extension_server_initialized",
    "bootstrap_extension_drain_started",
    "bootstrap_extension_shutdown",
    "bootstrap_extension_config_scheduled",
    "bootstrap_extension_timer_fired",
    "bootstrap_extension_file_changed",
    "bootstrap_extension_admin_request",
    "bootstrap_extension_http_callout_done",
    "bootstrap_extension_cluster_add_or_update",
    "bootstrap_extension_cluster_removal",
    "bootstrap_extension_listener_add_or_update",
    "bootstrap_extension_listener_removal",
}

# Optional for Envoy, but without them a per-route configuration fails with no more than a symbol's
# name, and the module hears of no local reply.
OPTIONAL_HOOKS = {
    "http_filter_local_reply",
    "http_filter_per_route_config_new",
    "http_filter_per_route_config_destroy",
}

SYS = Path(__file__).parent / "src" / "sys"


def main() -> int:
    parser = argparse.ArgumentParser(description="Hold a module against an Envoy binary.")
    parser.add_argument("--module", type=Path, required=True, help="the module, a shared library")
    parser.add_argument("--envoy", type=Path, required=True, help="the Envoy binary")
    parser.add_argument(
        "--validate",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="CONFIG",
        help="configurations that Envoy must accept",
    )
    arguments = parser.parse_args()
    for path in (arguments.module, arguments.envoy, *arguments.validate):
        if not path.is_file():
            parser.error(f"there is no file `{path}`")

    try:
        version = run(arguments.envoy, "--version").stdout.strip().rpartition(" ")[2]
        problems = list(symbols(arguments.module, arguments.envoy))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Envoy would only repeat in other words what is wrong with the symbols.
    if not problems:
        problems = [
            *loading(arguments.module, arguments.envoy),
            *(problem for config in arguments.validate for problem in accepted(arguments.envoy, config)),
        ]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    verdict = f"{len(problems)} wrong" if problems else "all well"
    print(f"`{arguments.module}` with Envoy {version}: {verdict}")
    return 1 if problems else 0


def symbols(module: Path, envoy: Path) -> Iterator[str]:
    """What is wrong with the names that cross the border."""
    defined, called = dynamic_symbols(module)
    exported, _ = dynamic_symbols(envoy)
    known = hooks_known(envoy)

    declared = declared_callbacks()
    for name in sorted(declared - exported):
        yield f"`{SYS / 'callbacks.rs'}` declares `{name}`, which Envoy does not export"
    called = {name for name in called if name.startswith(CALLBACK)}
    for name in sorted(called - exported - declared):
        yield f"the module calls `{name}`, which Envoy does not export"
    for name in sorted(called - declared):
        yield f"the module calls `{name}`, which `{SYS / 'callbacks.rs'}` does not declare"
    if any(name.startswith(CALLBACK) for name in defined):
        yield "the module defines Envoy's callbacks itself: it was built with the feature `fake`"

    hooks = {name.removeprefix(HOOK) for name in defined if name.startswith(HOOK)}
    for name in sorted(PROGRAM_INIT | HTTP_HOOKS | BOOTSTRAP_HOOKS | OPTIONAL_HOOKS):
        if name not in hooks:
            yield f"the module does not define the hook `{HOOK}{name}`"
    for name in sorted(hooks - known):
        yield f"the module defines the hook `{HOOK}{name}`, which Envoy does not know"

    version = abi_version()
    if not contains(envoy, rb"\0" + re.escape(version) + rb"\0"):
        yield f"Envoy does not know the ABI version `{version.decode()}` of `{SYS / 'mod.rs'}`"


def dynamic_symbols(path: Path) -> tuple[set[str], set[str]]:
    """The names that an ELF file offers to others, and those it wants of them."""
    with path.open("rb") as file:
        try:
            table = ELFFile(file).get_section_by_name(".dynsym")
        except ELFError as error:
            raise OSError(f"`{path}` is no ELF file: {error}") from error
        if not isinstance(table, SymbolTableSection):
            raise OSError(f"`{path}` has no dynamic symbols")
        entries = [(symbol.name, symbol["st_shndx"] == "SHN_UNDEF") for symbol in table.iter_symbols()]
    defined = {name for name, undefined in entries if not undefined}
    return defined, {name for name, undefined in entries if undefined}


def declared_callbacks() -> set[str]:
    source = (SYS / "callbacks.rs").read_text()
    return set(re.findall(r'link_name = "(\w+)"', source))


def abi_version() -> bytes:
    found = re.search(r'ABI_VERSION: .* = c"([^"]+)"', (SYS / "mod.rs").read_text())
    if found is None:
        raise OSError(f"`{SYS / 'mod.rs'}` has no `ABI_VERSION`")
    return found[1].encode()


def hooks_known(envoy: Path) -> set[str]:
    """The hooks that Envoy looks up, which it has by their names."""
    with envoy.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        # Alone, since Envoy carries modules of its own, whose hooks have a prefix.
        names = re.findall(rb"(?<![A-Za-z0-9_])" + HOOK.encode() + rb"(\w+)", image)
    return {name.decode() for name in names}


def contains(path: Path, pattern: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        return re.search(pattern, image) is not None


def loading(module: Path, envoy: Path) -> Iterator[str]:
    """What is wrong when Envoy loads the module.

    What a module makes of a configuration without content is its own affair, so its refusal proves
    as much as its consent: Envoy had found every hook by then.
    """
    refusal = "refused its configuration"
    not_supported = "per-route configuration is not supported"
    tries = [
        ("as HTTP filter", {"static_resources": listener(module, per_route=False)}, refusal, True),
        ("as bootstrap extension", {"bootstrap_extensions": [extension(module)]}, refusal, True),
        ("with per-route configuration", {"static_resources": listener(module, per_route=True)}, not_supported, False),
    ]
    for what, config, said, may_pass in tries:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(config, file)
            file.flush()
            result = run(envoy, "--mode", "validate", "-c", file.name)
        if said not in result.stderr and not (may_pass and result.returncode == 0):
            yield f"Envoy does not take the module {what}:\n{errors(result)}"


def accepted(envoy: Path, config: Path) -> Iterator[str]:
    result = run(envoy, "--mode", "validate", "-c", str(config))
    if result.returncode != 0:
        yield f"Envoy does not accept `{config}`:\n{errors(result)}"


def run(envoy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(envoy), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"`{' '.join(command)}` did not come to an end") from error


def errors(result: subprocess.CompletedProcess[str]) -> str:
    """What Envoy said at level error or critical; all of it if that is nothing."""
    lines = result.stderr.splitlines()
    grave = [line for line in lines if re.search(r"\]\[(error|critical)\]", line)]
    said = "\n".join(f"  {line}" for line in grave or lines) or "  (it said nothing)"
    hint = ""
    if "cannot open shared object file" in said:
        hint = "\n  a library that the module links is not found; does LD_LIBRARY_PATH have its directory?"
    return said + hint


def type_url(name: str) -> dict[str, str]:
    return {"@type": f"type.googleapis.com/envoy.extensions.{name}"}


def module_config(module: Path) -> dict[str, Any]:
    return {"module": {"local": {"filename": str(module.resolve())}}, "do_not_close": True, "load_globally": True}


def extension(module: Path) -> dict[str, Any]:
    return {
        "name": "envoy.bootstrap.dynamic_modules",
        "typed_config": {
            **type_url("bootstrap.dynamic_modules.v3.DynamicModuleBootstrapExtension"),
            "dynamic_module_config": module_config(module),
            "extension_name": "check_abi",
        },
    }


def listener(module: Path, *, per_route: bool) -> dict[str, Any]:
    http_filter = {
        "name": "check_abi",
        "typed_config": {
            **type_url("filters.http.dynamic_modules.v3.DynamicModuleFilter"),
            "dynamic_module_config": module_config(module),
            "filter_name": "check_abi",
            "terminal_filter": True,
        },
    }
    route: dict[str, Any] = {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
    if per_route:
        route["typed_per_filter_config"] = {
            "check_abi": {
                **type_url("filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute"),
                "dynamic_module_config": module_config(module),
                "filter_name": "check_abi",
            }
        }
    manager = {
        **type_url("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "check_abi",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [http_filter],
    }
    return {
        "listeners": [
            {
                "name": "check_abi",
                # Not bound: Envoy only validates.
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }
        ]
    }


if __name__ == "__main__":
    sys.exit(main())
