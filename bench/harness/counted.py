"""The requests whose instructions are counted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.callgrind import PATIENCE, Counters, Instructions
from harness.cases import CASES, Case
from harness.load import prime

# What a browser sends beside `user-agent`, `host` and `accept`.
BROWSER = (
    "accept-encoding: gzip, deflate, br, zstd",
    "accept-language: en-GB,en;q=0.9,de;q=0.8",
    "cache-control: max-age=0",
    "cookie: session=9b1deb4d3b7d4bad9bdd2b0d7b3dcb6d; theme=dark; consent=all",
    "priority: u=0, i",
    "referer: https://shop.example/catalogue?page=2",
    'sec-ch-ua: "Chromium";v="142", "Not_A Brand";v="99"',
    "sec-ch-ua-mobile: ?0",
    "sec-fetch-dest: document",
    "sec-fetch-mode: navigate",
    "sec-fetch-site: same-origin",
    "sec-fetch-user: ?1",
    "upgrade-insecure-requests: 1",
)


FRAMEWORK = ("uvloop", "fastapi", "pydantic", "starlette")


@dataclass(frozen=True)
class CountedCase:
    """One request, of which so many are sent, and twice as many; the difference is what counts."""

    name: str
    title: str
    case: Case
    protocol: str
    requests: int
    connections: int = 64
    streams: int = 1
    # Of the server, and whether Envoy is in it.
    options: tuple[str, ...] = ("--no-access-log",)
    with_envoy: bool = True
    # Further packages whose version changes what is counted.
    packages: tuple[str, ...] = ("uvloop",)

    def count(self, counters: Counters) -> Instructions:
        """What one request takes: the middle one of three counts."""
        # Caches and adaptive code settle.
        self.load(counters.port, 2 * self.requests)
        counts = []
        for _ in range(3):
            once = counters.count(lambda: self.load(counters.port, self.requests))
            twice = counters.count(lambda: self.load(counters.port, 2 * self.requests))
            counts.append(twice.each_above(once, self.requests))
        return sorted(counts, key=lambda count: count.total)[1]

    def load(self, port: int, requests: int) -> None:
        prime(port, self.case, self.protocol, requests, self.connections, self.streams, PATIENCE)


COUNTED = {
    counted.name: counted
    for counted in (
        CountedCase("hello", "GET 13 bytes", CASES["hello"], "h1", 1000),
        CountedCase("hello-h2", "the same, HTTP/2", CASES["hello"], "h2", 1000, connections=8, streams=8),
        CountedCase("headers", "the same, 13 more headers", replace(CASES["hello"], headers=BROWSER), "h1", 800),
        CountedCase("log", "the same, access log", CASES["hello"], "h1", 1000, options=("--access-log",)),
        CountedCase("echo", "POST 10 kB", CASES["echo"], "h1", 600),
        CountedCase("stream", "GET 100 chunks", CASES["stream"], "h1", 250),
        CountedCase("text", "WebSocket text of 125 bytes", CASES["text"], "ws", 1500, connections=1),
        CountedCase("json", "GET FastAPI JSON", CASES["json"], "h1", 300, packages=FRAMEWORK),
        CountedCase("upstream", "GET 13 bytes without Envoy", CASES["hello"], "h1", 1000, with_envoy=False),
        CountedCase(
            "upstream-h2", "the same, HTTP/2", CASES["hello"], "h2", 1000, connections=8, streams=8, with_envoy=False
        ),
    )
}
