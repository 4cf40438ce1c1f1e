"""The command line of the benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path

from harness.cases import CASES, PROTOCOLS
from harness.environments import BENCH
from harness.load import Shape
from harness.servers import BUILT_IN, Server, custom, with_module

REFERENCES = ["envoy", "pyvoy", "granian"]


class Options(argparse.Namespace):
    rounds: int
    duration: int
    connections: int
    h2_connections: int
    h2_streams: int
    servers: list[str]
    server: list[Server]
    module: list[Server]
    cases: list[str]
    protocols: list[str]
    against: list[str]
    output: Path
    chart: bool
    quick: bool

    @property
    def added(self) -> list[Server]:
        return [*self.server, *self.module]

    @property
    def shape(self) -> Shape:
        return Shape(self.duration, self.connections, self.h2_connections, self.h2_streams)


def parse_options(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        description="Measures aiovoy against Envoy's own answer and against other servers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_amounts(parser)
    add_choices(parser)
    options = parser.parse_args(arguments, namespace=Options())
    if options.quick:
        options.rounds = options.duration = 1
    names = [*options.servers, *(server.name for server in options.added)]
    if not names:
        parser.error("no server to measure")
    if len(set(names)) < len(names):
        parser.error(f"each server needs a name of its own, got {', '.join(names)}")
    return options


def add_amounts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=positive, default=5, help="how often everything is measured")
    add("--duration", type=positive, default=3, help="seconds of load in a measurement")
    add("--connections", type=positive, default=64, help="connections of HTTP/1.1 and WebSocket")
    add("--h2-connections", type=positive, default=64, help="connections of HTTP/2")
    add("--h2-streams", type=positive, default=1, help="streams at a time on each of them")
    add("--quick", action="store_true", help="one round of one second, to see that all works")


def add_choices(parser: argparse.ArgumentParser) -> None:
    def add(option: str, known: Collection[str], text: str) -> None:
        default = list(known)
        parser.add_argument(option, type=names_of(known), default=default, metavar="NAMES", help=text)

    add("--servers", BUILT_IN, "with commas between; `none` for those of --server and --module only")
    add("--cases", CASES, "with commas between")
    add("--protocols", PROTOCOLS, "with commas between")
    parser.add_argument(
        "--server",
        type=server_of(custom),
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="one more server; {app}, {app_dir} and {port} in the command are filled in",
    )
    parser.add_argument(
        "--module",
        type=server_of(with_module),
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="one more server: aiovoy with this file as its dynamic module",
    )
    parser.add_argument(
        "--against",
        type=lambda text: text.split(","),
        default=REFERENCES,
        metavar="NAMES",
        help="servers to which ratios are shown",
    )
    parser.add_argument("--output", type=Path, default=BENCH / "results", help="folder")
    parser.add_argument("--chart", action=argparse.BooleanOptionalAction, default=True, help="draw one")


def names_of(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [] if text == "none" else text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected of {', '.join(known)}, got `{name}`")
        return names

    return parse


def server_of(make: Callable[[str], Server]) -> Callable[[str], Server]:
    def parse(text: str) -> Server:
        try:
            return make(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value
