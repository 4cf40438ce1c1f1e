"""The order in which everything is measured.

In a round, for each application, and with and without TLS, all servers are started one after the
other; the start-up time and the memory of each are taken, and its memory again after some requests.
Then each case is measured on one server after the other, in an order that moves on from case to
case and from round to round.

All servers are up together, then, and those that are not measured idle. What they take meanwhile
is recorded: it is next to nothing. To have only one up at a time would avoid even that, but would
put minutes between two figures that are to be compared, and what else a machine does changes by
the minute.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from harness.cases import PROTOCOLS, Case, Transport, transport
from harness.client import WrongAnswerError, verify
from harness.load import LoadFailedError, Shape, generate, prime
from harness.process import RunningServer, machine_busy_seconds
from harness.servers import Server, ServerUnavailableError

# Requests between the two looks at a server's memory.
MEMORY_REQUESTS = 10_000


@dataclass(frozen=True)
class Measurement:
    """One case on one server in one round. Times in seconds."""

    round: int
    server: str
    case: str
    protocol: str
    requests: int
    seconds: float
    p50: float
    p99: float
    # Processor time: of the server measured, of the load generator, of the servers that idled
    # meanwhile, and of everything else on the machine.
    cpu: float
    generator: float
    idle_servers: float
    elsewhere: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time per request."""
        return self.cpu / self.requests * 1e6


@dataclass(frozen=True)
class Start:
    """One start of a server."""

    round: int
    server: str
    # And how it is reached.
    app: str
    seconds: float
    # In bytes, after the first answer, and after `MEMORY_REQUESTS` more.
    memory: int
    memory_used: int


@dataclass(frozen=True)
class Failure:
    server: str
    # Application, or case and protocol.
    what: str
    why: str


@dataclass(frozen=True)
class Setup:
    """What a server is started for."""

    app: str
    transport: Transport

    @classmethod
    def of(cls, case: Case, protocol: str) -> Self:
        return cls(case.app, transport(protocol))

    def __str__(self) -> str:
        return self.app + {"tcp": "", "tls": " with TLS", "uds": " on a Unix socket"}[self.transport]


class Rounds:
    def __init__(
        self,
        servers: Sequence[Server],
        cases: Sequence[Case],
        protocols: Sequence[str],
        shape: Shape,
    ) -> None:
        self.shape = shape
        self.measurements: list[Measurement] = []
        self.starts: list[Start] = []
        self.failures: list[Failure] = []
        self.setups = list(dict.fromkeys(Setup.of(case, protocol) for case in cases for protocol in protocols))
        # What there is to measure, in order. What fails is taken out: it fails once, not in each
        # round.
        self.plan = [
            (server, case, protocol)
            for case in cases
            for protocol in protocols
            for server in servers
            if server.answers(case, protocol)
        ]

    def verify(self) -> None:
        """Starts each server and compares each answer; also fills the machine's file cache."""
        for setup in self.setups:
            for server in self.servers(setup):
                running = self.start(server, setup)
                if running is None:
                    continue
                with running:
                    for case, protocol in self.cases(server, setup):
                        try:
                            verify(running.place, case, protocol)
                        except WrongAnswerError as error:
                            self.fail(server, case, protocol, str(error))

    def round(self, number: int) -> None:
        for setup in self.setups:
            with ExitStack() as stack:
                up: dict[str, RunningServer] = {}
                for server in rotated(self.servers(setup), number):
                    running = self.start(server, setup)
                    if running is not None:
                        up[server.name] = stack.enter_context(running)
                        self.look_at_start(number, server, setup, running)
                self.load(number, setup, up)

    def look_at_start(self, number: int, server: Server, setup: Setup, running: RunningServer) -> None:
        memory = running.memory_bytes()
        case, protocol = self.cases(server, setup)[0]
        try:
            # Fewer of large ones.
            prime(running.place, case, protocol, min(MEMORY_REQUESTS, 10 * case.prime))
        except LoadFailedError as error:
            self.fail(server, case, protocol, str(error))
            return
        used = running.memory_bytes()
        seconds = running.startup_seconds
        self.starts.append(Start(number, server.name, str(setup), seconds, memory, used))
        report(f"{server.name}: {setup} up in {seconds:.2f} s, {used / 2**20:.0f} MiB")

    def load(self, number: int, setup: Setup, up: Mapping[str, RunningServer]) -> None:
        pairs = dict.fromkeys((c, p) for _, c, p in self.plan if Setup.of(c, p) == setup)
        for turn, (case, protocol) in enumerate(pairs):
            planned = [s for s, c, p in self.plan if (c, p) == (case, protocol)]
            for server in rotated(planned, number + turn):
                others = [other for name, other in up.items() if name != server.name]
                try:
                    taken = self.measure(number, up[server.name], others, case, protocol)
                except (LoadFailedError, ServerUnavailableError) as error:
                    self.fail(server, case, protocol, str(error))
                    continue
                self.measurements.append(taken)
                report(
                    f"round {number + 1}: {server.name}, {case.title}, {PROTOCOLS[protocol]}: "
                    f"{taken.rate:,.0f} requests/s, {taken.cpu_us:.1f} µs each"
                )

    def measure(
        self,
        number: int,
        running: RunningServer,
        others: Sequence[RunningServer],
        case: Case,
        protocol: str,
    ) -> Measurement:
        running.check_alive()
        prime(running.place, case, protocol)
        idle = sum(other.cpu_seconds() for other in others)
        busy = machine_busy_seconds()
        cpu = running.cpu_seconds()
        load = generate(running.place, case, protocol, self.shape)
        cpu = running.cpu_seconds() - cpu
        busy = machine_busy_seconds() - busy
        idle = sum(other.cpu_seconds() for other in others) - idle
        running.check_alive()
        return Measurement(
            round=number,
            server=running.name,
            case=case.name,
            protocol=protocol,
            requests=load.requests,
            seconds=load.seconds,
            p50=load.p50,
            p99=load.p99,
            cpu=cpu,
            generator=load.generator,
            idle_servers=idle,
            elsewhere=max(busy - cpu - load.generator - idle, 0.0),
        )

    def start(self, server: Server, setup: Setup) -> RunningServer | None:
        """Starts `server`; if that fails, nothing more is asked of it with this setup."""
        case, _ = self.cases(server, setup)[0]
        try:
            return RunningServer(server, setup.app, case.path, setup.transport)
        except ServerUnavailableError as error:
            self.plan = [(s, c, p) for s, c, p in self.plan if (s, Setup.of(c, p)) != (server, setup)]
            self.note(Failure(server.name, str(setup), str(error)))
            return None

    def fail(self, server: Server, case: Case, protocol: str, why: str) -> None:
        """Takes one case of one server out of all that follows."""
        self.plan.remove((server, case, protocol))
        self.note(Failure(server.name, f"{case.title}, {PROTOCOLS[protocol]}", why))

    def note(self, failure: Failure) -> None:
        self.failures.append(failure)
        report(f"FAILED: {failure.server}: {failure.what}: {failure.why}")

    def servers(self, setup: Setup) -> list[Server]:
        return list(dict.fromkeys(s for s, c, p in self.plan if Setup.of(c, p) == setup))

    def cases(self, server: Server, setup: Setup) -> list[tuple[Case, str]]:
        return [(c, p) for s, c, p in self.plan if s is server and Setup.of(c, p) == setup]


def rotated(servers: Sequence[Server], by: int) -> list[Server]:
    """So that over the rounds no server is always the first."""
    by %= len(servers) or 1
    return [*servers[by:], *servers[:by]]


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
