"""Hashes of the files that a recipe names."""

from __future__ import annotations

import hashlib
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from kdcore.recipe.yaml import leaves

DIGITS = 12


def file_hashes(tree: Any) -> dict[str, str]:
    """Return hashes of the files that a part of a recipe names, by path in it; of folders, only those of `weights`.

    Args:
        tree: Plain values.
    """
    hashes = {}
    for steps, value in leaves(tree):
        if not isinstance(value, str | PathLike):
            continue
        place, text = ".".join(map(str, steps)), str(fspath(value))
        path = Path(text).expanduser()
        if len(text) < 4096 and "\0" not in text and path.is_file():
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
