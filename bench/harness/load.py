"""The load generators wrk, h2load, wsload and h3load: how they are run, and what they print."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from harness import websocket
from harness.cases import FIRST, SECURE, Case
from harness.environments import BENCH
from harness.tls import certificate

# Debian package of each program.
TOOLS = {"wrk": "wrk", "h2load": "nghttp2-client", "curl": "curl"}

# Where cargo builds our own, by protocol.
TARGET = BENCH.parent / "target"
BUILT = {"ws": "wsload", "h3": "h3load"}

# What a generator may take beyond the duration of the load.
PATIENCE = 30


class LoadFailedError(Exception):
    """A request of the load failed or was not answered with 200: the figures mean nothing."""


class GeneratorMissingError(Exception):
    """Our own generator could not be built."""


@dataclass(frozen=True)
class Shape:
    """How much load, the same for every server. One thread generates it."""

    duration: int
    # HTTP/1.1 and WebSockets: one request or message at a time on each.
    connections: int
    # HTTP/2: so many connections with so many streams at a time.
    h2_connections: int
    h2_streams: int


@dataclass(frozen=True)
class Load:
    """What a generator measured. Times in seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    # Processor time of the generator itself.
    generator: float = 0.0


def missing_tools() -> list[str]:
    """Debian packages to install, of the programs that are not here."""
    return sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})


def build(name: str) -> None:
    """Builds the generator of this name, one of ours, or sees that nothing has changed since."""
    if shutil.which("cargo") is None:
        raise GeneratorMissingError(
            f"cargo is missing: it builds the load generator {name}\nhint: install Rust, see https://rustup.rs"
        )
    command = ["cargo", "build", "--quiet", "--release", "--package=bench-load", f"--bin={name}"]
    command += [f"--target-dir={TARGET}", *(["--features=h3"] if name == "h3load" else [])]
    result = subprocess.run(command, capture_output=True, check=False, cwd=BENCH, text=True)
    if result.returncode or not built(name).exists():
        raise GeneratorMissingError(f"`{' '.join(command)}` did not make `{built(name)}`\n{result.stderr.strip()}")


def built(name: str) -> Path:
    return TARGET / "release" / name


def generate(place: int | Path, case: Case, protocol: str, shape: Shape) -> Load:
    """Puts the load of `case` on the server at `place`, which is a port, or the path of a Unix domain socket."""
    if case.connections is not None:
        shape = replace(shape, connections=case.connections, h2_connections=case.connections, h2_streams=1)
    before = children_seconds()
    if protocol in BUILT:
        assert isinstance(place, int)
        own = wsload if protocol == "ws" else h3load
        load = own(place, case, shape.connections, seconds=shape.duration)
    else:
        load = http(where(place, case, protocol), case, protocol, shape)
    return replace(load, generator=children_seconds() - before)


def http(where: list[str], case: Case, protocol: str, shape: Shape) -> Load:
    with tempfile.TemporaryDirectory(prefix="bench-load-") as directory:
        body = None
        if case.body is not None:
            body = Path(directory, "body")
            body.write_bytes(case.body)
        first = protocol in FIRST
        # wrk knows no number of requests, and no Unix sockets.
        if first and case.requests is None and len(where) == 1:
            return wrk(where[0], body, shape)
        return h2load(where, body, replace(shape, h2_connections=shape.connections) if first else shape, case, first)


def where(place: int | Path, case: Case, protocol: str) -> list[str]:
    """Words for h2load."""
    if isinstance(place, Path):
        return [f"--base-uri=unix:{place}", f"http://localhost{case.path}"]
    return [f"{'https' if protocol in SECURE else 'http'}://127.0.0.1:{place}{case.path}"]


def prime(
    place: int | Path,
    case: Case,
    protocol: str,
    requests: int | None = None,
    connections: int = 8,
    streams: int = 1,
    patience: float = PATIENCE,
) -> None:
    """Sends so many requests of `case`, unmeasured, with so many streams at a time on a connection of HTTP/2."""
    requests = requests or case.prime
    connections = min(connections, requests)
    if protocol in BUILT:
        assert isinstance(place, int)
        own = wsload if protocol == "ws" else h3load
        own(place, case, connections, requests=requests, patience=patience)
        return
    with tempfile.NamedTemporaryFile() as body:
        command = ["h2load", "--threads=1", f"--clients={connections}", f"--requests={requests}"]
        command += [f"--max-concurrent-streams={streams}", *(f"--header={field}" for field in case.headers)]
        if protocol in FIRST:
            command.append("--h1")
        if case.body is not None:
            body.write(case.body)
            body.flush()
            command.append(f"--data={body.name}")
        parse_h2load(run([*command, *where(place, case, protocol)], patience))


def wrk(url: str, body: Path | None, shape: Shape) -> Load:
    command = ["wrk", "--threads=1", f"--connections={shape.connections}"]
    command += [f"--duration={shape.duration}s", f"--script={BENCH / 'wrk.lua'}", url]
    if body is not None:
        command += ["--", str(body)]
    return parse_wrk(run(command, shape.duration + PATIENCE))


def h2load(where: list[str], body: Path | None, shape: Shape, case: Case, first: bool) -> Load:
    """Over HTTP/2, or over HTTP/1.1 if `first`."""
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["h2load", "--threads=1", f"--clients={shape.h2_connections}", f"--log-file={log.name}"]
        command.append(f"--max-concurrent-streams={shape.h2_streams}")
        command.append(f"--requests={case.requests}" if case.requests else f"--duration={shape.duration}")
        if first:
            command.append("--h1")
        if body is not None:
            command.append(f"--data={body}")
        output = run([*command, *where], shape.duration + PATIENCE)
        p50, p99 = parse_h2load_log(log)
    # With a duration h2load counts for exactly that long.
    seconds = parse_h2load_seconds(output) if case.requests else float(shape.duration)
    return Load(parse_h2load(output), seconds, p50, p99)


def wsload(
    port: int, case: Case, connections: int, seconds: int = 0, requests: int = 0, patience: float = PATIENCE
) -> Load:
    """Ends after so many seconds or messages, 0 being no limit, and with an error if an answer is wrong."""
    files = {
        "handshake": websocket.handshake(port, case),
        "message": websocket.message(case),
        "answer": case.answer,
    }
    return ours("wsload", port, files, connections, seconds, requests, patience)


def h3load(
    port: int, case: Case, connections: int, seconds: int = 0, requests: int = 0, patience: float = PATIENCE
) -> Load:
    """The same with requests."""
    files = {"path": case.path.encode(), "answer": case.answer, "authority": certificate().authority.read_bytes()}
    if case.body is not None:
        files["body"] = case.body
    return ours("h3load", port, files, connections, seconds, requests, patience)


def ours(
    name: str, port: int, files: dict[str, bytes], connections: int, seconds: int, requests: int, patience: float
) -> Load:
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as directory:
        for file, content in files.items():
            Path(directory, file).write_bytes(content)
        command = [str(built(name)), str(port), directory, str(connections), str(seconds), str(requests)]
        return Load(**json.loads(run(command, seconds + patience)))


def run(command: list[str], timeout: float) -> str:
    try:
        result = subprocess.run(command, capture_output=True, check=False, text=True, timeout=timeout)
    except FileNotFoundError:
        raise LoadFailedError(f"`{command[0]}` is not there") from None
    except subprocess.TimeoutExpired:
        raise LoadFailedError(f"{command[0]} did not end in {timeout:.0f} s") from None
    if result.returncode:
        raise LoadFailedError(f"{command[0]} ended with status {result.returncode}: {result.stderr}")
    return result.stdout


def parse_wrk(output: str) -> Load:
    """The line that `wrk.lua` prints."""
    line = next((line for line in output.splitlines() if line.startswith("{")), None)
    if line is None:
        raise LoadFailedError(f"expected a line of JSON from wrk.lua, got:\n{output}")
    values: dict[str, int] = json.loads(line)
    errors = {name: values[name] for name in ("connect", "read", "write", "status", "timeout") if values[name]}
    if errors or not values["requests"]:
        raise LoadFailedError(f"{values['requests']} requests, errors: {errors or 'none'}")
    return Load(
        requests=values["requests"],
        seconds=values["microseconds"] / 1e6,
        p50=values["p50"] / 1e6,
        p99=values["p99"] / 1e6,
    )


REQUESTS = re.compile(
    r"^requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, "
    r"(\d+) failed, (\d+) errored, (\d+) timeout$",
    re.MULTILINE,
)
# Those of requests that have a head but no end yet are among them.
STATUS_CODES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx$", re.MULTILINE)


def parse_h2load(output: str) -> int:
    """The number of requests that h2load saw answered."""
    requests = REQUESTS.search(output)
    codes = STATUS_CODES.search(output)
    if requests is None or codes is None:
        raise LoadFailedError(f"expected the summary of h2load, got:\n{output}")
    done, succeeded, *errors = map(int, requests.groups())
    right, *wrong = map(int, codes.groups())
    if not done or done != succeeded or right < done or any(errors) or any(wrong):
        raise LoadFailedError(f"{requests[0]}; {codes[0]}")
    return done


FINISHED = re.compile(r"^finished in ([\d.]+)(us|ms|s),", re.MULTILINE)


def parse_h2load_seconds(output: str) -> float:
    """How long it took."""
    finished = FINISHED.search(output)
    if finished is None:
        raise LoadFailedError(f"expected how long h2load took, got:\n{output}")
    return float(finished[1]) / {"us": 1e6, "ms": 1e3, "s": 1}[finished[2]]


def parse_h2load_log(lines: Iterable[str]) -> tuple[float, float]:
    """p50 and p99 in seconds, of lines `start, status, microseconds`."""
    times = []
    for line in lines:
        _, status, microseconds = line.split("\t")
        if status != "200":
            raise LoadFailedError(f"expected status 200, got {status}")
        times.append(int(microseconds))
    times.sort()
    if not times:
        raise LoadFailedError("h2load logged no request")
    return percentile(times, 50) / 1e6, percentile(times, 99) / 1e6


def percentile(ordered: list[int], percent: int) -> int:
    """The smallest of `ordered` that `percent` of them do not exceed (nearest rank)."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(rank, 1) - 1]


def children_seconds() -> float:
    """Processor time of this process's children that have ended: here the generator."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
