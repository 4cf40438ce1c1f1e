"""Writes what was measured into docs/benchmarks.md, with a chart for each case. `make bench-report` runs it.

Several runs can be given: their cases or protocols add up.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.environments import BENCH, environment

PAGE = BENCH.parent / "docs/benchmarks.md"
CHARTS = PAGE.with_suffix("")

# Between these stands what is written here.
BEGIN, END = "<!-- Written by `make bench-report`. -->\n", "<!-- To here. -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the results of `make bench` into docs/benchmarks.md.")
    default = [BENCH / "results/results.json"]
    parser.add_argument("results", type=Path, nargs="*", default=default, help="files; else that of the last run")
    results = merged(json.loads(file.read_text()) for file in parser.parse_args().results)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    draw(results)
    PAGE.write_text(f"{before}{BEGIN}\n{report(results)}\n{END}{after}")


def merged(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    first, *others = runs
    for other in others:
        for key in ("load", "starts", "failures"):
            first[key] += other[key]
        for key in ("cases", "protocols", "versions"):
            first[key] |= other[key]
        first["servers"] = list(dict.fromkeys([*first["servers"], *other["servers"]]))
        first["elapsed_seconds"] += other["elapsed_seconds"]
    return first


def draw(results: dict[str, Any]) -> None:
    shutil.rmtree(CHARTS, ignore_errors=True)
    CHARTS.mkdir()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(results, file)
        file.flush()
        python = environment("chart") / "bin/python"
        subprocess.run([python, BENCH / "chart.py", file.name, CHARTS], check=True, timeout=300)


def report(results: dict[str, Any]) -> str:
    blocks = [settings(results), ratios(results)]
    blocks += [case_block(results, case, title) for case, title in results["cases"].items()]
    blocks.append(starts(results))
    return "\n".join(blocks)


def settings(results: dict[str, Any]) -> str:
    kinds: dict[str, dict[str, list[str]]] = {}
    for server, found in results["versions"].items():
        for package, version in found.items():
            kinds.setdefault(package, {}).setdefault(version, []).append(server)
    versions = []
    for package, found in kinds.items():
        for version, servers in found.items():
            versions.append(f"{package} {version}" + (f" ({', '.join(servers)})" if len(found) > 1 else ""))
    machine, shape = results["machine"], results["settings"]
    return (
        f"{results['finished']}, {machine['processors']} processors, Linux {machine['kernel']}; "
        f"{shape['rounds']} rounds of {shape['duration']} s, {results['elapsed_seconds'] / 60:.0f} minutes in all. "
        f"Versions: {'; '.join(versions)}.\n"
    )


def ratios(results: dict[str, Any]) -> str:
    """What aiovoy takes for what another one takes, by case and protocol."""
    names = [name for name in results["servers"] if name != "aiovoy"]
    rows = []
    for one in results["load"]:
        if one["server"] == "aiovoy":
            title = f"{results['cases'][one['case']]}, {results['protocols'][one['protocol']]}"
            found = [one["ratios"].get(name) for name in names]
            rows.append([title, *(spread(ratio["cpu"], 2) if ratio else "" for ratio in found)])
    used = [column for column in range(len(names) + 1) if any(row[column] for row in rows)]
    head = ["CPU of aiovoy : that of", *names]
    chosen = [[row[column] for column in used] for row in [head, *rows]]
    return f"### Ratios\n\n{markdown(chosen)}"


def case_block(results: dict[str, Any], case: str, title: str) -> str:
    found = [one for one in results["load"] if one["case"] == case]
    place = {name: position for position, name in enumerate(results["servers"])}
    lines = [["", "CPU µs/request", "requests/s", "p50 ms", "p99 ms"]]
    for protocol in dict.fromkeys(one["protocol"] for one in found):
        rows = [one for one in found if one["protocol"] == protocol]
        for one in sorted(rows, key=lambda row: place[row["server"]]):
            mark = "*" if one["generator_bound"] else ""
            cells = [spread(one["cpu_us"], 1), spread(one["rate"], 0) + mark]
            name = f"{one['server']}, {results['protocols'][protocol]}"
            lines.append([name, *cells, spread(one["p50_ms"], 2), spread(one["p99_ms"], 2)])
    picture = f"![Processor time of each server](benchmarks/{case}.svg)"
    return f"### {title}\n\n{picture}\n\n<details><summary>Figures</summary>\n\n{markdown(lines)}\n</details>\n"


def starts(results: dict[str, Any]) -> str:
    lines = [["", "start-up s", "memory MiB", "after requests"]]
    for one in results["starts"]:
        cells = [spread(one["seconds"], 2), spread(one["memory_mib"], 1), spread(one["memory_used_mib"], 1)]
        lines.append([f"{one['server']}, `{one['app']}`", *cells])
    return f"### Start-up and memory\n\n{markdown(lines)}"


def spread(value: dict[str, float], digits: int) -> str:
    text = f"{value['median']:,.{digits}f}"
    if value["low"] == value["high"]:
        return text
    return f"{text} ({value['low']:,.{digits}f}-{value['high']:,.{digits}f})"


def markdown(lines: list[list[str]]) -> str:
    head, *rows = lines
    table = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in table)


if __name__ == "__main__":
    main()
