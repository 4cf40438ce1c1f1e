"""Where the commands of documents run: a folder that has what they name, with free ports in place of theirs."""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from aiovoy.launcher.environ import bridge_path
from py_tests.harness.certificates import Pair, authority_file
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.documents import program, words
from py_tests.harness.folders import EXAMPLES, ROOT
from py_tests.harness.http3 import Http3Connection
from py_tests.harness.in_front import free_ports
from py_tests.harness.plain_envoy import environment, listens
from py_tests.harness.serving import AIOVOY, RECENT, Server, ServerEnded
from py_tests.harness.wire import Tls

PORTS = ["80", "443", "8000", "8001", "8002", "8443", "9000", "9901"]
"""All that the documents have servers listen on."""

FOLDERS = r"/(etc/ssl|etc/letsencrypt/live/example\.org|run/app|srv/app|srv/shop)\b"

CERTIFICATES = {"cert.pem": "key.pem", "fullchain.pem": "privkey.pem", "example.org.pem": "example.org.key"}


class Place:
    def __init__(self, folder: Path, pair: Pair) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self.client = Pair(folder, "client.test", name="client")
        for certificate, key in CERTIFICATES.items():
            (folder / certificate).write_bytes(pair.chain)
            (folder / key).write_bytes(pair.key)
        authority_file(folder).rename(folder / "clients-ca.pem")
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "README.md").symlink_to(ROOT / "README.md")
        (folder / "examples").mkdir()
        for path in EXAMPLES.iterdir():
            if path.is_file():
                (folder / "examples" / path.name).write_text(self.local(path.read_text()))
        shutil.copy(EXAMPLES / "hello.py", folder / "main.py")

    def local(self, text: str) -> str:
        """`text` with ports and paths of this place."""
        text = re.sub(rf"(?<![\w.])({'|'.join(PORTS)})(?![\w.])", lambda port: self.ports[port[0]], text)
        text = re.sub(r"[\w./-]*aiovoy/bridge\.[\w-]+\.so", str(bridge_path()), text)
        text = re.sub(r"(?<!\d)0\.0\.0\.0", "127.0.0.1", text)
        return re.sub(FOLDERS, str(self.folder), text)

    @contextlib.contextmanager
    def serving(self, command: str, *setup: str, pass_fds: Sequence[int] = ()) -> Iterator[Server]:
        """A server started by a command of a shell, after others; stopped and checked at the end."""
        if program(command) == "envoy":
            # Those of two tests at once would take each other for the one to replace.
            command += " --disable-hot-restart"
        elif not pass_fds and not {"--port", "--uds", "--bind"} & set(words(command)):
            command += " --port 8000"
        script = "\n".join(["set -e", *setup, f"exec env {command}"])
        shell, env = ["bash", "-c", self.local(script)], {"PATH": environment()["PATH"]}
        server = Server(shell, AIOVOY, self.folder, env, pass_fds=pass_fds)
        RECENT.append(server)
        try:
            yield server
        finally:
            server.stop()

    async def answers(self, server: Server, command: str) -> list[str]:
        """What the server that `command` has started says at each of its addresses."""
        if program(command) == "envoy":
            await self.listens(server)
        else:
            server.wait_until_started()
        said = [self.curl(*address) for address in self._addresses(words(self.local(command)))]
        if "--http3" in words(command):
            async with await Http3Connection.open(server.ssl_port, Tls()) as connection:
                said.append((await connection.get("/")).body.decode())
        return said

    async def listens(self, server: Server, port: str = "8000") -> None:
        """Waits until `server` accepts connections at what stands for `port`."""

        def listening() -> bool:
            if server.process.poll() is not None:
                raise ServerEnded(server)
            return listens(int(self.ports[port]))

        await eventually(listening)

    def _addresses(self, command: list[str]) -> Iterator[list[str]]:
        """As curl takes them."""
        given: dict[str, list[str]] = {}
        for option, value in zip(command, [*command[1:], ""], strict=True):
            given.setdefault(option, []).append(value)
        paths = given.get("--uds", [])
        hosts: list[str] = []
        for address in given.get("--bind", []):
            (paths if address.startswith("unix:") else hosts).append(address.removeprefix("unix:"))
        ports = given.get("--port") or ([] if paths or hosts else [self.ports["8000"]])
        tls = "--ssl-certfile" in given and "--ssl-port" not in given
        urls = [f"{'https' if tls else 'http'}://{host}/" for host in [*hosts, *map("127.0.0.1:{}".format, ports)]]
        urls += [f"https://127.0.0.1:{port}/" for port in given.get("--ssl-port", [])]
        before = ["--haproxy-protocol"] if "--proxy-protocol" in given else []
        yield from ([*before, url] for url in urls)
        yield from (["--unix-socket", path, "http://app/"] for path in paths)

    def curl(self, *arguments: str) -> str:
        """What is answered to a client that trusts the servers, and shows a certificate if it is asked for one."""
        words = ["curl", "--silent", "--show-error", "--fail", "--cacert", str(self.folder / "clients-ca.pem")]
        words += ["--cert", str(self.client.certfile), "--key", str(self.client.keyfile), *arguments]
        done = subprocess.run(words, cwd=self.folder, stdout=subprocess.PIPE, text=True, timeout=DEADLINE, check=True)
        return done.stdout
