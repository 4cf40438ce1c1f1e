"""What README and docs/ say: the files they name, the commands they show, the code in them."""

import re
import shlex
import subprocess
import sys
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
from py_tests.harness.deadline import DEADLINE
from py_tests.harness.folders import ROOT
from py_tests.harness.protocols import Connect
from py_tests.harness.serving import AIOVOY, Serve, Server, unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")

DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(DOCUMENTS[document]) if found == language]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command of each shell block, in words, without variables in front."""
    for name in DOCUMENTS:
        for block in blocks(name, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and re.match(r"\w+=", words[0]):
                    words.pop(0)
                if words:
                    yield name, words


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
    """Paths in backticks that begin with one of our folders."""
    folders = "aiovoy|bench|docs|envoy|examples|py_tests|src"
    for path in re.findall(rf"`((?:{folders})/[\w/.\-]*)`", DOCUMENTS[name]):
        assert (ROOT / path).exists(), path


# --- Commands ---


def test_there_are_commands() -> None:
    assert {"make", "curl", "pip", ".venv/bin/aiovoy", "aiovoy", "envoy"} <= {words[0] for _, words in commands()}


def test_make_targets_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, (program, *arguments) in commands():
        if program == "make":
            named = {word for word in arguments if "=" not in word}
            assert named <= targets, (name, arguments)


def test_named_arguments_are_there() -> None:
    """Files of the repository that a command is given."""
    for name, words in commands():
        for word in words:
            if re.match(r"@?(examples|bench|docs|envoy|py_tests)/|@?README", word):
                assert (ROOT / word.removeprefix("@")).exists(), (name, words)


def test_options_of_aiovoy_are_there() -> None:
    options = {option for parameter in main.params for option in [*parameter.opts, *parameter.secondary_opts]}
    for name, words in commands():
        if Path(words[0]).name == "aiovoy":
            used = {word.split("=")[0] for word in words if word.startswith("--")}
            assert used <= options | {"--help"}, (name, words)


def test_options_of_other_servers_are_told_of() -> None:
    page = DOCUMENTS["docs/coming-from.md"]
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {option: cells[-1] for cells in rows for option in re.findall(r"`(-[^`]+)`", cells[0])}
    assert told.keys() == {*RENAMED, *ABSENT}
    for option, name in RENAMED.items():
        assert told[option].startswith(f"`{name.partition(',')[0]}`"), option


# --- Code ---


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_is_python(name: str) -> None:
    for block in blocks(name, "python"):
        compile(block, name, "exec")


async def test_application_of_the_readme_works(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    (block,) = blocks("README.md", "python")
    (tmp_path / "main.py").write_text(block)
    server = serve("main:app", cwd=tmp_path, app_dir=None)
    assert (await (await connect(server)).get("/")).json() == {"hello": "world"}


def run(*words: str) -> str:
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=DEADLINE, check=True)
    return done.stdout


async def test_run_in_a_script_works(tmp_path: Path) -> None:
    script, *_ = blocks("docs/settings.md", "python")
    path = tmp_path / "script.py"
    path.write_text(script.replace("port=8000", "port=0"))
    server = Server([sys.executable, str(path)], AIOVOY, ROOT, {})
    try:
        server.wait_until_started()
        assert (await server.get("/")).body == b"Hello, world!"
    finally:
        server.stop()


def test_server_in_python_works() -> None:
    _, embedded, *_ = blocks("docs/settings.md", "python")
    assert re.fullmatch(r"http://127.0.0.1:\d+ \d+\n", run(sys.executable, "-c", embedded))


def test_fixture_in_a_test_works(tmp_path: Path) -> None:
    _, _, tested, fixture = blocks("docs/settings.md", "python")
    path = tmp_path / "test_of_a_user.py"
    path.write_text(f"{tested}\n{fixture}\n\ndef test_shop(shop):\n    assert shop.port > 0\n")
    assert "2 passed" in run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(path))


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
