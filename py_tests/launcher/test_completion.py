"""Completion in shells, by the lines of docs/settings.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from py_tests.harness.deadline import DEADLINE
from py_tests.harness.folders import ROOT

ENVIRON = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def documented(shell: str) -> str:
    line: str
    (line,) = re.findall(rf"^.*{shell}_source.*$", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    return line.partition("#")[0]


def run(script: str) -> list[str]:
    words = ["bash", "-c", script]
    done = subprocess.run(words, env=ENVIRON, stdout=subprocess.PIPE, text=True, timeout=DEADLINE, check=True)
    return done.stdout.split()


def complete(line: str) -> list[str]:
    """What bash offers at the end of `line`."""
    return run(
        f"{documented('bash')}\n"
        f"COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
        "$(complete -p aiovoy | sed 's/.*-F //') aiovoy\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("aiovoy main:app --access", ["--access-log", "--access-log-format"]),
        ("aiovoy main:app --lifespan ''", ["auto", "on", "off"]),
        ("aiovoy upstream main:app --life", ["--lifespan"]),
        ("aiovoy --ssl-p", ["--ssl-port"]),
        ("aiovoy upstream --ssl-p", []),
    ],
)
def test_bash_completes(line: str, offered: list[str]) -> None:
    assert complete(line) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_how(shell: str) -> None:
    command = re.search(r"_AIOVOY_COMPLETE=\w+ aiovoy", documented(shell))
    assert command is not None
    assert f"_AIOVOY_COMPLETE={shell}_complete" in run(command[0])
