"""The documents of the repository, and the blocks of code in them."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

from py_tests.harness.folders import ROOT

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("[a-z]*/README.md")])
}

BLOCK = re.compile(
    r"^(?: *<!-- not run: (?P<reason>.+) -->\n)?(?P<indent> *)```(?P<language>.*)\n(?P<text>(?s:.*?))^(?P=indent)```$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    document: str
    line: int
    """Of its first fence."""
    language: str
    text: str
    reason: str
    """Why no test runs it, from the comment `<!-- not run: REASON -->` on the line above."""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Those of a shell block, each on one line."""
        lines = self.text.replace("\\\n", " ").splitlines() if self.language == "sh" else []
        return [line for line in lines if words(line)]


def words(command: str) -> list[str]:
    """Those of a command, without variables in front."""
    found = shlex.split(command, comments=True)
    while found and re.match(r"\w+=", found[0]):
        found.pop(0)
    return found


def program(command: str) -> str:
    return Path(words(command)[0]).name


def blocks_of(document: str) -> list[Block]:
    text = DOCUMENTS[document]
    return [
        Block(
            document,
            text.count("\n", 0, found.start("indent")) + 1,
            found["language"],
            textwrap.dedent(found["text"]),
            found["reason"] or "",
        )
        for found in BLOCK.finditer(text)
    ]


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]
