"""Reading columns of delimited text, with errors that name the file."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

import numpy as np

from kdcore import DataError, refuse_bomb
from kdcore_datasets.file_formats import LARGEST, measurable

Column = str | int
"""A column's name in the header, or its number counted from 0."""

LARGE_TEXT = 1 << 26
"""Bytes of text up to which a compressed file is read whatever its own size."""

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class TextLayout:
    """The way in which a file of delimited text is written.

    Args:
        delimiter: Separator of columns; a blank means any white space.
        header: Whether the first line names the columns.
        record_end: Character that ends a row besides the end of the line; nothing by default.
        decimal: Decimal mark of numbers. With a comma, a number with a point is not read: the point may separate thousands.
    """

    delimiter: str = ","
    header: bool = True
    record_end: str = ""
    decimal: Literal[".", ","] = "."

    def changed(self) -> list[str]:
        """Names of the fields that differ from their defaults."""
        return [each.name for each in fields(self) if getattr(self, each.name) != each.default]

    def number(self, text: str) -> float | None:
        """The number that a cell holds; None if it holds none."""
        with suppress(ValueError):
            return float(self.plain(text))
        return None

    def plain(self, text: str) -> str:
        """The text with decimal points; what else has a point becomes no number."""
        return text if self.decimal == "." else text.translate(_DECIMAL_COMMAS)


_DECIMAL_COMMAS = str.maketrans({",": ".", ".": "?"})
DEFAULT_LAYOUT = TextLayout()

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of a file → how it is compressed."""


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file, whatever its name, decompressed if its first bytes say that it is compressed: gzip, bzip2, xz, Zstandard."""
    with open(path, "rb") as raw, ExitStack() as stack:
        start = raw.read(8)
        raw.seek(0)
        kind = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), "")
        plain: Any = io.BufferedReader(_Bounded(stack.enter_context(_decompressed(raw, kind)), path)) if kind else raw
        yield stack.enter_context(io.TextIOWrapper(plain, encoding="utf-8-sig", newline=""))


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends with a DataError once it has given far more than its file's size."""

    def __init__(self, stream: Any, path: Path):
        self._stream, self._path, self._given = stream, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._given += len(data)
        if self._given > LARGE_TEXT:
            refuse_bomb(self._path, self._given, LARGE_TEXT)
        return len(data)


def _decompressed(raw: BinaryIO, kind: str) -> Any:
    if kind == "zstd":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(raw, "zstd"))
    return {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[kind](raw)


def read_numbers(
    path: Path, columns: Sequence[Column], layout: TextLayout = DEFAULT_LAYOUT, rows: slice | None = None
) -> np.ndarray:
    """Columns of numbers, as (rows, columns) float64; of `rows` only, where these are given.

    Args:
        path: The file, which may be compressed.
        columns: Those wanted.
        layout: How it is written.
        rows: Those wanted; all by default.

    Raises:
        DataError: If the file is unreadable or empty, lacks a column, or a cell of these rows is not a finite number, naming
            the line.
    """
    values = _read(path, tuple(columns), layout, "float64")
    first, last, _ = (rows or slice(None)).indices(len(values))
    bad = np.argwhere(~measurable(values[first:last]))
    if len(bad):
        row, column = bad[0].tolist()
        line, cells = next(islice(_lines(path, layout), first + row + layout.header, None))
        what = _fault(line, cells, dict(zip(_numbers(path, columns, layout), columns, strict=True)), layout)
        what = what or (
            f"line {line}: column {columns[column]!r} is {values[first + row, column]:g}, "
            f"not a finite number up to {LARGEST:g} ({len(bad)} such cells)"
        )
        raise DataError(f"{path}: {what}")
    return values[first:last]


def read_gappy(path: Path, columns: Sequence[Column], layout: TextLayout = DEFAULT_LAYOUT) -> np.ndarray:
    """Columns of numbers, (rows, columns) float64, NaN where a cell is missing, no number, or beyond all measure.

    Raises:
        DataError: If the file is unreadable or empty, or lacks the column.
    """
    values = _read(path, tuple(columns), layout, "float64")
    return np.where(measurable(values), values, np.nan)


def read_texts(path: Path, columns: Sequence[Column], layout: TextLayout = DEFAULT_LAYOUT) -> np.ndarray:
    """Columns of text without surrounding blanks, as (rows, columns); empty where a row ends before the column.

    Raises:
        DataError: If the file is unreadable or empty, or lacks a column.
    """
    return np.char.strip(_read(path, tuple(columns), layout, "str"))


def seems_headerless(path: Path, columns: Sequence[Column], layout: TextLayout) -> bool:
    """True if the first line has numbers where `columns` are, and these are not just the columns' own numbers.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        first = next(_lines(path, layout), (0, []))[1]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    cells = [(column, first[column]) for column in columns if isinstance(column, int) and column < len(first)]
    return (
        bool(cells)
        and all(layout.number(text) is not None for _, text in cells)
        and any(text != str(column) for column, text in cells)
    )


def _read(path: Path, columns: tuple[Column, ...], layout: TextLayout, kind: str) -> np.ndarray:
    try:
        return _parse(path, path.stat().st_mtime_ns, columns, layout, kind)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error
    except (EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: its compressed content is damaged ({error})") from error


@lru_cache(maxsize=32)
def _parse(path: Path, stamp: int, columns: tuple[Column, ...], layout: TextLayout, kind: str) -> np.ndarray:
    """Parsed columns; `stamp` is the file's time of change, so that a changed file is read again."""
    del stamp
    lines = _lines(path, layout)
    first = next(lines, (0, []))[0] if layout.header else 0
    numbers = _numbers(path, columns, layout)
    if not any(any(cells) for _, cells in lines):
        raise ValueError("has no rows")
    if layout.header and not layout.record_end and layout.delimiter != " ":
        _refuse_longer_rows(path, layout)
    values = None if layout.record_end else _load(path, kind, layout, first, numbers)
    if values is None:  # a row is too short, or a cell no number: the others may be sound
        rows = islice(_lines(path, layout), int(layout.header), None)
        values = np.array([[_cell(cells, number, kind, layout) for number in numbers] for _, cells in rows], dtype=kind)
    values.flags.writeable = False
    return values


def _load(path: Path, kind: str, layout: TextLayout, skipped: int, numbers: Sequence[int]) -> np.ndarray | None:
    """The columns as NumPy reads them, quickly; None if it cannot."""
    with open_text(path) as file:
        try:
            return np.loadtxt(
                map(layout.plain, file) if kind != "str" and layout.decimal != "." else file,
                dtype=kind,
                comments=None,
                delimiter=None if layout.delimiter == " " else layout.delimiter,
                skiprows=skipped,
                usecols=numbers,
                ndmin=2,
                quotechar='"',
            )
        except UnicodeDecodeError:
            raise
        except ValueError:
            return None


def _refuse_longer_rows(path: Path, layout: TextLayout) -> None:
    """Refuse rows with more cells than the header has names: nobody knows which name belongs to which cell.

    Decimal commas make such rows, and row names without a heading. Empty cells at the end do not count.

    Raises:
        ValueError: If there is one, naming its line.
    """
    with open_text(path) as file:
        counts = (line.count(layout.delimiter) for line in file)
        first = next((count for count in counts if count), 0)
        if all(count <= first for count in counts):
            return
    lines = _lines(path, layout)
    names = next(lines)[1]
    for line, cells in lines:
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()
        if len(cells) > len(names):
            hint = "; are there decimal commas, or row names without a heading?"
            raise ValueError(f"line {line} has {len(cells)} columns, and the header names {len(names)}{hint}")


def _cell(cells: Sequence[str], number: int, kind: str, layout: TextLayout) -> float | str:
    text = cells[number] if number < len(cells) else ""
    if kind == "str":
        return text
    value = layout.number(text)
    return np.nan if value is None else value


def _numbers(path: Path, columns: Sequence[Column], layout: TextLayout) -> list[int]:
    """The indices of `columns` in a row."""
    names = next(_lines(path, layout), (0, []))[1] if layout.header else []
    if layout.header and not names:
        raise ValueError("is empty")
    return [_number(column, names, layout) for column in columns]


def _lines(path: Path, layout: TextLayout) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not empty: the number of its line, counted from 1, and its cells without surrounding blanks."""
    delimiter, record_end = layout.delimiter, layout.record_end
    with open_text(path) as file:
        if record_end:
            for number, line in enumerate(file, start=1):
                for record in line.split(record_end):
                    if record.strip():
                        cells = next(csv.reader([record.strip()], delimiter=delimiter))
                        yield number, [cell.strip() for cell in cells]
            return
        blank = delimiter == " "
        reader = csv.reader((line.replace("\t", " ") for line in file) if blank else file, delimiter=delimiter)
        for row in reader:
            cells = [cell.strip() for cell in row if cell or not blank]
            if cells:
                yield reader.line_num, cells


def _fault(line: int, cells: Sequence[str], columns: Mapping[int, Column], layout: TextLayout) -> str:
    """The reason why a line's cells are not numbers; empty if they are."""
    for number, column in columns.items():
        if number >= len(cells):
            return f"line {line} has {len(cells)} column(s), none for {column!r}{_other_delimiter(cells, layout)}"
        if layout.number(cells[number]) is None:
            return f"line {line}: column {column!r} is {cells[number]!r}, not a number{_advice(cells[number], layout)}"
    return ""


def _advice(cell: str, layout: TextLayout) -> str:
    """The end of a message about a cell that is not a number: the option that may help."""
    if cell in ("", "?", "NA", "N/A", "null", "None"):
        return "; `missing_values` says what to do about missing ones"
    if cell.endswith(";") and layout.delimiter != ";":
        return "; does ';' end its rows? set `record_end: ';'`"
    if layout.decimal == "." and re.fullmatch(r"[-+]?\d*,\d+", cell):
        return "; are these decimal commas? set `decimal: ','`"
    if layout.decimal == "," and "." in cell:
        return "; `decimal` is ',', and a point may separate thousands"
    return _other_delimiter([cell], layout)


def _other_delimiter(cells: Sequence[str], layout: TextLayout) -> str:
    """The end of a message: the delimiter that a line seems to have instead of the one in `layout`."""
    marks = {layout.delimiter, layout.decimal}
    found = [each for each in _DELIMITERS if each not in marks and any(each in cell for cell in cells)]
    return f"; is its `delimiter` {found[0]!r}?" if found else ""


def _number(column: Column, names: Sequence[str], layout: TextLayout) -> int:
    if isinstance(column, int):
        return column
    if not layout.header:
        raise ValueError(f"column {column!r} is given by name, but header is false")
    if column not in names:
        hint = _other_delimiter(names, layout)
        raise ValueError(f"has no column {column!r}; its columns are {', '.join(names)}{hint}")
    if names.count(column) > 1:
        raise ValueError(
            f"has {names.count(column)} columns {column!r}; name them differently, or give a column's number from 0"
        )
    return names.index(column)
