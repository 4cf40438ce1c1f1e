"""The UDP port of HTTP/3, and which process gets a packet: by real sockets, and packets that only look like QUIC."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from aiovoy.launcher import steering
from aiovoy.launcher.bootstrap import bootstrap
from aiovoy.launcher.config import Config
from aiovoy.launcher.errors import StartupError
from aiovoy.launcher.lanes import LANES, MOST_WORKERS, Lane
from aiovoy.launcher.listening import Listening
from aiovoy.launcher.port import HeldPort
from aiovoy.launcher.udp import HeldUdp
from py_tests.harness.certificates import Pair
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")


@pytest.fixture(params=["127.0.0.1", "::1"])
def held(request: pytest.FixtureRequest) -> Iterator[HeldUdp]:
    with taken(request.param) as held:
        yield held


@contextlib.contextmanager
def taken(host: str, *, several: bool = True) -> Iterator[HeldUdp]:
    port = HeldPort(host, 0, udp=True)
    assert port.udp is not None
    with contextlib.closing(port), contextlib.closing(HeldUdp(port.udp, several=several)) as held:
        yield held


def long(connection_id: bytes) -> bytes:
    """A packet of the handshake, RFC 9000, section 17.2."""
    return b"\xc0\0\0\0\1" + bytes([len(connection_id)]) + connection_id + b"\0" * 32


def short(connection_id: bytes) -> bytes:
    """A packet of an established connection, RFC 9000, section 17.3."""
    return b"\x40" + connection_id + b"\0" * 32


HEADERS = [long, short]


def id_of(lane: Lane) -> bytes:
    """As Envoy makes them."""
    return bytes([lane.first_byte]) + os.urandom(lane.length) + b"\0"


def send(held: HeldUdp, *packets: bytes) -> None:
    """Each from a port of its own."""
    for packet in packets:
        to = held.socket(Lane(0))
        with socket.socket(to.family, socket.SOCK_DGRAM) as client:
            client.sendto(packet, to.getsockname())


def received(held: HeldUdp, lane: Lane) -> list[bytes]:
    """What waits in the lane's socket."""
    packets: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            packets.append(held.socket(lane).recv(2048))
    return packets


def test_lanes_have_ids_of_their_own() -> None:
    first_bytes = {Lane(index).first_byte for index in range(LANES)}
    assert len(first_bytes) == LANES
    # The draft has no configuration of that number, and no id is longer than 20 bytes.
    assert all(first >> 5 < 7 for first in first_bytes)
    assert max(len(id_of(Lane(index))) for index in range(LANES)) <= 20
    assert LANES > MOST_WORKERS


@pytest.mark.parametrize("header", HEADERS)
def test_packets_go_where_their_ids_belong(held: HeldUdp, header: Callable[[bytes], bytes]) -> None:
    lanes = [held.take() for _ in range(20)]  # of different lengths, too
    held.steer(lanes[:3], lanes)
    packets = {lane: [header(id_of(lane)) for _ in range(5)] for lane in lanes}
    send(held, *(packet for some in packets.values() for packet in some))
    assert {lane: received(held, lane) for lane in lanes} == packets


@pytest.mark.parametrize("several", [True, False])
def test_socket_that_is_added_takes_no_packets(several: bool) -> None:
    """Else its process would find them when it comes, and reset connections that are another's."""
    with taken("127.0.0.1", several=several) as held:
        lane = held.take()
        packets = [short(id_of(lane)) for _ in range(60)]
        send(held, *packets[:20])
        held.take()
        send(held, *packets[20:40])
        held.take()
        send(held, *packets[40:])
        assert received(held, lane) == packets


def test_new_connections_are_spread_and_stay(held: HeldUdp) -> None:
    lanes = [held.take() for _ in range(4)]
    held.steer(lanes[:3], lanes)
    packets = [long(os.urandom(8)) for _ in range(120)]
    send(held, *packets)
    first = [sorted(received(held, lane)) for lane in lanes]
    assert min(len(some) for some in first[:3]) >= 15
    assert not first[3]
    # A hello that is longer than a packet, or is sent again, from another port at that.
    send(held, *packets)
    assert [sorted(received(held, lane)) for lane in lanes] == first


def test_replaced_process_keeps_its_connections_and_gets_no_new_ones(held: HeldUdp) -> None:
    old, other = held.take(), held.take()
    held.steer([old, other], [old, other])
    hellos = [long(os.urandom(8)) for _ in range(40)]
    send(held, *hellos)
    before = received(held, old)
    elsewhere = sorted(received(held, other))
    new = held.take()
    held.steer([new, other], [old, other, new])
    mine = short(id_of(old))
    send(held, mine, *hellos)
    assert received(held, old) == [mine]
    # Only those of the slot have moved.
    assert sorted(received(held, new)) == sorted(before)
    assert sorted(received(held, other)) == elsewhere


@pytest.mark.parametrize("header", HEADERS)
def test_ids_that_lead_nowhere_are_as_new(held: HeldUdp, header: Callable[[bytes], bytes]) -> None:
    """Whoever gets them says so to the client."""
    gone, taker = held.take(), held.take()
    held.give_back(gone)
    held.steer([taker], [taker])
    packets = [header(id_of(gone)), header(id_of(Lane(LANES - 1))), header(os.urandom(20))]
    send(held, *packets)
    assert received(held, taker) == packets
    assert not received(held, gone)


def test_id_of_a_client_that_only_begins_like_a_lane_s_is_new(held: HeldUdp) -> None:
    lane, taker = held.take(), held.take()
    held.steer([taker], [lane, taker])
    lengths = [8, 9, 12, 16, 20]
    assert len(id_of(lane)) not in lengths
    packets = [long((id_of(lane) + os.urandom(20))[:length]) for length in lengths]
    send(held, *packets)
    assert received(held, taker) == packets


def test_new_connections_wait_for_who_comes_if_nobody_is_there(held: HeldUdp) -> None:
    leaving = held.take()
    held.steer([], [leaving])
    hello, mine = long(os.urandom(8)), short(id_of(leaving))
    send(held, hello, mine)
    assert received(held, leaving) == [mine]
    assert received(held, held.take()) == [hello]


def test_successor_of_one_that_died_has_its_socket(held: HeldUdp) -> None:
    lanes = [held.take() for _ in range(3)]
    held.give_back(lanes[0])
    held.give_back(lanes[1])
    assert held.take() == lanes[1]
    assert held.take() == lanes[0]
    assert held.take() not in lanes


def test_no_two_have_the_same_lane() -> None:
    with taken("127.0.0.1") as held:
        lanes = []
        while not held.is_full:
            lanes.append(held.take())
        assert len(set(lanes)) == LANES
        held.steer(lanes, lanes)
        packets = [short(id_of(lane)) for lane in lanes]
        send(held, *packets)
        assert [received(held, lane) for lane in lanes] == [[packet] for packet in packets]
        held.steer([], lanes)  # there is no room for who comes, and nothing changes
        held.give_back(lanes[5])
        assert not held.is_full
        assert held.take() == lanes[5]


def test_inherited_port_is_not_that_of_http3(pair: Pair) -> None:
    """It is one of TCP alone."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        config = Config.of("main:app", bind=[f"fd://{os.dup(given.fileno())}", ":0"], http3=True, **pair.options)
        with contextlib.closing(Listening(config, 2)) as listening:
            _, own = listening.addresses
            assert listening.udp is not None
            assert listening.udp.name == own.name.replace("tcp", "udp")
            text = bootstrap(config, addresses=listening.addresses, admin="admin.sock", python="python")
    assert f'h3=\\":{own.port}\\"' in text


def test_no_more_workers_than_there_are_lanes_for(pair: Pair) -> None:
    config = Config.of("main:app", port=0, http3=True, **pair.options)
    with contextlib.closing(Listening(config, 1)) as listening:
        listening.grow(MOST_WORKERS)
        with pytest.raises(OSError, match=f"HTTP/3 allows {MOST_WORKERS} workers"):
            listening.grow(MOST_WORKERS + 1)


def test_what_is_no_packet_harms_nothing(held: HeldUdp) -> None:
    lane, taker = held.take(), held.take()
    held.steer([taker], [lane, taker])
    garbage = [b"", b"\x40", b"\xc0\0\0\0\1", b"\xc0\0\0\0\1\xff", long(b"")[:10], b"\xff" * 1200]
    send(held, *garbage)
    # What is too short for the program goes to the first socket.
    assert sorted(received(held, lane) + received(held, taker)) == sorted(garbage)
    mine = short(id_of(lane))
    send(held, mine)
    assert received(held, lane) == [mine]


def test_stranger_in_the_group_gets_nothing(held: HeldUdp) -> None:
    lanes = [held.take(), held.take()]
    held.steer(lanes, lanes)
    mine = held.socket(lanes[0])
    with socket.socket(mine.family, socket.SOCK_DGRAM) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(mine.getsockname())
        stranger.setblocking(False)
        send(held, *(long(os.urandom(8)) for _ in range(60)), *(short(os.urandom(20)) for _ in range(60)))
        with pytest.raises(BlockingIOError):
            stranger.recv(2048)
    assert sum(len(received(held, lane)) for lane in lanes) == 120


def test_one_process_needs_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kernels, such as that of a sandbox, have none."""
    monkeypatch.setattr(steering, "_SO_ATTACH_REUSEPORT_CBPF", 9999)
    words = "cannot share the port of HTTP/3 among workers: protocol not available"
    with pytest.raises(StartupError, match=words), taken("127.0.0.1"):
        pass
    with taken("127.0.0.1", several=False) as held:
        lane = held.take()
        held.steer([lane], [lane])
        hello = long(os.urandom(8))
        send(held, hello)
        assert received(held, lane) == [hello]
