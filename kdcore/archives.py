"""Protection against files that unpack to far more than their size and would fill the memory."""

from __future__ import annotations

import zipfile
from pathlib import Path

from kdcore.errors import DataError

LARGE = 1 << 30
"""Unpacked size in bytes up to which every archive is read."""

MOST = 200
"""Maximum ratio of unpacked to packed size above `LARGE`; recordings seldom compress to a tenth."""


def refuse_bomb(path: Path, inside: int | None = None, large: int | None = None) -> None:
    """Refuse a file that unpacks to far more than its own size, such as a zip archive, a ``.npz`` or a ``.pt`` file.

    Args:
        path: The file; one that is not an archive passes.
        inside: Unpacked size in bytes, or a lower bound; by default, that in a zip archive's table of contents.
        large: Unpacked size up to which every file passes; `LARGE` by default.

    Raises:
        DataError: If it unpacks to more than `large` bytes and more than `MOST` times its size.
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
    """Refuse a Parquet file with far more values than bytes; its encoding stores repeated values once.

    Raises:
        DataError: If its values, at 8 bytes each, take more than `LARGE` bytes and more than `MOST` times its size.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return  # its reader says what is wrong
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(metadata.num_columns)]
    refuse_bomb(path, sum(max(8 * each.num_values, each.total_uncompressed_size) for each in columns))
