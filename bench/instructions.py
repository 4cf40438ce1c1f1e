"""Counts the instructions of a request, and holds them against the record. `make bench-instructions` runs it."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import record
from harness.callgrind import PATIENCE, Counters, Instructions, missing_tools, server
from harness.cases import SOCKETS
from harness.counted import COUNTED, CountedCase
from harness.environments import BENCH, versions
from harness.load import GeneratorMissingError, LoadFailedError, build
from harness.options import names_of
from harness.process import RunningServer
from harness.servers import ServerUnavailableError

FILE = BENCH / "instructions.json"


class Options(argparse.Namespace):
    cases: list[str]
    record: bool


def main() -> int:
    options = parse_options()
    cases = [COUNTED[name] for name in options.cases]
    if packages := missing_tools():
        print("error: valgrind and h2load are needed, and not all is here", file=sys.stderr)
        print(f"hint: apt-get install {' '.join(packages)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if any(case.case.app == SOCKETS for case in cases):
            build("wsload")
        counted = count(cases)
        here = versions(Path(sys.prefix))
        records = record.read(FILE)
        if options.record:
            print(record.compare(counted, record.find(records, here), here)[0])
            record.write(FILE, records, here, counted)
            return 0
        table, grown = record.compare(counted, record.find(records, here), here)
        print(table)
        if grown:
            # What else the machine does has a say in how many requests share a wake-up. What has grown does so again.
            again = dict.fromkeys(line.partition(":")[0] for line in grown)
            counted = count([COUNTED[name] for name in again])
            table, grown = record.compare(counted, record.find(records, here), here)
            print(table)
    except (GeneratorMissingError, ServerUnavailableError, LoadFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in grown:
        print(f"error: {line}", file=sys.stderr)
    if grown:
        print("hint: if that is worth it, `make bench-instructions ARGS=--record` and say why", file=sys.stderr)
    return 1 if grown else 0


def parse_options() -> Options:
    parser = argparse.ArgumentParser(
        description="Counts the user-space instructions of a request by callgrind. Ends with 1 where one takes over "
        f"{record.TOLERANCE:.0%} more than was recorded with the same versions of Python and Envoy."
    )
    parser.add_argument(
        "--cases", type=names_of(COUNTED), default=list(COUNTED), metavar="NAMES", help="with commas between; else all"
    )
    parser.add_argument("--record", action="store_true", help=f"write what is counted to {FILE.name}")
    return parser.parse_args(namespace=Options())


def count(cases: Sequence[CountedCase]) -> dict[str, Instructions]:
    """What a request of each case takes, by name."""
    counted = {}
    servers: dict[tuple[str, tuple[str, ...], bool], list[CountedCase]] = {}
    for case in cases:
        servers.setdefault((case.case.app, case.options, case.with_envoy), []).append(case)
    for (app, options, with_envoy), same in servers.items():
        with RunningServer(server(options, with_envoy), app, same[0].case.path, patience=PATIENCE) as running:
            counters = Counters(running)
            counted |= {case.name: case.count(counters) for case in same}
    return {case.name: counted[case.name] for case in cases}


if __name__ == "__main__":
    sys.exit(main())
