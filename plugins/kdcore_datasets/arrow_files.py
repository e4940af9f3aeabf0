"""Columns of Parquet files, and of folders saved by Hugging Face `datasets`."""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import DataError, refuse_parquet_bomb

_FIRST = 64
"""Rows of a file that show the shape of its columns."""

LARGEST_DESCRIPTION = 1 << 24
"""Maximum size of a folder's JSON files in bytes."""


class ArrowRows:
    """Rows of a column. Numbers are not copied to memory.

    Args:
        blocks: Arrays with consecutive rows.
    """

    def __init__(self, blocks: Sequence[np.ndarray]):
        self._blocks = blocks
        self._starts = np.cumsum([0, *map(len, blocks)]).tolist()
        self.shape: tuple[int, ...] = (self._starts[-1], *(blocks[0].shape[1:] if blocks else ()))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> Any:
        """Return a row."""
        block = bisect_right(self._starts, row) - 1
        return self._blocks[block][row - self._starts[block]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows in memory."""
        return np.asarray(np.concatenate(self._blocks) if self._blocks else np.empty(0), dtype=dtype)


def parquet_rows(path: Path, name: str) -> ArrowRows:
    """Read a column of a Parquet file; without a name, its only column.

    Raises:
        DataError: If the file cannot be read, the column is missing, or it decompresses to far more than the file's size.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_parquet_bomb(path)
    try:
        name = named(path, name, pq.read_schema(path).names)
        return _rows(path, name, pq.read_table(path, columns=[name])[name].chunks)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def parquet_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Column → its shape, as far as the first rows show it; empty for a file in which no column holds lists.

    Raises:
        DataError: If the file cannot be read, or unpacks to far more than its size.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_parquet_bomb(path)
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if not any(pa.types.is_nested(each.type) for each in schema):
                return {}
            batch = next(file.iter_batches(_FIRST), None)
            if batch is None:
                return {}
            firsts = {name: _values(batch.column(name)) for name in schema.names}
            return {name: (file.metadata.num_rows, *row_shape(first)) for name, first in firsts.items()}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def row_shape(rows: Any) -> tuple[int, ...]:
    """The shape of a row; of rows that are arrays of unequal lengths, that of the first."""
    shape = tuple(rows.shape[1:])
    return shape or (np.shape(rows[0]) if len(rows) and isinstance(rows[0], np.ndarray) else ())


def is_saved_dataset(path: Path) -> bool:
    """Return whether a folder was written by ``datasets.Dataset.save_to_disk``."""
    return (path / "state.json").is_file()


def saved_dataset_columns(folder: Path) -> list[str]:
    """Names of the columns of a folder that ``datasets.Dataset.save_to_disk`` wrote.

    Raises:
        DataError: If the folder is damaged, or refused.
    """
    import pyarrow as pa

    files = _json(folder / "state.json").get("_data_files")
    if not isinstance(files, list) or not files or not isinstance(files[0], dict):
        raise DataError(f"{folder}: state.json does not name the data files")
    try:
        with pa.memory_map(str(_inside(folder, files[0].get("filename")))) as source:
            return pa.ipc.open_stream(source).schema.names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{folder}: not a readable Arrow file ({error})") from error


def saved_dataset_rows(folder: Path, name: str) -> ArrowRows:
    """Memory-map a column of a folder written by ``datasets.Dataset.save_to_disk``.

    Class labels are returned by name, and a label of -1 as missing.

    Raises:
        DataError: If the folder is damaged, or rejected because it refers to files outside it or to compressed files.
    """
    import pyarrow as pa

    state, features = _json(folder / "state.json"), _json(folder / "dataset_info.json").get("features") or {}
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(f"{folder}: the data are stored with a selection of rows; save them again after flatten_indices()")
    chunks: list[Any] = []
    try:
        for each in state["_data_files"]:
            chunks += _batches(_inside(folder, each["filename"]), name)
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}: state.json does not name the data files") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{folder}: not a readable Arrow file ({error})") from error
    feature = features.get(name) if isinstance(features, dict) else None
    rows = _rows(folder, name, chunks)
    if not (isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")):
        return rows
    names = [*map(str, feature["names"])]
    numbers = [-1 if each is None or each != each else int(each) for each in np.asarray(rows).tolist()]
    if numbers and not -1 <= min(numbers) <= max(numbers) < len(names):
        raise DataError(f"{folder}: {name!r} has labels beyond its {len(names)} class names")
    return ArrowRows([np.array([names[each] if each >= 0 else None for each in numbers], dtype=object)])


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_DESCRIPTION:
            raise DataError(f"{path}: refused: larger than {LARGEST_DESCRIPTION:,} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: not the description that datasets writes")
    return found


def _inside(folder: Path, name: object) -> Path:
    path = folder / str(name)
    if not isinstance(name, str) or path.resolve().parent != folder.resolve():
        raise DataError(f"{folder}: refused: state.json names a file outside the folder")
    return path


def _batches(path: Path, name: str) -> Iterator[Any]:
    """Yield the column in each batch of an Arrow stream."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    schema = pa.ipc.open_stream(source).schema
    index = schema.names.index(named(path.parent, name, schema.names))
    source.seek(0)
    with suppress(EOFError):  # end of the stream
        while message := pa.ipc.read_message(source):
            if message.type == "record batch" and _is_compressed(message.metadata.to_pybytes()):
                raise DataError(f"{path}: refused: its values are compressed")
    source.seek(0)
    for batch in pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(included_fields=[index])):
        column = batch.column(0)
        column.validate(full=True)
        yield column


def _is_compressed(metadata: bytes) -> bool:
    """Return whether a record batch's message, a flatbuffer, has the field `compression`."""

    def field(table: int, number: int) -> int:
        """Return the offset of a field in the table; 0 if it has none."""
        home = table - struct.unpack_from("<i", metadata, table)[0]
        offset = 4 + 2 * number
        size = struct.unpack_from("<H", metadata, home)[0]
        place = struct.unpack_from("<H", metadata, home + offset)[0] if offset < size else 0
        return table + place if place else 0

    try:
        header = field(struct.unpack_from("<I", metadata, 0)[0], 2)
        return bool(field(header + struct.unpack_from("<I", metadata, header)[0], 3))
    except struct.error:
        return True  # damaged, so do not read it


def named(path: Path, name: str, known: Sequence[str]) -> str:
    """Return `name` if it is known, or without a name the only known one.

    Raises:
        DataError: If the name is unknown or ambiguous. The message lists the known names.
    """
    if name in known:
        return name
    if not name and len(known) == 1:
        return known[0]
    what = f"has no array {name!r}" if name else "say which array after a colon"
    raise DataError(f"{path}: {what}; it has {', '.join(known)}")


def _rows(path: Path, name: str, chunks: Sequence[Any]) -> ArrowRows:
    try:
        blocks = [_values(chunk) for chunk in chunks if len(chunk)]
    except ValueError as error:
        raise DataError(f"{path}: {name!r} {error}") from error
    if len({block.shape[1:] for block in blocks}) > 1:
        single = [_single(block) for block in blocks]
        return ArrowRows(single)
    return ArrowRows(blocks)


def _single(block: np.ndarray) -> np.ndarray:
    """Return the rows of a block as objects, since rows of other blocks may have other lengths."""
    found = np.empty(len(block), dtype=object)
    for number, row in enumerate(block):
        found[number] = row
    return found


def _values(array: Any, outermost: bool = True) -> np.ndarray:
    """Convert an Arrow array, with lists as axes. Rows of unequal lengths become objects.

    Raises:
        ValueError: If a list is missing, or lists within a row have unequal lengths.
    """
    import pyarrow as pa

    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        return array.to_numpy(zero_copy_only=False) if plain else np.array(array.to_pylist(), dtype=object)
    if array.null_count:
        raise ValueError(f"has {array.null_count} rows or lists without values")
    fixed = pa.types.is_fixed_size_list(kind)
    lengths = np.full(len(array), kind.list_size) if fixed else np.diff(array.offsets.to_numpy())
    inner = _values(array.flatten(), False)
    if len(set(lengths.tolist())) <= 1:
        return inner.reshape(len(array), -1 if len(inner) else 0, *inner.shape[1:])
    if not outermost:
        raise ValueError("has rows with lists of unequal lengths")
    found = np.empty(len(array), dtype=object)
    for number, row in enumerate(np.split(inner, np.cumsum(lengths)[:-1])):
        found[number] = row
    return found
