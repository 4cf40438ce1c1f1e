"""Ports that the launcher holds, and who gets their connections."""

import contextlib
import errno
import select
import socket

import pytest

from aiovoy.launcher.errors import StartupError
from aiovoy.launcher.port import HeldPort
from py_tests.harness.serving import unlike_uvicorn

pytestmark = unlike_uvicorn("this is about aiovoy")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "::", ""])
def test_port_is_ours_alone(host: str) -> None:
    held = HeldPort(host, 0)
    with pytest.raises(StartupError, match=f":{held.address.port}: address already in use"):
        HeldPort(host, held.address.port)
    held.close()
    HeldPort(host, held.address.port).close()


def accepted(held: HeldPort, slots: int) -> list[int]:
    """How many of the connections that wait each slot has."""
    counts = [0] * slots
    for slot in range(slots):
        with contextlib.suppress(BlockingIOError):
            while True:
                held.socket(slot).accept()[0].close()
                counts[slot] += 1
    return counts


def connect(held: HeldPort, count: int = 90) -> None:
    for _ in range(count):
        socket.create_connection((held.address.host, held.address.port), timeout=5).close()


def test_connections_are_steered_to_slots_that_are_live() -> None:
    held = HeldPort("127.0.0.1", 0)
    held.grow(3)
    held.listen()
    held.steer([0, 1, 2])
    connect(held)
    assert min(accepted(held, 3)) >= 10
    held.steer([0, 2])
    connect(held)
    first, second, third = accepted(held, 3)
    assert (second, first + third) == (0, 90)
    assert min(first, third) >= 20
    held.steer([1])
    connect(held)
    assert accepted(held, 3) == [0, 90, 0]
    held.close()


def test_slot_that_is_added_has_the_next_index() -> None:
    held = HeldPort("127.0.0.1", 0)
    held.listen()
    connect(held, 3)
    held.grow(2)
    held.steer([1])
    connect(held, 3)
    assert accepted(held, 2) == [3, 3]
    held.close()


def test_stranger_in_the_group_gets_nothing() -> None:
    held = HeldPort("127.0.0.1", 0)
    held.grow(2)
    held.listen()
    held.steer([0, 1])
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind((held.address.host, held.address.port))
        stranger.listen()
        stranger.setblocking(False)
        connect(held)
        with pytest.raises(BlockingIOError):
            stranger.accept()
    assert sum(accepted(held, 2)) == 90
    held.close()


def test_who_comes_when_it_closes_is_told_so_later() -> None:
    held = HeldPort("127.0.0.1", 0)
    held.listen()
    connect(held, 3)
    held.close_soon()
    with socket.socket() as late:
        late.setblocking(False)
        assert late.connect_ex((held.address.host, held.address.port)) == errno.EINPROGRESS
        assert accepted(held, 1) == [3]
        held.close()
        _, refused, _ = select.select([], [late], [], 20)
        assert refused
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_port_where_old_connections_linger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        listener.accept()[0].close()  # the side that closes first keeps the port in TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    held = HeldPort("127.0.0.1", port)
    with pytest.raises(StartupError, match="address already in use"):
        HeldPort("127.0.0.1", port)
    held.close()


def test_connections_that_linger_do_not_keep_the_port() -> None:
    held = HeldPort("127.0.0.1", 0)
    held.listen()
    with socket.create_connection((held.address.host, held.address.port), timeout=5) as client:
        accepted, _ = held.socket(0).accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        assert client.recv(1) == b""
    held.close()
    HeldPort("127.0.0.1", held.address.port).close()


def test_unknown_host() -> None:
    with pytest.raises(StartupError, match=r"cannot resolve the host name `no\.such\.invalid`"):
        HeldPort("no.such.invalid", 0)
