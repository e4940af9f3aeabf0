"""Archives that would fill the memory: small files that claim to hold far more than any recording."""

from __future__ import annotations

import zipfile
from pathlib import Path

from kdcore.errors import DataError

LARGE = 1 << 30
"""Bytes up to which an archive is read whatever it holds."""

MOST = 200
"""Bytes that an archive larger than that may hold for each of its own; recordings seldom compress to a tenth."""


def refuse_bomb(path: Path) -> None:
    """Refuse a zip archive, such as a ``.npz`` or ``.pt`` file, that unpacks to far more than its own size.

    Args:
        path: The file; one that is no archive passes.

    Raises:
        DataError: If it holds more than `LARGE` bytes and more than `MOST` times its own size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inside = sum(each.file_size for each in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # its reader says what is wrong
    size = path.stat().st_size
    if inside > max(LARGE, MOST * size):
        raise DataError(f"{path}: refused: {size:,} bytes that unpack to {inside:,}")
