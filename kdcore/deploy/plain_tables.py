"""Cells of tables of numbers that belong to no dataset: delimited text and Parquet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from kdcore.archives import refuse_parquet_bomb
from kdcore.errors import DataError

PARQUET = ".parquet"
DECIMAL_MARKS = (".", ",")

_COMMAS = str.maketrans({",": ".", ".": "?"})
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d*,\d+\s*")


def number_in(cell: str, decimal: str = ".") -> float | None:
    """The number that a cell holds; None if it holds none. With decimal commas, a number with a point is none."""
    with suppress(ValueError):
        return float(cell.translate(_COMMAS) if decimal == "," else cell)
    return None


def header_of(line: str, decimal: str = ".") -> tuple[str | None, tuple[str, ...]]:
    """Delimiter (None for blanks) and column names of a table's first line; no names if it is all numbers.

    A line such as ``0,1;2,5`` is one of numbers with decimal commas, whatever `decimal` is: its cells are refused later.
    """
    signs = "\t;" if decimal == "," else ",;\t"
    delimiter = next((sign for sign in signs if sign in line), None)
    for sign in (";", "\t", None):
        cells = cells_of(line, sign)
        numeric = all(number_in(cell, ",") is not None for cell in cells)
        if len(cells) > 1 and numeric and any(map(_DECIMAL_COMMA.fullmatch, cells)):
            return sign, ()
    cells = cells_of(line, delimiter)
    return delimiter, () if all(number_in(cell, decimal) is not None for cell in cells) else tuple(cells)


def cells_of(line: str, delimiter: str | None) -> list[str]:
    """The cells of a line without surrounding blanks."""
    row = next(csv.reader([line], delimiter=delimiter), []) if delimiter else line.split()
    return [cell.strip() for cell in row]


def read_cells(text: str, wanted: Sequence[int], delimiter: str | None, names: Sequence[str], decimal: str) -> np.ndarray:
    """Columns of a table of numbers, (rows, columns) float64.

    Args:
        text: The table.
        wanted: Numbers of the columns.
        delimiter: What stands between cells; None for blanks.
        names: Of the columns; empty if the first line is one of numbers.
        decimal: Decimal mark.

    Raises:
        DataError: If a row has more cells than the first line, or a cell is not a number, naming the line.
    """
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    width = len(cells_of(lines[first], delimiter)) if lines else 0
    for number, cells in _longer(lines, delimiter, width):
        raise DataError(f"line {number} has {len(cells)} columns, and {_first(names)} {width}; are there decimal commas?")
    rows = io.StringIO(text)
    plain = (line.translate(_COMMAS) for line in rows) if decimal == "," else rows
    skipped = first + 1 if names else 0
    try:
        return np.loadtxt(plain, delimiter=delimiter, skiprows=skipped, usecols=wanted, ndmin=2, quotechar='"')
    except ValueError as error:
        titles = {column: names[column] if names else str(column) for column in wanted}
        found = (fault(cells_of(line, delimiter), titles, decimal) for line in lines[skipped:])
        numbers = zip(range(skipped + 1, len(lines) + 1), lines[skipped:], found, strict=True)
        what = next((f"line {number}: {said}" for number, line, said in numbers if said and line.strip()), str(error))
        raise DataError(what) from error


def fault(cells: Sequence[str], columns: Mapping[int, str], decimal: str) -> str:
    """The reason why a row's cells are not numbers, with the option that may help; empty if they are numbers.

    Args:
        cells: Of the row.
        columns: Number of a column → its name.
        decimal: Decimal mark.
    """
    for number, name in columns.items():
        if number >= len(cells):
            return f"has {len(cells)} column(s), none for {name!r}"
        if number_in(cells[number], decimal) is None:
            return f"column {name!r} is {cells[number]!r}, not a number{_advice(cells[number], decimal)}"
    return ""


def too_long(cells: Sequence[str], width: int) -> bool:
    """True for a row of more cells than `width`, apart from empty ones at its end: nobody knows which column is which."""
    return any(cell.strip() for cell in cells[width:])


def _longer(lines: Sequence[str], delimiter: str | None, width: int) -> Iterator[tuple[int, list[str]]]:
    """Number, from 1, and cells of each line that is too long."""
    for number, line in enumerate(lines, start=1):
        if delimiter is None or line.count(delimiter) >= width:
            cells = cells_of(line, delimiter)
            if too_long(cells, width):
                yield number, cells


def _first(names: Sequence[str]) -> str:
    return "the header names" if names else "the first line has"


def _advice(cell: str, decimal: str) -> str:
    if decimal == "." and _DECIMAL_COMMA.fullmatch(cell):
        return "; are these decimal commas? pass --decimal ,"
    if decimal == "," and "." in cell:
        return "; the decimal mark is ',', and a point may separate thousands"
    return "; fill or leave out missing values first" if cell in ("", "?", "NA", "N/A", "null", "None") else ""


def parquet_names(path: Path) -> tuple[str, ...]:
    """Names of the columns of a Parquet file.

    Raises:
        DataError: If it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return tuple(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"not a readable Parquet file ({error})") from error


def read_parquet(path: Path, wanted: Sequence[str]) -> np.ndarray:
    """Columns of a Parquet file, (rows, columns) float64, NaN where a value is missing; timestamps and durations in seconds.

    Raises:
        DataError: If it cannot be read, two columns have one name, or a column holds no numbers.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_parquet_bomb(path)
    try:
        table = pq.read_table(path, columns=list(wanted))
        return np.stack([_numbers(table.column(name), name) for name in wanted], axis=1)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(f"not a readable Parquet file ({error})") from error


def _numbers(column: Any, name: str) -> np.ndarray:
    values = column.to_numpy()
    if values.dtype.kind in "mM":
        seconds = values.astype(f"{values.dtype.kind}8[ns]").astype(np.int64) / 1e9
        return np.where(np.isnat(values), np.nan, seconds)
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name!r} holds {column.type}, not numbers") from error
