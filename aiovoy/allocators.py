"""Allocators among the libraries that are preloaded.

Envoy brings a `malloc` and a `free` of its own. All libraries in its process use them, since the loader looks for
symbols in the program first. It does not bring C++'s `operator new` and `operator delete`, which extensions then get
from a preloaded allocator. jemalloc's `operator delete` calls the `free` that the loader has found, so that its memory
is given to Envoy's.
"""

import mmap
import re
import struct
import subprocess
from collections.abc import Iterable, Mapping

_BOTH = {b"malloc", b"_Znwm"}
"""`malloc` and `operator new`. Allocators define both; libc has but the one, libstdc++ but the other."""


def preloads(value: str | None) -> list[str]:
    """The entries of `LD_PRELOAD`, of which this is the value."""
    return re.findall("[^ :]+", value or "")


def preloaded_allocators(program: str, environ: Mapping[str, str]) -> list[str]:
    """The entries of `LD_PRELOAD` in `environ` that would load an allocator into `program`: one that is an allocator,
    or needs one."""
    entries = preloads(environ.get("LD_PRELOAD"))
    without = _loaded(program, {**environ, "LD_PRELOAD": ""}) if entries else set()
    return [
        entry for entry in entries if allocators_among(_loaded(program, {**environ, "LD_PRELOAD": entry}) - without)
    ]


def _loaded(program: str, environ: Mapping[str, str]) -> set[str]:
    """The files of the libraries that would be loaded into `program`. The loader lists them in place of running it, as
    for `ldd`."""
    traced = {**environ, "LD_TRACE_LOADED_OBJECTS": "1"}
    try:
        said = subprocess.run(
            [program, "--version"], env=traced, stdin=subprocess.DEVNULL, capture_output=True, errors="replace"
        )
    except OSError:
        return set()  # whoever starts it says why
    return set(re.findall(r"(/[^\n]*) \(0x", said.stdout.replace(" => ", "\n")))


def loaded_allocators() -> list[str]:
    """The files of allocators in this process."""
    with open("/proc/self/maps") as maps:
        return allocators_among({line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/" in line})


def allocators_among(files: Iterable[str]) -> list[str]:
    return [file for file in files if _defines_both(file)]


_DYNSYM = 11
"""The type of the section with the symbols that a library shows others (ELF specification, "Sections")."""


def _defines_both(file: str) -> bool:
    """Whether `file` is a shared library, of 64 bits as all that Envoy can load, that defines `_BOTH`."""
    found = set()
    try:
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as elf:
            if elf[:5] != b"\x7fELF\x02":
                return False
            table, size, count = struct.unpack_from("=40xQ10xHH", elf)
            sections = [struct.unpack_from("=4xI16xQQI", elf, table + size * number) for number in range(count)]
            for kind, symbols, length, link in sections:
                if kind == _DYNSYM:
                    names = sections[link][1]
                    for name, section in struct.iter_unpack("=I2xH16x", elf[symbols : symbols + length]):
                        # In no section is what is only asked for.
                        if section:
                            end = elf.find(b"\0", names + name)
                            found.add(elf[names + name : end])
    except (OSError, ValueError, IndexError, struct.error):
        return False
    return found >= _BOTH
