"""Hashes of the files that a recipe names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

DIGITS = 12


def file_hashes(tree: Any) -> dict[str, str]:
    """Return hashes of the files that a part of a recipe names, by path in it; of folders, only those of `weights`.

    Args:
        tree: Plain values.
    """
    hashes = {}
    for place, value in _texts(tree):
        path = Path(value).expanduser()
        if len(value) < 4096 and "\0" not in value and path.is_file():
            with open(path, "rb") as file:
                hashes[place] = hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
        elif place.endswith(".weights.file") and path.is_dir():
            hashes[place] = _hash_of_folder(path)
    return hashes


def _hash_of_folder(folder: Path) -> str:
    """Return a hash of the names and contents of the files in a folder, without subfolders."""
    digest = hashlib.sha256()
    for file in sorted(each for each in folder.iterdir() if each.is_file()):
        with open(file, "rb") as stream:
            digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:DIGITS]


def _texts(values: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, str | PathLike):
        yield place, str(fspath(values))
    elif isinstance(values, Mapping | list | tuple):
        for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
            yield from _texts(value, f"{place}.{key}" if place else str(key))
