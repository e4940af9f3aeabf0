"""Lines of plain tables of numbers: layout of the first line, cells, and faults."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from kdcore import DataError
from kdcore_datasets.delimited import TextLayout, cell_fault

_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d*,\d+\s*")


def layout_of(line: str, decimal: str = ".") -> tuple[TextLayout, tuple[str, ...]]:
    """Return the layout of a table by its first line, and the column names; no names if the line contains only numbers.

    A line such as ``0,1;2,5`` contains numbers with decimal commas, whatever `decimal` is: its cells are rejected later.
    """
    for delimiter in (";", "\t", " "):
        layout = TextLayout(delimiter, header=False, decimal=decimal)  # type: ignore[arg-type]
        commas, cells = TextLayout(delimiter, header=False, decimal=","), cells_of(line, layout)
        numeric = all(commas.number(cell) is not None for cell in cells)
        if len(cells) > 1 and numeric and any(map(_DECIMAL_COMMA.fullmatch, cells)):
            return layout, ()
    delimiter = next((sign for sign in ("\t;" if decimal == "," else ",;\t") if sign in line), " ")
    layout = TextLayout(delimiter, header=False, decimal=decimal)  # type: ignore[arg-type]
    cells = cells_of(line, layout)
    return layout, () if all(layout.number(cell) is not None for cell in cells) else tuple(cells)


def cells_of(line: str, layout: TextLayout) -> list[str]:
    """Return the cells of a line without surrounding blanks."""
    row = line.split() if layout.delimiter == " " else next(csv.reader([line], delimiter=layout.delimiter), [])
    return [cell.strip() for cell in row]


def parse_columns(
    rows: Sequence[tuple[int, str]], columns: Sequence[int], layout: TextLayout, names: Sequence[str], width: int
) -> np.ndarray:
    """Parse columns of a table of numbers, (rows, columns) float64.

    Args:
        rows: Number and text of each line.
        columns: Indices of the columns.
        layout: Layout of the lines.
        names: Column names; empty if there are none.
        width: Number of cells in the first line.

    Raises:
        DataError: If a row has more cells than the first line, or a cell is not a number. The message names the line.
    """
    for number, cells in _longer_rows(rows, layout, width):
        first = "the header names" if names else "the first line has"
        raise DataError(f"line {number} has {len(cells)} columns, and {first} {width}; are there decimal commas?")
    delimiter = None if layout.delimiter == " " else layout.delimiter
    lines = [layout.plain(line) for _, line in rows]
    try:
        return np.loadtxt(lines, delimiter=delimiter, usecols=columns, ndmin=2, quotechar='"')
    except ValueError as error:
        titles = {column: names[column] if names else str(column) for column in columns}
        for number, line in rows:
            if fault := cell_fault(number, cells_of(line, layout), titles, layout, partial(advice, layout=layout)):
                raise DataError(fault) from error
        raise DataError(str(error)) from error


def has_extra_cells(cells: Sequence[str], width: int) -> bool:
    """Return whether a row has more cells than `width`, not counting empty ones at its end."""
    return any(cell.strip() for cell in cells[width:])


def _longer_rows(rows: Sequence[tuple[int, str]], layout: TextLayout, width: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row that has too many cells."""
    for number, line in rows:
        if layout.delimiter == " " or line.count(layout.delimiter) >= width:
            cells = cells_of(line, layout)
            if has_extra_cells(cells, width):
                yield number, cells


def advice(cell: str, layout: TextLayout) -> str:
    """Return a hint for a cell that is not a number: an option of ``kdcore predict``, or what to do with the file."""
    if layout.decimal == "." and _DECIMAL_COMMA.fullmatch(cell):
        return "; are these decimal commas? pass --decimal ,"
    if layout.decimal == "," and "." in cell:
        return "; the decimal mark is ',', and a point may separate thousands"
    return "; fill or leave out missing values first" if cell in ("", "?", "NA", "N/A", "null", "None") else ""
