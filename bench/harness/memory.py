"""Resident memory of several processes together, each page once. From `/proc`.

The sum of RSS would count a page for each process of the server that maps it, PSS would leave out
what other programs on the machine map too, such as a second Envoy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# "7f00-7f10 r-xp 00000000 fe:00 1234    /usr/lib/libc.so.6"
MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ (\S+ \d+)")


def resident_bytes(pids: Iterable[int]) -> int:
    anonymous = 0
    # The pages of one file that two processes have are the same ones, as far as both have them.
    files: Counter[str] = Counter()
    for pid in pids:
        try:
            rollup = Path("/proc", str(pid), "smaps_rollup").read_text()
            smaps = Path("/proc", str(pid), "smaps").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        anonymous += parse_rollup(rollup)
        files |= parse_smaps(smaps)
    return anonymous + files.total()


def parse_rollup(text: str) -> int:
    """Bytes of memory that belongs to no file; a page that forked processes share counts once."""
    return kilobytes(next(line for line in text.splitlines() if line.startswith("Pss_Anon:")))


def parse_smaps(text: str) -> Counter[str]:
    """Resident bytes of each file mapped, without the pages that are private copies."""
    files: Counter[str] = Counter()
    file = ""
    for line in text.splitlines():
        if found := MAPPING.match(line):
            file = found[1]
        elif line.startswith("Rss:"):
            files[file] += kilobytes(line)
        elif line.startswith("Anonymous:"):
            files[file] -= kilobytes(line)
    # What has no inode has no file.
    return Counter({file: size for file, size in files.items() if not file.endswith(" 0")})


def kilobytes(line: str) -> int:
    return int(line.split()[1]) * 1024
