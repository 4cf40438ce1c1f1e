"""The licences of what is linked into the libraries of a wheel, besides our own code."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

LICENSE_FILE = re.compile(r"(un)?licen[cs]e|copying|copyright|notice", re.IGNORECASE)

Package = dict[str, Any]
"""As `cargo metadata` tells of it."""


def write_notices(source: Path, target: str) -> None:
    """Files beside LICENSE in `source`, which go where that goes."""
    metadata = json.loads(output("cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={target}"))
    (source / "LICENSE-THIRD-PARTY").write_text(notices(linked(metadata, "aiovoy")))
    standard_library = Path(output("rustc", "--print=sysroot").strip(), "share/doc/rust/COPYRIGHT-library.html")
    (source / "LICENSE-RUST-STD.html").write_bytes(standard_library.read_bytes())


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def linked(metadata: dict[str, Any], name: str) -> list[Package]:
    """What is linked into the package of that name: what it uses but for tests, in build scripts and in macros."""
    packages = {package["id"]: package for package in metadata["packages"]}
    dependencies = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
    found: dict[str, Package] = {}
    todo = [package["id"] for package in packages.values() if package["name"] == name]
    while todo:
        if (package := packages[todo.pop()])["id"] in found or is_macro(package):
            continue
        found[package["id"]] = package
        todo += [
            dependency["pkg"]
            for dependency in dependencies[package["id"]]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
    return sorted(found.values(), key=lambda package: (package["name"], package["version"]))


def is_macro(package: Package) -> bool:
    return any("proc-macro" in target["kind"] for target in package["targets"])


def notices(packages: list[Package]) -> str:
    """Each text with the names of those who bring it."""
    bringing: dict[str, list[str]] = {}
    for package in packages:
        if package["source"] is None:
            continue  # our own
        crate = f"{package['name']} {package['version']} ({package['license']})"
        texts = {path.read_text().strip() for path in license_files(package)}
        if not texts:
            raise SystemExit(f"`{crate}` brings no text of its licence: ask its authors for one, or do without it")
        for text in sorted(texts):
            bringing.setdefault(text, []).append(crate)
    rule = "=" * 80
    heads = ["\n".join(crates) for crates in bringing.values()]
    return "".join(f"{rule}\n{head}\n{rule}\n\n{text}\n\n" for head, text in zip(heads, bringing, strict=True))


def license_files(package: Package) -> list[Path]:
    folder = Path(package["manifest_path"]).parent
    named = [folder / package["license_file"]] if package["license_file"] else []
    return [*named, *(path for path in folder.iterdir() if path.is_file() and LICENSE_FILE.match(path.name))]
