"""Reading columns of delimited text, with errors that name the file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from kdcore import DataError

Column = str | int
"""A column's name in the header, or its number counted from 0."""


def read_numbers(path: Path, columns: Sequence[Column], delimiter: str = ",", header: bool = True) -> np.ndarray:
    """Columns of numbers, as (rows, columns) float64.

    Raises:
        DataError: If the file is unreadable or empty, lacks a column, or a cell is not a finite number.
    """
    values = _read(path, tuple(columns), delimiter, header, "float64")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(f"{path}: column {columns[column]!r} is not a finite number in row {row + 1} ({len(bad)} such cells)")
    return values


def read_texts(path: Path, columns: Sequence[Column], delimiter: str = ",", header: bool = True) -> np.ndarray:
    """Columns of text without surrounding blanks, as (rows, columns).

    Raises:
        DataError: If the file is unreadable or empty, or lacks a column.
    """
    return np.char.strip(_read(path, tuple(columns), delimiter, header, "str"))


def _read(path: Path, columns: tuple[Column, ...], delimiter: str, header: bool, kind: str) -> np.ndarray:
    try:
        return _parse(path, path.stat().st_mtime_ns, columns, delimiter, header, kind)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


@lru_cache(maxsize=32)
def _parse(path: Path, stamp: int, columns: tuple[Column, ...], delimiter: str, header: bool, kind: str) -> np.ndarray:
    """Parsed columns; `stamp` is the file's time of change, so that a changed file is read again."""
    del stamp
    with open(path, encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file, delimiter=delimiter), []) if header else []
        numbers = [_number(column, [name.strip() for name in names], header) for column in columns]
        if not any(line.strip() for line in file):
            raise ValueError("has no rows")
    blanks = None if delimiter == " " else delimiter
    values = np.loadtxt(
        path,
        dtype=kind,
        comments=None,
        delimiter=blanks,
        skiprows=int(header),
        usecols=numbers,
        ndmin=2,
        quotechar='"',
        encoding="utf-8-sig",
    )
    values.flags.writeable = False
    return values


def _number(column: Column, names: Sequence[str], header: bool) -> int:
    if isinstance(column, int):
        return column
    if not header:
        raise ValueError(f"column {column!r} is asked for by name, but the file is said to have no header")
    if column not in names:
        raise ValueError(f"has no column {column!r}; its columns are {', '.join(names) or 'none'}")
    return names.index(column)
