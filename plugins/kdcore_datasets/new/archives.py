"""Unpacking of zip archives in which recordings are published."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

from kdcore import DataError, UsageError, refuse_bomb


def unpacked(archive: Path) -> Path:
    """Unpack a zip archive to a folder next to it, which is named like the archive, and return the folder.

    The folder appears only once all files are unpacked. Member names that lead outside are changed, as by `zipfile`.

    Raises:
        DataError: If the archive is damaged, encrypted, or unpacks to far more than its size.
        UsageError: If the folder already exists.
    """
    folder = archive.with_suffix("")
    if folder.exists():
        raise UsageError(f"{archive}: {folder} already exists; pass the folder if it is unpacked, or else rename it")
    refuse_bomb(archive)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=archive.parent) as place:
        try:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(Path(place) / "files")
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise DataError(f"{archive}: cannot be unpacked ({error})") from error
        os.rename(Path(place) / "files", folder)
    return folder
