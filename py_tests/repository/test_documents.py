"""What the documents say: the files they name, the options of commands, the tables of settings."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from aiovoy.launcher.addresses import Address
from aiovoy.launcher.binary import envoy_binary
from aiovoy.launcher.bootstrap import bootstrap
from aiovoy.launcher.cli import main
from aiovoy.launcher.config import Config
from aiovoy.launcher.elsewhere import ABSENT, RENAMED
from aiovoy.launcher.lanes import Lane
from aiovoy.launcher.workers.envoy import envoy_environ
from py_tests.harness.certificates import Pair
from py_tests.harness.documents import BLOCK, BLOCKS, DOCUMENTS, words
from py_tests.harness.folders import ROOT
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command of each shell block, and those of ours in the text, in words."""
    for block in BLOCKS:
        for command in block.commands:
            yield block.document, words(command)
    for name, text in DOCUMENTS.items():
        for command in re.findall(r"`((?:\w+=\S+ )*(?:make|aiovoy)\s[^`]+)`", BLOCK.sub("", text)):
            yield name, words(command)


# --- Links ---


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> list[tuple[str, str]]:
    found = [(name, link) for name, text in DOCUMENTS.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    return [(name, link) for name, link in found if "://" not in link]


@pytest.mark.parametrize(("document", "link"), links())
def test_link_leads_somewhere(document: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    assert target.exists()
    if anchor:
        assert anchor in anchors(target.read_text())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_file_is_there(name: str) -> None:
    """Paths in backticks that begin with one of our folders, or with one beside the document; some are made."""
    made = (ROOT / ".gitignore").read_text().splitlines()
    folders = "aiovoy|bench|docs|envoy|examples|py_tests|src|upstream|wheels"
    for path in re.findall(rf"`((?:{folders})/[\w/.\-]*)`", DOCUMENTS[name]):
        there = [folder / path for folder in [ROOT, (ROOT / name).parent]]
        assert any(one.exists() for one in there) or f"/{path}/" in made, path


# --- Commands ---


def test_there_are_commands() -> None:
    assert {"make", "curl", "pip", ".venv/bin/aiovoy", "aiovoy", "envoy"} <= {command[0] for _, command in commands()}


def test_make_targets_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, (program, *arguments) in commands():
        if program == "make":
            named = {word for word in arguments if "=" not in word}
            assert named <= targets, (name, arguments)


def test_named_arguments_are_there() -> None:
    """Files of the repository that a command is given."""
    for name, command in commands():
        for word in command:
            if re.match(r"@?(examples|bench|docs|envoy|py_tests)/|@?README", word):
                assert (ROOT / word.removeprefix("@")).exists(), (name, command)


def test_options_of_aiovoy_are_there() -> None:
    options = {option for parameter in main.params for option in [*parameter.opts, *parameter.secondary_opts]}
    for name, command in commands():
        if Path(command[0]).name == "aiovoy":
            used = {word.split("=")[0] for word in command if word.startswith("--")}
            assert used <= options | {"--help"}, (name, command)


def test_options_of_other_servers_are_told_of() -> None:
    page = DOCUMENTS["docs/coming-from.md"]
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {option: cells[-1] for cells in rows for option in re.findall(r"`(-[^`]+)`", cells[0])}
    assert told.keys() == {*RENAMED, *ABSENT}
    for option, name in RENAMED.items():
        assert told[option].startswith(f"`{name.partition(',')[0]}`"), option


# --- Settings ---


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of the tables below `heading` in docs/settings.md, by what stands in the first one."""
    _, _, section = DOCUMENTS["docs/settings.md"].partition(f"## {heading}\n")
    section, _, _ = section.partition("\n## ")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {name.strip("`"): rest for first, *rest in cells for name in first.split(", ") if first.startswith("`")}


def test_each_option_is_in_the_table() -> None:
    table = rows("Command line")
    context = click.Context(main, info_name="aiovoy", auto_envvar_prefix="AIOVOY")
    documented = set(table) - {"--help", "MODULE:ATTRIBUTE"}
    assert documented == {
        option
        for parameter in main.params
        if isinstance(parameter, click.Option)
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    for parameter in main.params:
        if not isinstance(parameter, click.Option) or "--print" in parameter.opts[0] or parameter.opts == ["--version"]:
            continue
        variable, default, _ = table[parameter.opts[0]]
        assert variable == f"`{context.auto_envvar_prefix}_{str(parameter.name).upper()}`"
        if isinstance(parameter.default, str | int | float) and not isinstance(parameter.default, bool):
            assert default.strip("`") == (f"{parameter.default}" or "empty")


def test_sections_of_the_help_are_those_of_the_table() -> None:
    told: dict[str, list[str]] = {}
    for line in CliRunner().invoke(main, ["--help"]).output.splitlines():
        if title := re.fullmatch(r"([A-Z][\w ]+):", line):
            options = told.setdefault(title[1], [])
        elif option := re.match(r"  (--[\w-]+)", line):
            options.append(option[1])
    table: dict[str, list[str]] = {}
    section, _, _ = DOCUMENTS["docs/settings.md"].partition("\nThese print")
    for first in re.findall(r"^\| (\*\*[^|]+\*\*|`--[\w-]+`)", section, re.MULTILINE):
        if first.startswith("*"):
            options = table.setdefault(first.strip("*"), [])
        else:
            options.append(first.strip("`"))
    told["Other"] = [option for option in told["Other"] if option in table["Other"]]
    assert told == table
    assert list(told) == list(table)


def test_each_key_of_the_bridge_is_in_the_table() -> None:
    source = (ROOT / "src" / "config.rs").read_text()
    _, _, struct = source.partition("pub(crate) struct Config {")
    struct, _, _ = struct.partition("\n}\n")
    keys = {{"event_loop": "loop"}.get(key, key) for key in re.findall(r"^    (?:pub )?(\w+):", struct, re.MULTILINE)}
    assert set(rows("Keys of `extension_config`")) == keys


def test_fixed_limits_are_those_of_the_configuration() -> None:
    text = bootstrap(Config("main:app"), addresses=[Address("127.0.0.1")], admin=Path("admin.sock"), python="python")
    assert "max_concurrent_streams: 100\n" in text
    assert "request_headers_timeout: 30s\n" in text
    document = DOCUMENTS["docs/architecture.md"]
    source = (ROOT / "src" / "exchange" / "window.rs").read_text()
    for name, kib in [("REQUEST_WINDOW", 256), ("RESPONSE_WINDOW", 256), ("WINDOW_STEP", 64)]:
        assert f"{name}: usize = {kib} * 1024;" in source
        assert re.search(rf"\| {kib} KiB.*`{name}`", document)
    assert "per_connection_buffer_limit_bytes: 262144" in text
    assert "initial_stream_window_size: 262144" in text
    assert "initial_connection_window_size: 26214400" in text


def test_fields_in_progress_are_in_the_table(pair: Pair, tmp_path: Path) -> None:
    """Envoy names them when it reads a configuration."""
    config = Config(
        "main:app",
        ssl_certfile=pair.certfile,
        ssl_keyfile=pair.keyfile,
        ssl_ca_certs=pair.certfile,
        http3=True,
        proxy_protocol=True,
        request_id=True,
        access_log=True,
        response_path="router",
    )
    addresses = [Address("127.0.0.1", 8443, tls=True)]
    file = tmp_path / "bootstrap.yaml"
    file.write_text(bootstrap(config, addresses=addresses, admin=Path("admin.sock"), python="python", lane=Lane(0)))
    environ = envoy_environ(config, tmp_path / "control.sock", 1)
    words = [str(envoy_binary()), "-c", str(file), "--mode", "validate"]
    read = subprocess.run(words, env=environ, stderr=subprocess.PIPE, text=True, check=True)
    named = re.findall(r"'[\w.]+\.(\w+\.\w+)' is marked as work-in-progress", read.stderr)
    assert set(re.findall(r"^ *\| `(\w+\.\w+)` \|", DOCUMENTS["docs/security.md"], re.MULTILINE)) == set(named)
