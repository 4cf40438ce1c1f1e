"""Medians, spreads and ratios of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.rounds import Measurement, Start

# A generator that is busy for this share of the time may be what limits the rate.
GENERATOR_BUSY = 0.95


@dataclass(frozen=True)
class Spread:
    """The median of several rounds, and the least and the greatest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


@dataclass(frozen=True)
class Ratio:
    """How a server stands to another one: 1 is equal. More `rate` is better, less `cpu` is."""

    rate: Spread
    cpu: Spread


@dataclass(frozen=True)
class LoadSummary:
    """All rounds of one case on one server."""

    server: str
    case: str
    protocol: str
    rate: Spread
    cpu_us: Spread
    p50_ms: Spread
    p99_ms: Spread
    # By the name of the other server.
    ratios: dict[str, Ratio]
    # Whether the generator may be what limits the rate.
    generator_bound: bool


@dataclass(frozen=True)
class StartSummary:
    """All starts of one server on one application."""

    server: str
    app: str
    seconds: Spread
    memory_mib: Spread
    memory_used_mib: Spread


def summarise_load(measurements: Sequence[Measurement], references: Sequence[str]) -> list[LoadSummary]:
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.case, one.protocol, one.server), []).append(one)
    summaries = []
    for (case, protocol, server), group in groups.items():
        others = {name: groups.get((case, protocol, name), []) for name in references}
        busy = statistics.median(one.generator / one.seconds for one in group)
        summaries.append(
            LoadSummary(
                server=server,
                case=case,
                protocol=protocol,
                rate=Spread.of(one.rate for one in group),
                cpu_us=Spread.of(one.cpu_us for one in group),
                p50_ms=Spread.of(one.p50 * 1e3 for one in group),
                p99_ms=Spread.of(one.p99 * 1e3 for one in group),
                ratios={
                    name: Ratio(
                        rate=paired(group, other, lambda one: one.rate),
                        cpu=paired(group, other, lambda one: one.cpu_us),
                    )
                    for name, other in others.items()
                    if {one.round for one in group} & {one.round for one in other}
                },
                generator_bound=busy >= GENERATOR_BUSY,
            )
        )
    return summaries


def paired(
    group: Sequence[Measurement],
    other: Sequence[Measurement],
    value: Callable[[Measurement], float],
) -> Spread:
    """The ratios within each round: what slows the machine for a round slows both servers."""
    by_round = {one.round: value(one) for one in other}
    return Spread.of(value(one) / by_round[one.round] for one in group if one.round in by_round)


def summarise_starts(starts: Sequence[Start]) -> list[StartSummary]:
    groups: dict[tuple[str, str], list[Start]] = {}
    for one in starts:
        groups.setdefault((one.app, one.server), []).append(one)
    return [
        StartSummary(
            server=server,
            app=app,
            seconds=Spread.of(one.seconds for one in group),
            memory_mib=Spread.of(one.memory / 2**20 for one in group),
            memory_used_mib=Spread.of(one.memory_used / 2**20 for one in group),
        )
        for (app, server), group in groups.items()
    ]


@dataclass(frozen=True)
class Disturbance:
    """What else ran during the measurements, in processors: 1 is one of them all the time."""

    idle_servers: Spread
    elsewhere: Spread

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> Disturbance:
        return cls(
            idle_servers=Spread.of(one.idle_servers / one.seconds for one in measurements),
            elsewhere=Spread.of(one.elsewhere / one.seconds for one in measurements),
        )
