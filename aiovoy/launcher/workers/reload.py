"""Files that the application is made of, and that change while it is developed."""

import contextlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path, PurePath

from ..config import Config

DEBOUNCE_MILLISECONDS = 200
"""How long changes are gathered at most, for editors that write several files."""

STEP_MILLISECONDS = 20
"""A pause of so long between changes ends that."""

INCLUDED = ("*.py",)

EXCLUDED = (".*", "*.py[cod]", "*.sw?", "*~", "~*", "__pycache__", "node_modules")


class Watched:
    """Which files count, by patterns of a file's name or of the end of its path (`pathlib.PurePath.match`).

    A pattern that excludes may also be that of a folder below the watched one, or a path. One that the user gives
    in the other list takes a default out of its own.
    """

    def __init__(self, config: Config) -> None:
        self._folders = [folder.resolve() for folder in config.reload_dirs]
        include, exclude = config.reload_includes, config.reload_excludes
        self._included = {*INCLUDED, *include} - set(exclude)
        self._excluded = {*EXCLUDED, *exclude} - set(include)
        self._excluded_paths = [Path(pattern).resolve() for pattern in exclude if Path(pattern).is_dir()]

    def __call__(self, _: object, path: str) -> bool:
        """As a filter of `watchfiles`."""
        file = PurePath(path)
        if file.name in self._included:
            return True  # by its very name
        if not any(file.match(pattern) for pattern in self._included):
            return False
        if any(file.is_relative_to(excluded) for excluded in self._excluded_paths):
            return False
        below = max((folder for folder in self._folders if file.is_relative_to(folder)), key=lambda f: len(f.parts))
        parts = [file, *file.parents][: len(file.parts) - len(below.parts)]
        return not any(part.match(pattern) for part in parts for pattern in self._excluded)


async def changes(config: Config) -> AsyncIterator[list[Path]]:
    """Gives the files that have changed, each time that some have."""
    from watchfiles import awatch  # only those who use it pay for it

    watched = Watched(config)
    async for found in awatch(
        *(folder.resolve() for folder in config.reload_dirs),
        watch_filter=watched,
        debounce=DEBOUNCE_MILLISECONDS,
        step=STEP_MILLISECONDS,
        ignore_permission_denied=True,
    ):
        files = sorted(Path(path) for _, path in found)
        for file in files:
            _forget_bytecode(file)
        yield files


def _forget_bytecode(file: Path) -> None:
    """Python takes what it has compiled for what is there if size and second are the same."""
    if file.suffix == ".py":
        with contextlib.suppress(OSError, NotImplementedError):
            Path(importlib.util.cache_from_source(str(file))).unlink()
