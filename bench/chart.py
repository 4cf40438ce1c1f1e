"""Draws the results, where matplotlib is installed: all in a picture, or what each case costs in one of its own.

python chart.py RESULTS.json CHART.png
python chart.py RESULTS.json FOLDER
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

# By name: the chart's environment is not the one in which this file is checked.
matplotlib: Any = importlib.import_module("matplotlib")
matplotlib.use("Agg")
pyplot: Any = importlib.import_module("matplotlib.pyplot")

# The same in every chart; servers that were added take the rest in turn.
COLOURS = {
    "aiovoy": "#d1495b",
    "envoy": "#9aa5b1",
    "pyvoy": "#2e86ab",
    "granian": "#f2a541",
    "uvicorn": "#5b8e7d",
    "envoy+granian": "#f7cf9a",
    "envoy+granian-uds": "#f7cf9a",
    "envoy+uvicorn": "#b3cfc5",
    "envoy+uvicorn-uds": "#b3cfc5",
}
MORE_COLOURS = ["#7d5ba6", "#8d6a4f", "#444444", "#c08497"]

METRICS = {"cpu_us": "CPU µs/request (less is better)", "rate": "requests/s (more is better)"}

STARTS = {
    "seconds": "start-up, s (less is better)",
    "memory_used_mib": "memory after requests, MiB (less is better)",
}


def main(source: str, target: str) -> None:
    results = json.loads(Path(source).read_text())
    if Path(target).is_dir():
        for case in results["cases"]:
            draw_case(results, case, Path(target, f"{case}.svg"))
    else:
        draw_all(results, target)


def draw_case(results: dict[str, Any], case: str, target: Path) -> None:
    """Processor time per request, in as many columns as there are protocols."""
    # Text as such, and no dates and numbers by chance: the same results make the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": case})
    columns = [(metric, protocol) for metric, protocol in columns_of(case, results) if metric == "cpu_us"]
    tall = max(len(found_of(results, case, protocol)) for _, protocol in columns)
    size = (3.6 * len(columns), 0.5 + 0.24 * tall)
    figure, axes = pyplot.subplots(1, len(columns), figsize=size, squeeze=False, layout="constrained")
    for axis, (metric, protocol) in zip(axes[0], columns, strict=True):
        heading = f"{results['protocols'][protocol]}: CPU µs/request"
        bars(axis, found_of(results, case, protocol), metric, heading, results["servers"])
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)


def draw_all(results: dict[str, Any], target: str) -> None:
    apps = list(dict.fromkeys(start["app"] for start in results["starts"]))
    tall = len(results["cases"]) + len(apps)
    columns = {case: columns_of(case, results) for case in results["cases"]}
    wide = max(len(STARTS), *map(len, columns.values()))
    figure, axes = pyplot.subplots(tall, wide, figsize=(4.0 * wide, 1.9 * tall), squeeze=False, layout="constrained")
    for row, (case, title) in enumerate(results["cases"].items()):
        for column, (metric, protocol) in enumerate(columns[case]):
            found = found_of(results, case, protocol)
            heading = f"{title}, {results['protocols'][protocol]}\n{METRICS[metric]}"
            bars(axes[row][column], found, metric, heading, results["servers"])
    for row, app in enumerate(apps, len(results["cases"])):
        for column, (metric, title) in enumerate(STARTS.items()):
            found = [one for one in results["starts"] if one["app"] == app]
            bars(axes[row][column], found, metric, f"{app}\n{title}", results["servers"])
    for axis in axes.flat:
        if not axis.has_data():
            axis.axis("off")
    settings = results["settings"]
    figure.suptitle(
        f"rounds of {settings['duration']} s: {settings['rounds']}; bars are medians, lines from least to greatest"
    )
    figure.savefig(target, dpi=110)


def found_of(results: dict[str, Any], case: str, protocol: str) -> list[dict[str, Any]]:
    return [one for one in results["load"] if (one["case"], one["protocol"]) == (case, protocol)]


def columns_of(case: str, results: dict[str, Any]) -> list[tuple[str, str]]:
    """What there is to draw of `case`, in pairs of metric and protocol."""
    measured = dict.fromkeys(one["protocol"] for one in results["load"] if one["case"] == case)
    return [(metric, protocol) for metric in METRICS for protocol in measured]


def bars(axis: Any, found: list[dict[str, Any]], metric: str, title: str, order: list[str]) -> None:
    """One bar a server, the first at the top."""
    found = sorted(found, key=lambda one: order.index(one["server"]))
    if not found:
        return
    values = [one[metric] for one in found]
    medians = [value["median"] for value in values]
    below = [value["median"] - value["low"] for value in values]
    above = [value["high"] - value["median"] for value in values]
    colours = [colour(one["server"], order) for one in found]
    places = range(len(found))
    axis.barh(places, medians, xerr=[below, above], color=colours, error_kw={"lw": 1})
    axis.set_yticks(places, [one["server"] for one in found])
    axis.invert_yaxis()
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=8)
    right = max(value["high"] for value in values) * 1.25
    axis.set_xlim(0, right)
    for place, value in zip(places, values, strict=True):
        digits = 0 if value["median"] >= 1000 else 1 if value["median"] >= 10 else 2
        text = f"{value['median']:,.{digits}f}"
        axis.text(value["high"] + right * 0.01, place, text, va="center", fontsize=7)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def colour(server: str, order: list[str]) -> str:
    added = [name for name in order if name not in COLOURS]
    if server in added:
        return MORE_COLOURS[added.index(server) % len(MORE_COLOURS)]
    return COLOURS[server]


if __name__ == "__main__":
    main(*sys.argv[1:])
