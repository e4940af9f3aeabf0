"""Reading columns of Parquet files with a row for each time step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import DataError, refuse_parquet_bomb
from kdcore_datasets.delimited import Column
from kdcore_datasets.file_formats import LARGEST, measurable

SUFFIXES = (".parquet", ".pq")
"""Endings of Parquet files."""


def is_parquet(path: Path | str) -> bool:
    """True if a path ends as those of Parquet files do."""
    return str(path).lower().endswith(SUFFIXES)


def first_rows(path: Path, most: int) -> tuple[list[str], list[list[str]]] | None:
    """Names of the columns with one value in each row, and the first rows as text; None if fewer than two columns have one.

    Raises:
        DataError: If the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_parquet_bomb(path)
    try:
        with pq.ParquetFile(path) as file:
            names = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            batch = next(file.iter_batches(most, columns=names), None) if len(names) > 1 else None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error
    if batch is None:
        return None
    columns = [[_text(each) for each in batch.column(name).to_pylist()] for name in names]
    return names, [list(row) for row in zip(*columns, strict=True)]


def read_numbers(path: Path, columns: Sequence[Column], rows: slice | None = None) -> np.ndarray:
    """Columns of numbers, as (rows, columns) float64; of `rows` only, where these are given.

    Args:
        path: The file.
        columns: Their names or numbers from 0.
        rows: Those wanted; all by default.

    Raises:
        DataError: If the file cannot be read or is empty, lacks a column, or a value is not a finite number, naming the row.
    """
    values = _table(path, columns, "float64")
    first, last, _ = (rows or slice(None)).indices(len(values))
    bad = np.argwhere(~measurable(values[first:last]))
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(f"{path}: {_fault(path, first + row, columns[column], float(values[first + row, column]))}")
    return values[first:last]


def read_gappy(path: Path, columns: Sequence[Column]) -> np.ndarray:
    """Columns of numbers, (rows, columns) float64, NaN where a value is missing, no number, or beyond all measure.

    Raises:
        DataError: If the file cannot be read or is empty, or lacks a column.
    """
    values = _table(path, columns, "float64")
    return np.where(measurable(values), values, np.nan)


def read_texts(path: Path, columns: Sequence[Column]) -> np.ndarray:
    """Columns as text, (rows, columns), as a CSV file would hold them; empty where a value is missing.

    Raises:
        DataError: If the file cannot be read or is empty, or lacks a column.
    """
    return _table(path, columns, "str")


def read_instants(path: Path, column: Column) -> np.ndarray | None:
    """Seconds that a column of timestamps, dates, times or durations holds, NaN where one is missing; None for other columns.

    Timestamps and dates count from 1970. Those without a time zone are taken as UTC.

    Raises:
        DataError: If the file cannot be read or is empty, or lacks the column.
    """
    import pyarrow as pa

    found = _column(path, column)
    kind = found.type
    if not pa.types.is_temporal(kind) or pa.types.is_interval(kind):
        return None
    if pa.types.is_date(kind):
        found, per_second = found.cast(pa.timestamp("s")), 1
    else:
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    whole = found.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
    return whole.to_numpy(zero_copy_only=False) / per_second


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file.

    Raises:
        DataError: If the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def read_measurements(path: Path, columns: Sequence[str]) -> np.ndarray:
    """Columns of numbers or times, (rows, columns) float64: times in seconds, NaN where a value is missing.

    Raises:
        DataError: If the file cannot be read or is empty, or a column holds anything else, such as text.
    """
    return np.stack([_measurements(path, column) for column in columns], axis=1)


def _measurements(path: Path, column: str) -> np.ndarray:
    import pyarrow as pa

    seconds = read_instants(path, column)
    if seconds is not None:
        return seconds
    kind = _column(path, column).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raise DataError(f"{path}: column {column!r} holds {kind}, not numbers")
    return _numbers(path, column)


def _fault(path: Path, row: int, column: Column, value: float) -> str:
    found = _column(path, column)[row].as_py()
    place = f"row {row + 1}: column {column!r}"
    if found is None or found != found:
        return f"{place} is missing; `missing_values` says what to do about missing ones"
    if isinstance(found, str | bytes):
        return f"{place} is {found!r}, not a number"
    return f"{place} is {value:g}, not a finite number up to {LARGEST:g}"


def _table(path: Path, columns: Sequence[Column], kind: str) -> np.ndarray:
    return _stacked(path, _changed(path), tuple(columns), kind)


@lru_cache(maxsize=32)
def _stacked(path: Path, stamp: int, columns: tuple[Column, ...], kind: str) -> np.ndarray:
    """Columns side by side, as `kind`; `stamp` is the file's time of change, so that a changed file is read again."""
    del stamp
    read = _texts if kind == "str" else _numbers
    found = np.stack([read(path, column) for column in columns], axis=1)
    found.flags.writeable = False
    return found


def _changed(path: Path) -> int:
    """The file's time of change in ns."""
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _column(path: Path, column: Column) -> Any:
    """A column of a file as one Arrow array without dictionary.

    Raises:
        DataError: If the file cannot be read or is empty, or lacks the column.
    """
    return _loaded(path, _changed(path), column)


@lru_cache(maxsize=64)
def _loaded(path: Path, stamp: int, column: Column) -> Any:
    """As `_column`; `stamp` is the file's time of change, so that a changed file is read again."""
    del stamp
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_parquet_bomb(path)
    try:
        with pq.ParquetFile(path, memory_map=False) as file:
            names = file.schema_arrow.names
            name = _named(path, column, names)
            found = file.read([name])[name].combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error
    if isinstance(found, pa.ChunkedArray):
        found = pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], found.type)
    if isinstance(found.type, pa.BaseExtensionType):
        found = found.storage
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if not len(found):
        raise DataError(f"{path}: has no rows")
    if pa.types.is_nested(found.type):
        raise DataError(
            f"{path}: column {name!r} holds {found.type}, not one value for each time step; files with a window in each row "
            "are read by the dataset 'windows'"
        )
    return found


def _named(path: Path, column: Column, names: Sequence[str]) -> str:
    if isinstance(column, int):
        if not 0 <= column < len(names):
            raise DataError(f"{path}: has {len(names)} columns, none with number {column}")
        column = names[column]
    if column not in names:
        raise DataError(f"{path}: has no column {column!r}; its columns are {', '.join(names)}")
    if names.count(column) > 1:
        raise DataError(f"{path}: has {names.count(column)} columns {column!r}; name them differently")
    return column


def _numbers(path: Path, column: Column) -> np.ndarray:
    """A column as float64, NaN where a value is missing or no number.

    Raises:
        DataError: If it holds dates or times.
    """
    import pyarrow as pa

    found = _column(path, column)
    kind = found.type
    if pa.types.is_temporal(kind):
        raise DataError(f"{path}: column {column!r} holds {kind}, not numbers")
    if pa.types.is_null(kind):
        return np.full(len(found), np.nan)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_decimal(kind):
        return np.array([_number(each) for each in found.to_pylist()])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{path}: column {column!r} holds {kind}, not numbers")
    return found.to_numpy(zero_copy_only=False).astype(np.float64)


def _number(value: Any) -> float:
    with suppress(ValueError, TypeError):
        return float(value)
    return np.nan


def _texts(path: Path, column: Column) -> np.ndarray:
    encoded = _column(path, column).dictionary_encode(null_encoding="encode")
    known = np.array([_text(each) for each in encoded.dictionary.to_pylist()])
    return known[encoded.indices.to_numpy()]


def _text(value: Any) -> str:
    if isinstance(value, timedelta):
        return str(value.total_seconds())
    if value is None or value != value:
        return ""
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
