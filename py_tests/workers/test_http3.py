"""HTTP/3 with worker processes: each connection stays with its process, whatever becomes of the others."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration

from aiovoy.launcher import udp
from aiovoy.launcher.addresses import Address
from aiovoy.launcher.bootstrap import bootstrap
from aiovoy.launcher.config import Config
from aiovoy.launcher.lanes import LANES, MOST_WORKERS, VERSIONS, Lane
from aiovoy.launcher.workers.process import Process
from aiovoy.launcher.workers.supervisor import Supervisor
from py_tests.harness.certificates import Pair, authority
from py_tests.harness.deadline import DEADLINE, eventually
from py_tests.harness.exchange import Exchange, Response, ResponseCut
from py_tests.harness.folders import ROOT
from py_tests.harness.http3 import Endpoint, Http3Connection, Quic
from py_tests.harness.ipv6 import needs_ipv6
from py_tests.harness.load_app import ENDED, STARTED, STARTING, pid_in
from py_tests.harness.plain_envoy import PlainEnvoy, environment, free_ports
from py_tests.harness.serving import CRASHES, of_envoy, unlike_uvicorn
from py_tests.harness.wire import Tls
from py_tests.harness.workers import REPLACED, TLS, Site, Workers, rounds
from py_tests.workers.conftest import Start

pytestmark = [unlike_uvicorn("it speaks no HTTP/3"), of_envoy("it speaks no HTTP/3")]

RESPAWN = 60.0

# So that a connection on which nothing happens ends for another reason.
KEEP_ALIVE = 60

# Seconds that requests in flight have, where they are to outlast what is done meanwhile.
FOR_EVER = 600

# Some hundred packets of the client's.
UPLOAD = bytes(200_000)

Open = Callable[[int], Awaitable["Client"]]
"""The fixture `open_client`, which takes the server's port."""


@pytest.fixture
def start3(start: Start) -> Start:
    """Starts servers that speak HTTP/3: `start3(3, timeout_keep_alive=60)`."""

    def start3(number: int, **options: Any) -> Workers:
        return start(number, TLS, http3=True, **options)

    return start3


class Client:
    """A connection, and the process that it is with."""

    def __init__(self, connection: Http3Connection) -> None:
        self.connection = connection
        self.pid = 0

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1") -> "Client":
        client = cls(await Http3Connection.open(port, Tls(), host))
        try:
            client.pid = await client.ask()
        except BaseException:
            await client.connection.close()
            raise
        return client

    async def ask(self, path: str = "/", body: bytes = b"") -> int:
        """Which process has answered."""
        return process_of(await self.connection.request("POST" if body else "GET", path, body=body))

    async def begin(self) -> Exchange:
        """A request whose body is to come, and which the process has."""
        exchange = await self.connection.start("POST", "/upload", upload=True)
        # What comes later on a connection has come after it.
        assert await self.ask() == self.pid
        return exchange

    async def end(self, upload: Exchange) -> int:
        """Which process has answered such a request."""
        await upload.send(UPLOAD, end=True)
        return process_of(await upload.response())

    @property
    def is_told(self) -> bool:
        """Whether it has been told to go, or that the connection is over."""
        return self.connection.going_away.is_set() or self.connection.endpoint.closed.is_set()


def process_of(response: Response) -> int:
    assert response.status == 200, response
    return pid_in(response.body)


@pytest.fixture
async def open_client() -> AsyncIterator[Open]:
    async with contextlib.AsyncExitStack() as opened:

        async def open_client(port: int) -> Client:
            client = await Client.open(port)
            opened.push_async_callback(client.connection.close)
            return client

        yield open_client


async def one_each(open_client: Open, workers: Workers, pids: set[int]) -> dict[int, Client]:
    """A connection to each of these processes."""
    clients: dict[int, Client] = {}

    async def another() -> bool:
        client = await open_client(workers.server.ssl_port)
        clients.setdefault(client.pid, client)
        return set(clients) >= pids

    await eventually(another)
    return clients


class Load:
    """Clients that open connections and ask, until its end; each exchange that fails is told of in `failures`."""

    def __init__(self, workers: Workers, *, short: int = 2, slow: int = 2, lasting: int = 2) -> None:
        self.port = workers.server.ssl_port
        self.failures: list[str] = []
        self.answered: Counter[str] = Counter()
        self.served: Counter[int] = Counter()
        self.killed: dict[int, float] = {}
        """Processes that the test has killed, and when. What was with one of them, or may have been, is no failure."""
        self.told = 0
        """Connections that lasted until the server has said otherwise."""
        self._ending = False
        kinds = {"short": short, "slow": slow, "lasting": lasting}
        self._kinds = [kind for kind, number in kinds.items() if number]
        self._clients = [self._client(kind) for kind, number in kinds.items() for _ in range(number)]

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(client) for client in self._clients]
        return self

    async def __aexit__(self, kind: object, *exc: object) -> None:
        self._ending = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.wait(self._tasks)
        if kind is None:
            for task in self._tasks:
                task.result()

    async def more(self, each: int = 5, within: float = 2 * DEADLINE) -> None:
        """Waits until each kind of client has been answered so many times more."""
        goal = {kind: self.answered[kind] + each for kind in self._kinds}
        await eventually(lambda: all(self.answered[kind] >= number for kind, number in goal.items()), within)

    async def _client(self, kind: str) -> None:
        while not self._ending:
            begun = time.monotonic()
            try:
                client = await Client.open(self.port)
            except (ConnectionError, ResponseCut, TimeoutError) as error:
                if not any(begun < killed for killed in self.killed.values()):
                    self.failures.append(f"{kind}, a new connection: {error!r}")
                continue
            try:
                await self._use(kind, client)
            except (ConnectionError, ResponseCut, TimeoutError) as error:
                if client.pid not in self.killed:
                    self.failures.append(f"{kind}, with process {client.pid}: {error!r}")
            finally:
                await client.connection.close()

    async def _use(self, kind: str, client: Client) -> None:
        self._count(kind, client.pid)
        if kind == "slow" and not client.is_told:
            self._count(kind, await client.ask("/slow"))
        while kind == "lasting" and not self._ending:
            if client.is_told:
                self.told += 1
                return
            pid = await client.ask()
            if pid != client.pid:
                self.failures.append(f"process {pid} has answered on a connection of process {client.pid}")
            self._count(kind, pid)
            await asyncio.sleep(0.02)

    def _count(self, kind: str, pid: int) -> None:
        self.answered[kind] += 1
        self.served[pid] += 1


# --- Nothing happens ---


async def test_connections_spread_and_stay(start3: Start) -> None:
    workers = start3(3, timeout_keep_alive=KEEP_ALIVE)
    clients = await asyncio.gather(*(Client.open(workers.server.ssl_port) for _ in range(45)))
    spread = Counter(client.pid for client in clients)
    assert set(spread) == workers.pids()
    # By chance alone, fewer in one run of a thousand.
    assert min(spread.values()) >= 5, spread
    for _ in range(3):
        answered = await asyncio.gather(*(client.ask() for client in clients))
        assert answered == [client.pid for client in clients]
    some = clients[:9]
    assert await asyncio.gather(*(client.ask(body=UPLOAD) for client in some)) == [client.pid for client in some]
    for client in clients:
        await client.connection.close()


async def test_client_that_moves_stays_with_its_worker(start3: Start, open_client: Open) -> None:
    """It comes from another port, with the next of the ids that it has been given."""
    workers = start3(3, timeout_keep_alive=KEEP_ALIVE)
    clients = await one_each(open_client, workers, workers.pids())
    for client in clients.values():
        await client.connection.move()
        assert await client.ask(body=UPLOAD) == client.pid


@pytest.mark.parametrize("index", [0, VERSIONS, LANES - 1])
async def test_ids_lead_to_their_lane(index: int, pair: Pair, tmp_path: Path) -> None:
    """Envoy makes them as the launcher expects them, whatever their length."""
    lane = Lane(index)
    port, _ = free_ports()
    config = Config.of("py_tests.harness.load_app:app", app_dir=ROOT, http3=True, **pair.options)
    address, admin = Address("127.0.0.1", port, tls=True), tmp_path / "admin.sock"
    path = tmp_path / "bootstrap.yaml"
    path.write_text(bootstrap(config, addresses=[address], admin=admin, python=sys.executable, lane=lane))
    server = PlainEnvoy(path, ROOT, environment(), port, 1)
    try:
        await server.accepts()
        async with await Http3Connection.open(port, Tls()) as connection:
            quic = connection.endpoint.quic
            # One that came with the handshake, and one for later.
            await eventually(lambda: quic._peer_cid_available)
            for one in [quic._peer_cid, *quic._peer_cid_available]:
                assert (one.cid[0], len(one.cid)) == (lane.first_byte, 1 + lane.length + 1)
    finally:
        server.stop()


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "::"])
async def test_ipv6(start3: Start, host: str) -> None:
    workers = start3(2, host=host)
    clients = await asyncio.gather(*(Client.open(workers.server.ssl_port, "::1") for _ in range(16)))
    assert {client.pid for client in clients} == workers.pids()
    assert await asyncio.gather(*(client.ask() for client in clients)) == [client.pid for client in clients]
    old = workers.pids()
    workers.tell(signal.SIGHUP)
    await workers.replaced(old)
    clients.append(await Client.open(workers.server.ssl_port, "::1"))
    assert clients[-1].pid in workers.pids()
    for client in clients:
        await client.connection.close()


async def test_more_workers_than_there_are_ids_for(start: Start) -> None:
    workers = start(MOST_WORKERS + 1, TLS, http3=True, wait=False)
    assert await workers.server.exit_code() == 2
    assert f"`--http3` allows {MOST_WORKERS} workers" in workers.server.log


# --- Handshakes ---


class LongHello(Endpoint):
    """A client whose first message takes two packets. After the first one all it has to send waits."""

    def __init__(self, quic: Quic) -> None:
        super().__init__(quic)
        self.held: list[bytes] | None = []
        self.is_answered = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def begin(cls, workers: Workers) -> AsyncIterator["LongHello"]:
        """Sends the first packet, and waits until the server says that it has come."""
        to = ("127.0.0.1", workers.server.ssl_port)
        long_list = H3_ALPN + [f"{number}" * 250 for number in range(5)]
        configuration = QuicConfiguration(alpn_protocols=long_list, server_name="localhost")
        configuration.load_verify_locations(cadata=authority().cert_pem.bytes())
        quic = Quic(configuration=configuration)
        loop = asyncio.get_running_loop()
        _, client = await loop.create_datagram_endpoint(lambda: cls(quic), local_addr=("127.0.0.1", 0))
        try:
            client.connect(to)
            assert client.held
            client.transport.sendto(client.held.pop(0), to)
            async with asyncio.timeout(DEADLINE):
                await client.is_answered.wait()
            yield client
        finally:
            client.close()
            client.stop()

    def transmit(self) -> None:
        if self.held is None:
            super().transmit()
        else:
            self.held += [data for data, _ in self.quic.datagrams_to_send(now=asyncio.get_running_loop().time())]

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.is_answered.set()

    async def go_on(self) -> bool:
        """Sends what waits. Whether the handshake succeeds."""
        held, self.held = self.held, None
        for data in held or []:
            self.transport.sendto(data, self.quic._network_paths[0].addr)
        self.transmit()
        try:
            async with asyncio.timeout(DEADLINE):
                await self.wait_connected()
        except (ConnectionError, TimeoutError):
            return False
        return True


async def test_hello_of_two_packets(start3: Start) -> None:
    """All of it gets to the same worker."""
    workers = start3(4)
    for _ in range(8):
        async with LongHello.begin(workers) as client:
            assert await client.go_on()


async def test_hello_of_two_packets_between_which_the_worker_is_replaced(start3: Start) -> None:
    """The old one stays for it, for a second. A slow machine may take longer, so one of several must succeed."""
    workers = start3(1)
    succeeded: list[bool] = []
    while not any(succeeded) and len(succeeded) < 3:
        async with LongHello.begin(workers) as client:
            workers.tell(signal.SIGHUP)
            await workers.said(REPLACED, times=len(succeeded) + 1)
            await asyncio.sleep(0.4)
            succeeded.append(await client.go_on())
    assert any(succeeded)


# --- Replacement ---


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("first", ["new", "old"])
async def test_replacement_loses_no_request(start3: Start, site: Site, number: int, first: str) -> None:
    workers = start3(number, replace_first=first)
    seen = pids = workers.pids()
    async with Load(workers) as load:
        await load.more()
        for _ in range(rounds(3 // number, 10)):
            workers.tell(signal.SIGHUP)
            pids = await workers.replaced(pids)
            seen = seen | pids
            await load.more()
        assert load.told >= 2
    assert not load.failures, load.failures
    assert set(load.served) <= seen
    assert {event.pid for event in site.events(ENDED)} == seen - pids
    assert not CRASHES.search(workers.server.log)


async def test_replacement_touches_no_connection_of_other_workers(start3: Start, site: Site, open_client: Open) -> None:
    workers = start3(3, timeout_keep_alive=KEEP_ALIVE)
    old = workers.pids()
    clients = await one_each(open_client, workers, old)
    numbers = {event.worker: event.pid for event in site.events(STARTED)}
    leaving = clients[numbers["1"]]
    upload = await leaving.begin()
    # The replacement of the second one does not come to an end.
    site.write("hold-2")
    workers.tell(signal.SIGHUP)
    await workers.said(REPLACED)
    assert await leaving.end(upload) == leaving.pid
    await eventually(lambda: leaving.is_told)
    await site.event(STARTING, number=2, but=old)
    await workers.become(4, without={leaving.pid})
    for pid in old - {leaving.pid}:
        assert await clients[pid].ask(body=UPLOAD) == pid
        assert not clients[pid].is_told


async def test_several_replacements_at_a_time(start3: Start, site: Site, open_client: Open) -> None:
    """Workers of several generations live on with their requests, each in a lane of its own."""
    workers = start3(1, timeout_graceful_shutdown=FOR_EVER)
    uploads: list[tuple[Client, Exchange]] = []
    for replaced in range(1, 5):
        client = await open_client(workers.server.ssl_port)
        uploads.append((client, await client.begin()))
        workers.tell(signal.SIGHUP)
        await workers.said(REPLACED, times=replaced)
    pids = {client.pid for client, _ in uploads}
    assert len(pids) == 4
    for client, upload in uploads:
        assert await client.end(upload) == client.pid
    assert (await open_client(workers.server.ssl_port)).pid not in pids
    await workers.become(1)


async def test_worker_comes_when_there_is_a_lane_for_it(
    open_client: Open, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are those of workers that retire, until one of these has gone."""
    monkeypatch.setattr(udp, "LANES", 3)
    app = "py_tests.harness.load_app:app"
    options: dict[str, Any] = {"timeout_graceful_shutdown": FOR_EVER, **pair.options}
    config = Config.of(app, app_dir=ROOT, port=0, http3=True, **options)
    supervisor = Supervisor(config)
    try:
        await asyncio.wrap_future(supervisor.ready)
        slot = supervisor._slots[0]
        served: list[Process] = []
        streams: list[Exchange] = []
        while len(served) < 3:
            await eventually(lambda: slot.current is not None and slot.current not in served)
            assert slot.current is not None
            served.append(slot.current)
            client = await open_client(supervisor.port)
            assert client.pid == slot.current.pid
            streams.append(await client.connection.start("GET", "/events"))
            assert await streams[-1].head() == 200
            supervisor.roll()
        await eventually(lambda: slot.task is not None)
        assert (slot.coming, slot.latest) == (None, served[2])
        await streams[1].leave()
        await eventually(lambda: slot.current is not served[2], within=RESPAWN)
        assert slot.current is not None
        assert slot.current.lane == served[1].lane
        for stream in streams:
            await stream.leave()
    finally:
        supervisor.shutdown()
        await asyncio.wrap_future(supervisor.exited)


# --- Crash ---


async def test_kill_of_one_worker_ends_its_connections_alone(start3: Start, site: Site, open_client: Open) -> None:
    workers = start3(3, timeout_keep_alive=KEEP_ALIVE)
    pids = workers.pids()
    clients = await one_each(open_client, workers, pids)
    (event,) = [event for event in site.events(STARTED) if event.worker == "2"]
    victim = event.pid
    site.write("hold-2")
    async with Load(workers) as load:
        await load.more()
        os.kill(victim, signal.SIGKILL)
        load.killed[victim] = time.monotonic()
        # It is told that its connection is over as soon as it says anything, also while nobody is in its place.
        with pytest.raises(ResponseCut, match="stateless reset"):
            await clients[victim].ask()
        await load.more(10)
        site.remove("hold-2")
        await workers.become(3, without={victim}, within=RESPAWN)
        await site.event(STARTED, but=pids, within=RESPAWN)
        await load.more(10)
        await eventually(lambda: workers.pids() <= set(load.served))
    assert not load.failures, load.failures
    for pid in pids - {victim}:
        assert await clients[pid].ask(body=UPLOAD) == pid


async def test_successor_of_the_only_worker_ends_its_connections(start3: Start, open_client: Open) -> None:
    workers = start3(1)
    client = await open_client(workers.server.ssl_port)
    os.kill(client.pid, signal.SIGKILL)
    left = asyncio.create_task(client.ask())
    # It waits for whoever comes.
    new = await open_client(workers.server.ssl_port)
    assert new.pid != client.pid
    with pytest.raises(ResponseCut, match="stateless reset"):
        await left


async def test_workers_answer_what_is_in_flight_when_the_launcher_is_killed(
    start3: Start, site: Site, open_client: Open
) -> None:
    workers = start3(2)
    clients = await one_each(open_client, workers, workers.pids())
    uploads = [(client, await client.begin()) for client in clients.values()]
    os.kill(workers.server.pid, signal.SIGKILL)
    await workers.server.exit_code()
    assert {await client.end(upload) for client, upload in uploads} == set(clients)
    await eventually(lambda: not site.processes())


# --- More and fewer, and the end ---


async def test_one_more_and_one_fewer(start3: Start, site: Site, open_client: Open) -> None:
    workers = start3(2, timeout_keep_alive=KEEP_ALIVE)
    first = workers.pids()
    clients = await one_each(open_client, workers, first)
    async with Load(workers) as load:
        workers.tell(signal.SIGTTIN)
        more = await workers.become(3)
        await site.event(STARTED, number=3)
        clients |= await one_each(open_client, workers, more)
        workers.tell(signal.SIGTTOU)
        (leaving,) = more - first
        await eventually(lambda: clients[leaving].is_told)
        assert await workers.become(2) == first
        await load.more()
    assert not load.failures, load.failures
    for pid in first:
        assert await clients[pid].ask(body=UPLOAD) == pid


async def test_requests_in_flight_are_answered_when_the_server_stops(
    start3: Start, site: Site, open_client: Open
) -> None:
    """Also after replacements, when some of the server's sockets are nobody's, and while other workers end."""
    workers = start3(3, timeout_graceful_shutdown=FOR_EVER)
    old = workers.pids()
    workers.tell(signal.SIGHUP)
    pids = await workers.replaced(old)
    (idle,) = [event.pid for event in site.events(STARTED, pids) if event.worker == "2"]
    clients = [await open_client(workers.server.ssl_port) for _ in range(24)]
    uploads = [(client, await client.begin()) for client in clients if client.pid != idle]
    workers.server.signal(signal.SIGTERM)
    await workers.become(2, without={idle})
    # A packet that got to the wrong process would end its connection.
    assert [await client.end(upload) for client, upload in uploads] == [client.pid for client, _ in uploads]
    assert await workers.server.exit_code() == 0
