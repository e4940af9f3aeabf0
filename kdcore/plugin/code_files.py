"""Hashes of the code of components: of a package or file, and of the local modules that it imports."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from kdcore.plugin.sources import file_of, is_installed

_IMPORT = re.compile(rb"^[ \t]*(?:from[ \t]+([A-Za-z_]\w*)[\w.]*[ \t]+import\b|import[ \t]+([\w., \t]+))", re.MULTILINE)


def package_home(module: str) -> Path | None:
    """The folder of the package that `module` belongs to, or its file if it belongs to none."""
    for name in (module.split(".")[0], module):
        file = getattr(sys.modules.get(name), "__file__", None) or file_of(name)
        if file:
            return Path(file).parent if Path(file).name == "__init__.py" else Path(file)
    return None


def source_homes(module: str) -> list[Path]:
    """Return the homes of `module` and of all modules that it imports, directly or not, except kdcore and installed packages.

    Installed packages are identified by their versions; a module next to a plugin's file has no version.
    """
    waiting, homes, seen = [module], list[Path](), set[str]()
    while waiting:
        name = waiting.pop()
        home = package_home(name)
        if home is None or home in homes:
            continue
        homes.append(home)
        for top in sorted(_imported(home) - seen) if name.split(".")[0] != "kdcore" else ():
            seen.add(top)
            if top != "kdcore" and top not in sys.stdlib_module_names and not is_installed(top):
                waiting.append(top)
    return homes


def source_hash(*homes: Path) -> str:
    """A hash of the Python files of packages and of single files."""
    return hashlib.sha256(b"".join(file.read_bytes() for home in homes for file in _files(home))).hexdigest()


def code_hash(module: str) -> str:
    """A hash of the code of `module` and of all local modules that it imports; empty if its source is unknown."""
    homes = source_homes(module)
    return source_hash(*homes) if homes else ""


def _files(home: Path) -> list[Path]:
    return sorted(home.rglob("*.py")) if home.is_dir() else [home]


def _imported(home: Path) -> set[str]:
    """Names of the top-level modules that the files of a package, or a single file, import."""
    return {name for file in _files(home) if file.suffix == ".py" for name in _names(file.read_bytes())}


def _names(source: bytes) -> Iterator[str]:
    for origin, listed in _IMPORT.findall(source):
        for each in [origin] if origin else listed.split(b","):
            if words := each.split():
                yield words[0].split(b".")[0].decode()
