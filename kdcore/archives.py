"""Files that would fill the memory: small ones that claim to hold far more than any recording."""

from __future__ import annotations

import zipfile
from pathlib import Path

from kdcore.errors import DataError

LARGE = 1 << 30
"""Bytes up to which an archive is read whatever it holds."""

MOST = 200
"""Bytes that an archive larger than that may hold for each of its own; recordings seldom compress to a tenth."""


def refuse_bomb(path: Path, inside: int | None = None, large: int | None = None) -> None:
    """Refuse a file that unpacks to far more than its own size, such as a zip archive, a ``.npz`` or a ``.pt`` file.

    Args:
        path: The file; one that is no archive passes.
        inside: Bytes that it unpacks to, or at least so many; by default, as a zip archive's table of contents says.
        large: Bytes up to which it is read whatever its own size; by default `LARGE`.

    Raises:
        DataError: If it holds more than `large` bytes and more than `MOST` times its own size.
    """
    if inside is None:
        try:
            with zipfile.ZipFile(path) as archive:
                inside = sum(each.file_size for each in archive.infolist())
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
            return  # its reader says what is wrong
    size = path.stat().st_size
    if inside > max(LARGE if large is None else large, MOST * size):
        raise DataError(f"{path}: refused: {size:,} bytes that unpack to {inside:,}")


def refuse_parquet_bomb(path: Path) -> None:
    """Refuse a Parquet file with far more values than bytes: equal values in a row take no room in it.

    Raises:
        DataError: If it holds more than `LARGE` bytes, at 8 for each value, and more than `MOST` times its own size.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return  # its reader says what is wrong
    groups = [found.row_group(index) for index in range(found.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(found.num_columns)]
    refuse_bomb(path, sum(max(8 * each.num_values, each.total_uncompressed_size) for each in columns))
