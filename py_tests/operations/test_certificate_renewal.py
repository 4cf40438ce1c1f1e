"""Certificates that are replaced on disk while the server runs, in all the ways that people and programs do it."""

import asyncio
import functools
import os
import shutil
from pathlib import Path

import pytest
import trustme

from py_tests.harness.apps import Receive, Scope, Send, answer, routes
from py_tests.harness.certificates import Pair, authority_file
from py_tests.harness.deadline import eventually
from py_tests.harness.exchange import ResponseCut
from py_tests.harness.serving import Serve, Server, of_envoy, unlike_uvicorn
from py_tests.harness.tls_clients import CLIENTS, Client, serial
from py_tests.harness.wire import Tls

pytestmark = [unlike_uvicorn("this is about aiovoy"), of_envoy("it has no TLS")]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")


app = routes(hello)


def options(folder: Path) -> dict[str, object]:
    return {"ssl_certfile": folder / "tls.crt", "ssl_keyfile": folder / "tls.key", "http3": True}


async def serials(server: Server) -> set[int]:
    """Which certificates new connections get: one of each protocol."""
    found = set()
    for client in CLIENTS:
        async with await client.open(server.ssl_port, Tls()) as connection:
            assert (await connection.get("/hello")).body == b"hello"
            found.add(serial(connection))
    return found


async def renewed(server: Server, pair: Pair) -> None:
    """Waits until all new connections get the certificate."""

    async def all_get_it() -> bool:
        return await serials(server) == {pair.serial}

    await eventually(all_get_it)


# --- Ways of replacing; each begins with the first pair ---


class Renamed:
    """Files that are moved over the old ones."""

    def __init__(self, folder: Path, first: Pair) -> None:
        self.folder = folder
        self.replace(first)

    def replace(self, pair: Pair) -> None:
        os.replace(pair.keyfile, self.folder / "tls.key")
        os.replace(pair.certfile, self.folder / "tls.crt")


class Rewritten(Renamed):
    """Files that get another content."""

    def replace(self, pair: Pair) -> None:
        (self.folder / "tls.crt").write_bytes(pair.chain)
        (self.folder / "tls.key").write_bytes(pair.key)


class Relinked(Renamed):
    """Symbolic links that are moved over the old ones."""

    def replace(self, pair: Pair) -> None:
        for name, file in [("tls.crt", pair.certfile), ("tls.key", pair.keyfile)]:
            (self.folder / "new").symlink_to(file)
            os.replace(self.folder / "new", self.folder / name)


class Certbot(Renamed):
    """Symbolic links that are removed and made again."""

    def replace(self, pair: Pair) -> None:
        for name, file in [("tls.crt", pair.certfile), ("tls.key", pair.keyfile)]:
            (self.folder / name).unlink(missing_ok=True)
            (self.folder / name).symlink_to(file)


class Kubernetes(Renamed):
    """Links into a folder that is itself a link, which is replaced; the old files are removed."""

    def __init__(self, folder: Path, first: Pair) -> None:
        super().__init__(folder, first)
        for name in ["tls.crt", "tls.key"]:
            (folder / name).symlink_to(f"..data/{name}")

    def replace(self, pair: Pair) -> None:
        data = self.folder / f"..{pair.serial}"
        data.mkdir()
        os.replace(pair.certfile, data / "tls.crt")
        os.replace(pair.keyfile, data / "tls.key")
        link = self.folder / "..data"
        old = link.resolve() if link.exists() else None
        (self.folder / "..data_tmp").symlink_to(data.name)
        os.replace(self.folder / "..data_tmp", link)
        if old is not None:
            shutil.rmtree(old)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the server's files are."""
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("way", [Renamed, Rewritten, Relinked, Certbot, Kubernetes])
async def test_renewed_certificate_is_seen(serve: Serve, tmp_path: Path, folder: Path, way: type[Renamed]) -> None:
    pairs = [Pair(tmp_path, name=f"{number}") for number in range(3)]
    files = way(folder, pairs[0])
    server = serve(f"{__name__}:app", **options(folder))
    assert await serials(server) == {pairs[0].serial}
    for pair in pairs[1:]:
        files.replace(pair)
        await renewed(server, pair)
    assert "warning" not in server.log


async def test_no_request_fails_while_certificates_are_renewed(serve: Serve, tmp_path: Path, folder: Path) -> None:
    pairs = [Pair(tmp_path, name=f"{number}") for number in range(4)]
    files = Renamed(folder, pairs[0])
    server = serve(f"{__name__}:app", **options(folder))
    over = asyncio.Event()
    done = {"kept": 0, "fresh": 0}

    async def keep(client: Client) -> None:
        """Requests on one connection, from before the first renewal to after the last."""
        async with await client.open(server.ssl_port, Tls()) as connection:
            while not over.is_set():
                assert (await connection.get("/hello")).body == b"hello"
                done["kept"] += 1
                await asyncio.sleep(0)
            assert serial(connection) == pairs[0].serial

    async def come_and_go(client: Client) -> None:
        while not over.is_set():
            async with await client.open(server.ssl_port, Tls()) as connection:
                assert (await connection.get("/hello")).body == b"hello"
                done["fresh"] += 1
                await asyncio.sleep(0)

    def busy(turns: int) -> bool:
        return done["kept"] > 50 * turns and done["fresh"] > 5 * turns

    async def renew() -> None:
        for number, pair in enumerate(pairs[1:], 1):
            await eventually(functools.partial(busy, number))
            files.replace(pair)
            await renewed(server, pair)
        over.set()

    async with asyncio.TaskGroup() as tasks:
        for client in CLIENTS:
            tasks.create_task(keep(client))
            tasks.create_task(come_and_go(client))
        tasks.create_task(renew())


async def test_half_a_renewal_waits_for_the_other_half(serve: Serve, tmp_path: Path, folder: Path) -> None:
    first, second = (Pair(tmp_path, name=name) for name in ("first", "second"))
    Renamed(folder, first)
    server = serve(f"{__name__}:app", **options(folder))
    for half in [second.chain[:200], second.chain]:
        (folder / "tls.crt").write_bytes(half)
        await eventually(lambda: "kept the certificate in use" in server.log)
        assert await serials(server) == {first.serial}
    (folder / "tls.key").write_bytes(second.key)
    await renewed(server, second)
    (warning,) = server.log.strip().splitlines()[1:]
    assert f"`{folder / 'tls.crt'}`" in warning


async def test_missing_file_is_waited_for(serve: Serve, tmp_path: Path, folder: Path) -> None:
    first, second = (Pair(tmp_path, name=name) for name in ("first", "second"))
    files = Renamed(folder, first)
    server = serve(f"{__name__}:app", **options(folder))
    (folder / "tls.key").unlink()
    await eventually(lambda: f"`ssl_keyfile` `{folder / 'tls.key'}`: No such file" in server.log)
    assert await serials(server) == {first.serial}
    files.replace(second)
    await renewed(server, second)


async def test_authorities_of_clients_are_renewed(serve: Serve, tmp_path: Path, folder: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    client = Pair(tmp_path, "me@shop.test", name="client", by=new)
    Renamed(folder, Pair(tmp_path))
    server = serve(
        f"{__name__}:app", **options(folder), ssl_ca_certs=authority_file(folder, old), ssl_cert_reqs="required"
    )

    async def let_in() -> bool:
        for kind in CLIENTS:
            try:
                async with await kind.open(server.ssl_port, Tls(certificate=client)) as connection:
                    assert (await connection.get("/hello")).body == b"hello"
            except (OSError, ResponseCut):
                return False
        return True

    assert not await let_in()
    authority_file(folder, new)
    await eventually(let_in)
