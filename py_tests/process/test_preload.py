"""Libraries in LD_PRELOAD: allocators are kept from Envoy, which has its own; what else there is, is loaded."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from aiovoy.allocators import allocators_among
from py_tests.harness.apps import Receive, Scope, Send, answer, routes
from py_tests.harness.plain_envoy import environment, envoy
from py_tests.harness.serving import Serve, of_envoy, unlike_uvicorn

pytestmark = unlike_uvicorn("it runs in a plain Python")

# `operator new` has memory of its own, and `operator delete` gives it to the `free` that the loader has found: this one
# where it can be found, as in jemalloc.
ALLOCATOR = """
#include <stddef.h>
extern void *__libc_malloc(size_t), __libc_free(void *);
static char memory[1 << 28];
static size_t used;
static int is_own(void *at) { return (char *)at >= memory && (char *)at < memory + sizeof memory; }
void *malloc(size_t size) { return __libc_malloc(size); }
void free(void *at) { if (!is_own(at)) __libc_free(at); }
void *_Znwm(size_t size) { return memory + __atomic_fetch_add(&used, (size + 15) & ~15ul, __ATOMIC_RELAXED); }
void _ZdlPv(void *at) { free(at); }
"""

MALLOC = """
#include <stddef.h>
extern void *__libc_malloc(size_t);
void *malloc(size_t size) { return __libc_malloc(size); }
"""

NOTHING = "int nothing_of_an_allocator;"

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds a shared library: `build("name", code, *options)`."""

    def build(name: str, code: str, *options: str) -> Path:
        library, source = tmp_path / f"lib{name}.so", tmp_path / f"{name}.c"
        source.write_text(code)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-fno-builtin", "-o", library, source, *options], check=True)
        return library

    return build


PRINTS = "import json, os; print(json.dumps(os.environ.get('LD_PRELOAD')))"


async def seen(scope: Scope, receive: Receive, send: Send) -> None:
    """What the application and a program that it starts have of LD_PRELOAD, and what is loaded."""
    # An extension in C++ that is at work.
    for _ in range(3):
        grpc.insecure_channel("127.0.0.1:1").close()
    child = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, check=True)
    with open("/proc/self/maps") as maps:
        loaded = {line.split()[-1] for line in maps if "/" in line}
    await answer(
        send, {"own": os.environ.get("LD_PRELOAD"), "child": json.loads(child.stdout), "loaded": sorted(loaded)}
    )


@of_envoy("it has the allocator that is preloaded")
async def test_allocator_is_kept_from_envoy_and_left_to_subprocesses(serve: Serve, build: Build) -> None:
    allocator, other = build("allocator", ALLOCATOR), build("other", NOTHING)
    preload = f"{allocator}:{other}"
    server = serve(f"{__name__}:app", env={"LD_PRELOAD": preload})
    told = (await server.get("/seen")).json()
    assert (told["own"], told["child"]) == (preload, preload)
    assert str(other) in told["loaded"]
    assert str(allocator) not in told["loaded"]
    assert f"`{allocator}` of LD_PRELOAD is for subprocesses only" in server.log
    assert str(other) not in server.log


@of_envoy("it has the allocator that is preloaded")
async def test_allocator_is_found_as_the_loader_finds_it(serve: Serve, build: Build) -> None:
    allocator = build("allocator", ALLOCATOR)
    env = {"LD_PRELOAD": allocator.name, "LD_LIBRARY_PATH": str(allocator.parent)}
    server = serve(f"{__name__}:app", env=env)
    told = (await server.get("/seen")).json()
    assert (told["own"], told["child"]) == (allocator.name, allocator.name)
    assert str(allocator) not in told["loaded"]


@of_envoy("it has the allocator that is preloaded")
async def test_library_that_needs_an_allocator_is_one(serve: Serve, build: Build) -> None:
    allocator = build("allocator", ALLOCATOR)
    folder = str(allocator.parent)
    linked = ["-Wl,--no-as-needed", f"-L{folder}", "-lallocator", f"-Wl,-rpath,{folder}"]
    profiler = build("profiler", NOTHING, *linked)
    server = serve(f"{__name__}:app", env={"LD_PRELOAD": str(profiler)})
    assert str(allocator) not in (await server.get("/seen")).json()["loaded"]
    assert f"`{profiler}` of LD_PRELOAD is for subprocesses only" in server.log


@pytest.mark.parametrize("code", [NOTHING, MALLOC], ids=["nothing", "malloc alone"])
async def test_library_without_operator_new_is_loaded(serve: Serve, build: Build, code: str) -> None:
    """Envoy's `malloc` comes before that of the library, and `free` with it."""
    library = build("library", code)
    server = serve(f"{__name__}:app", env={"LD_PRELOAD": str(library)})
    told = (await server.get("/seen")).json()
    assert (told["own"], told["child"]) == (str(library), str(library))
    assert str(library) in told["loaded"]
    assert "LD_PRELOAD" not in server.log


async def test_allocator_in_a_plain_envoy_is_warned_of(build: Build, tmp_path: Path) -> None:
    allocator = build("allocator", ALLOCATOR)
    with envoy(tmp_path, env={**environment(), "LD_PRELOAD": str(allocator)}) as server:
        await server.accepts()
        assert f"`{allocator}` is preloaded" in server.log


def test_allocators_are_told_from_other_files(build: Build, tmp_path: Path) -> None:
    allocator = build("allocator", ALLOCATOR)
    others = [build("other", NOTHING), build("malloc", MALLOC), Path(sys.executable), tmp_path, tmp_path / "missing"]
    whole = allocator.read_bytes()
    for size in [0, 4, 63, 64, 1000, len(whole) - 1000]:
        others.append(tmp_path / f"cut-{size}")
        others[-1].write_bytes(whole[:size])
    assert allocators_among(map(str, [*others, allocator])) == [str(allocator)]


app = routes(seen)
