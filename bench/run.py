"""Measures aiovoy against Envoy's own answer and against other servers. `make bench` runs it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from harness.cases import CASES, PROTOCOLS
from harness.environments import BENCH, EnvironmentFailedError, differences, environment, versions
from harness.load import BUILT, GeneratorMissingError, build, missing_tools
from harness.options import Options, parse_options
from harness.rounds import Failure, Rounds
from harness.servers import BUILT_IN, Server, ServerUnavailableError
from harness.summary import Disturbance, summarise_load, summarise_starts
from harness.table import render


def main() -> int:
    options = parse_options()
    if packages := missing_tools():
        print("error: wrk, h2load and curl are needed, and not all are here", file=sys.stderr)
        print(f"hint: apt-get install {' '.join(packages)}", file=sys.stderr)
        return 2
    try:
        for protocol in set(BUILT).intersection(options.protocols):
            build(BUILT[protocol])
    except GeneratorMissingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, stop_by_signal)
    # For many connections, of generators and servers.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    servers, failures = available(options)
    cases = [CASES[name] for name in options.cases]
    rounds = Rounds(servers, cases, options.protocols, options.shape)
    found = {server.name: versions(server.root) for server in servers if server.root}
    for warning in differences(found):
        print(f"warning: {warning}", file=sys.stderr)

    begin = time.monotonic()
    try:
        rounds.verify()
        for number in range(options.rounds):
            rounds.round(number)
    except KeyboardInterrupt:
        failures.append(Failure("all servers", "the rest of the rounds", "interrupted"))
    failures += rounds.failures

    loads = summarise_load(rounds.measurements, options.against)
    starts = summarise_starts(rounds.starts)
    disturbance = Disturbance.of(rounds.measurements) if rounds.measurements else None
    order = [server.name for server in servers]
    table = render(loads, starts, disturbance, failures, order, options.against)
    print(table)

    results = {
        "settings": {"rounds": options.rounds, **dataclasses.asdict(options.shape)},
        "machine": {"processors": os.cpu_count(), "kernel": platform.release()},
        "finished": time.ctime(),
        "elapsed_seconds": time.monotonic() - begin,
        "versions": found,
        "servers": order,
        "cases": {case.name: case.title for case in cases},
        "protocols": {name: PROTOCOLS[name] for name in options.protocols},
        "load": [dataclasses.asdict(one) for one in loads],
        "starts": [dataclasses.asdict(one) for one in starts],
        "disturbance": disturbance and dataclasses.asdict(disturbance),
        "failures": [dataclasses.asdict(one) for one in failures],
        "every_measurement": [dataclasses.asdict(one) for one in rounds.measurements],
        "every_start": [dataclasses.asdict(one) for one in rounds.starts],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "table.txt").write_text(f"{table}\n")
    file = options.output / "results.json"
    file.write_text(json.dumps(results, indent=1))
    drawn = not (loads and options.chart) or draw(file, options.output / "chart.png")
    print(f"\nwritten to {options.output}", file=sys.stderr)
    return 0 if drawn and not failures else 1


def available(options: Options) -> tuple[list[Server], list[Failure]]:
    """The servers asked for that can be measured here, and why the others cannot."""
    servers, failures = [], []
    for name in options.servers:
        try:
            servers.append(BUILT_IN[name]())
        except ServerUnavailableError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            failures.append(Failure(name, "everything", str(error)))
    return [*servers, *options.added], failures


def draw(results: Path, picture: Path) -> bool:
    try:
        python = environment("chart") / "bin/python"
        subprocess.run([python, BENCH / "chart.py", results, picture], check=True, timeout=120)
    except (EnvironmentFailedError, subprocess.SubprocessError) as error:
        print(f"error: no chart: {error}", file=sys.stderr)
        return False
    return True


def stop_by_signal(_: int, __: FrameType | None) -> None:
    """SIGTERM like Ctrl-C: the servers are stopped on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
