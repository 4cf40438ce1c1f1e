"""The summary as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from harness.cases import CASES, PROTOCOLS
from harness.rounds import MEMORY_REQUESTS, Failure
from harness.summary import Disturbance, LoadSummary, Spread, StartSummary

# Above this share of one processor, the rest of the machine may have touched the figures.
DISTURBED = 0.1


def render(
    loads: Sequence[LoadSummary],
    starts: Sequence[StartSummary],
    disturbance: Disturbance | None,
    failures: Sequence[Failure],
    order: Sequence[str],
    references: Sequence[str],
) -> str:
    """All tables. `order` is that of the servers, `references` are those of the ratio columns."""
    place = {name: position for position, name in enumerate(order)}
    blocks = []
    for case, protocol in dict.fromkeys((load.case, load.protocol) for load in loads):
        rows = [load for load in loads if (load.case, load.protocol) == (case, protocol)]
        rows.sort(key=lambda load: place[load.server])
        title = f"{CASES[case].title}, {PROTOCOLS[protocol]}"
        blocks.append(f"{title}\n{load_table(rows)}{ratio_table(rows, references)}")
    for app in dict.fromkeys(start.app for start in starts):
        summaries = [start for start in starts if start.app == app]
        summaries.sort(key=lambda start: place[start.server])
        blocks.append(f"start-up and memory, {app}\n{start_table(summaries)}")
    blocks.append(notes(loads, disturbance))
    if failures:
        lines = [f"{failure.server}: {failure.what}: {failure.why}" for failure in failures]
        blocks.append("\n".join(["FAILED", *(textwrap.indent(line, "  ") for line in lines)]))
    return "\n\n".join(block for block in blocks if block)


def load_table(rows: Sequence[LoadSummary]) -> str:
    lines = [["server", "requests/s", "CPU µs/request", "p50 ms", "p99 ms"]]
    for row in rows:
        mark = "*" if row.generator_bound else ""
        cells = [row.server, spread(row.rate, 0) + mark, spread(row.cpu_us, 1)]
        lines.append([*cells, spread(row.p50_ms, 2), spread(row.p99_ms, 2)])
    return align(lines)


def ratio_table(rows: Sequence[LoadSummary], references: Sequence[str]) -> str:
    """Empty where none of the `references` was measured."""
    columns = [name for name in references if any(name in row.ratios for row in rows)]
    lines = [["server", *(f"{what} : {name}" for what in ("CPU", "requests") for name in columns)]]
    for row in rows:
        ratios = [row.ratios.get(name) for name in columns]
        cpu = ["" if ratio is None else spread(ratio.cpu, 2) for ratio in ratios]
        rate = ["" if ratio is None else spread(ratio.rate, 2) for ratio in ratios]
        lines.append([row.server, *cpu, *rate])
    return f"\n{align(lines)}" if columns else ""


def start_table(rows: Sequence[StartSummary]) -> str:
    head = ["server", "start-up s", "memory MiB", f"after {MEMORY_REQUESTS:,} requests"]
    return align(
        [
            head,
            *(
                [
                    row.server,
                    spread(row.seconds, 2),
                    spread(row.memory_mib, 1),
                    spread(row.memory_used_mib, 1),
                ]
                for row in rows
            ),
        ]
    )


def notes(loads: Sequence[LoadSummary], disturbance: Disturbance | None) -> str:
    lines = []
    if any(load.generator_bound for load in loads):
        lines.append("* the load generator was busy all the time: the server could give more")
    if disturbance is not None:
        idle, elsewhere = disturbance.idle_servers, disturbance.elsewhere
        lines.append(
            f"meanwhile: idle servers took {percent(idle)} of one processor, "
            f"everything else on the machine {percent(elsewhere)}"
        )
        if elsewhere.high > DISTURBED:
            lines.append("warning: the machine was not quiet; trust ratios more than figures")
    return "\n".join(lines)


def spread(value: Spread, digits: int) -> str:
    text = f"{value.median:,.{digits}f}"
    if value.low == value.high:
        return text
    return f"{text} ({value.low:,.{digits}f}-{value.high:,.{digits}f})"


def percent(value: Spread) -> str:
    return f"{value.median:.1%} ({value.low:.1%}-{value.high:.1%})"


def align(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
