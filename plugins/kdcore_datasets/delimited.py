"""Reading columns of delimited text, with errors that name the file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from kdcore import DataError
from kdcore_datasets.checks import LARGEST, measurable

Column = str | int
"""A column's name in the header, or its number counted from 0."""

_DELIMITERS = (",", ";", "\t", "|")


def read_numbers(path: Path, columns: Sequence[Column], delimiter: str = ",", header: bool = True) -> np.ndarray:
    """Columns of numbers, as (rows, columns) float64.

    Raises:
        DataError: If the file is unreadable or empty, lacks a column, or a cell is not a finite number, naming the line.
    """
    values = _read(path, tuple(columns), delimiter, header, "float64")
    bad = np.argwhere(~measurable(values))
    if len(bad):
        row, column = bad[0].tolist()
        line, _ = next(islice(_lines(path, delimiter), row + header, None))
        what = f"column {columns[column]!r} is {values[row, column]:g}, not a finite number up to {LARGEST:g}"
        raise DataError(f"{path}: line {line}: {what} ({len(bad)} such cells)")
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
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error


@lru_cache(maxsize=32)
def _parse(path: Path, stamp: int, columns: tuple[Column, ...], delimiter: str, header: bool, kind: str) -> np.ndarray:
    """Parsed columns; `stamp` is the file's time of change, so that a changed file is read again."""
    del stamp
    lines = _lines(path, delimiter)
    first, names = next(lines, (0, [])) if header else (0, [])
    if header and not names:
        raise ValueError("is empty")
    numbers = [_number(column, names, header, delimiter) for column in columns]
    if not any(any(cells) for _, cells in lines):
        raise ValueError("has no rows")
    blanks = None if delimiter == " " else delimiter
    try:
        values = np.loadtxt(
            path,
            dtype=kind,
            comments=None,
            delimiter=blanks,
            skiprows=first,
            usecols=numbers,
            ndmin=2,
            quotechar='"',
            encoding="utf-8-sig",
        )
    except ValueError as error:
        rows = islice(_lines(path, delimiter), int(header), None)
        found = (_fault(line, cells, dict(zip(numbers, columns, strict=True)), kind, delimiter) for line, cells in rows)
        raise ValueError(next(filter(None, found), str(error))) from error
    values.flags.writeable = False
    return values


def _lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every line that is not empty: its number, counted from 1, and its cells without surrounding blanks."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        blank = delimiter == " "
        reader = csv.reader((line.replace("\t", " ") for line in file) if blank else file, delimiter=delimiter)
        for row in reader:
            cells = [cell.strip() for cell in row if cell or not blank]
            if cells:
                yield reader.line_num, cells


def _fault(line: int, cells: Sequence[str], columns: Mapping[int, Column], kind: str, delimiter: str) -> str:
    """What keeps a line from being read; empty if nothing does."""
    for number, column in columns.items():
        if number >= len(cells):
            return f"line {line} has {len(cells)} column(s), none for {column!r}{_other_delimiter(cells, delimiter)}"
        if kind != "str" and not _is_number(cells[number]):
            decimal = re.fullmatch(r"[-+]?\d*,\d+", cells[number])
            hint = "; decimal commas are not read" if decimal else _other_delimiter([cells[number]], delimiter)
            return f"line {line}: column {column!r} is {cells[number]!r}, not a number{hint}"
    return ""


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False


def _other_delimiter(cells: Sequence[str], delimiter: str) -> str:
    """Which `delimiter` a line seems to have instead, to end a message with."""
    found = [each for each in _DELIMITERS if each != delimiter and any(each in cell for cell in cells)]
    return f"; is its `delimiter` {found[0]!r}?" if found else ""


def _number(column: Column, names: Sequence[str], header: bool, delimiter: str) -> int:
    if isinstance(column, int):
        return column
    if not header:
        raise ValueError(f"column {column!r} is asked for by name, but the file is said to have no header")
    if column not in names:
        hint = _other_delimiter(names, delimiter)
        raise ValueError(f"has no column {column!r}; its columns are {', '.join(names)}{hint}")
    return names.index(column)
