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
from kdcore_datasets.file_formats import LARGEST, measurable

Column = str | int
"""A column's name in the header, or its number counted from 0."""

_DELIMITERS = (",", ";", "\t", "|")


def read_numbers(
    path: Path, columns: Sequence[Column], delimiter: str = ",", header: bool = True, rows: slice | None = None
) -> np.ndarray:
    """Columns of numbers, as (rows, columns) float64; of `rows` only, where these are given.

    Raises:
        DataError: If the file is unreadable or empty, lacks a column, or a cell of these rows is not a finite number, naming
            the line.
    """
    values = _read(path, tuple(columns), delimiter, header, "float64")
    first, last, _ = (rows or slice(None)).indices(len(values))
    bad = np.argwhere(~measurable(values[first:last]))
    if len(bad):
        row, column = bad[0].tolist()
        line, cells = next(islice(_lines(path, delimiter), first + row + header, None))
        what = _fault(line, cells, dict(zip(_numbers(path, columns, delimiter, header), columns, strict=True)), delimiter)
        what = what or (
            f"line {line}: column {columns[column]!r} is {values[first + row, column]:g}, "
            f"not a finite number up to {LARGEST:g} ({len(bad)} such cells)"
        )
        raise DataError(f"{path}: {what}")
    return values[first:last]


def read_gappy(path: Path, column: Column, delimiter: str = ",", header: bool = True) -> np.ndarray:
    """A column of numbers, (rows,) float64, NaN where a cell is missing or no number.

    Raises:
        DataError: If the file is unreadable or empty, or lacks the column.
    """
    return _read(path, (column,), delimiter, header, "float64")[:, 0]


def read_texts(path: Path, columns: Sequence[Column], delimiter: str = ",", header: bool = True) -> np.ndarray:
    """Columns of text without surrounding blanks, as (rows, columns); empty where a row ends before the column.

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
    first = next(lines, (0, []))[0] if header else 0
    numbers = _numbers(path, columns, delimiter, header)
    if not any(any(cells) for _, cells in lines):
        raise ValueError("has no rows")
    try:
        values = np.loadtxt(
            path,
            dtype=kind,
            comments=None,
            delimiter=None if delimiter == " " else delimiter,
            skiprows=first,
            usecols=numbers,
            ndmin=2,
            quotechar='"',
            encoding="utf-8-sig",
        )
    except UnicodeDecodeError:
        raise
    except ValueError:  # a row is too short, or a cell no number: the others may be sound
        rows = islice(_lines(path, delimiter), int(header), None)
        values = np.array([[_cell(cells, number, kind) for number in numbers] for _, cells in rows], dtype=kind)
    values.flags.writeable = False
    return values


def _cell(cells: Sequence[str], number: int, kind: str) -> float | str:
    if kind == "str":
        return cells[number] if number < len(cells) else ""
    return float(cells[number]) if number < len(cells) and _is_number(cells[number]) else np.nan


def _numbers(path: Path, columns: Sequence[Column], delimiter: str, header: bool) -> list[int]:
    """The indices of `columns` in a row."""
    names = next(_lines(path, delimiter), (0, []))[1] if header else []
    if header and not names:
        raise ValueError("is empty")
    return [_number(column, names, header, delimiter) for column in columns]


def _lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every line that is not empty: its number, counted from 1, and its cells without surrounding blanks."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        blank = delimiter == " "
        reader = csv.reader((line.replace("\t", " ") for line in file) if blank else file, delimiter=delimiter)
        for row in reader:
            cells = [cell.strip() for cell in row if cell or not blank]
            if cells:
                yield reader.line_num, cells


def _fault(line: int, cells: Sequence[str], columns: Mapping[int, Column], delimiter: str) -> str:
    """The reason why a line's cells are not numbers; empty if they are."""
    for number, column in columns.items():
        if number >= len(cells):
            return f"line {line} has {len(cells)} column(s), none for {column!r}{_other_delimiter(cells, delimiter)}"
        if not _is_number(cells[number]):
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
    """The end of a message: the delimiter that a line seems to have instead of `delimiter`."""
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
