"""Reader for columns of delimited text, with errors that name the file."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

import numpy as np

from kdcore import DataError, refuse_bomb
from kdcore_datasets.file_formats import LARGEST, measurable

Column = str | int
"""Column name in the header, or column number starting at 0."""

LARGE_TEXT = 1 << 26
"""Size in bytes up to which decompressed text is always accepted."""

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class TextLayout:
    """The format of a file of delimited text.

    Args:
        delimiter: Column separator; a blank means any white space.
        header: Whether the first line contains column names.
        record_end: Character at the end of each row, before the line break. Default: none.
        decimal: Decimal mark. With a comma, numbers with a point are rejected, since the point may separate thousands.
        encoding: Encoding of the text. UTF-16 with a byte order mark is recognised.
        comment: Start of lines that are not read. Default: none.

    Raises:
        ValueError: If the delimiter is not one character, or the encoding is unknown.
    """

    delimiter: str = ","
    header: bool = True
    record_end: str = ""
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    comment: str = ""

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1:
            raise ValueError(f"the delimiter must be one character, not {self.delimiter!r}")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ValueError(
                f"unknown encoding {self.encoding!r}; encodings are, for example, utf-8, latin-1 and cp1252"
            ) from None

    def changed(self) -> list[str]:
        """Names of the fields that differ from their defaults."""
        return [each.name for each in fields(self) if getattr(self, each.name) != each.default]

    def number(self, text: str) -> float | None:
        """Return the number in a cell, or None if it is not a number."""
        with suppress(ValueError):
            return float(self.plain(text))
        return None

    def plain(self, text: str) -> str:
        """Return text with decimal points. Text that already contains a point becomes invalid."""
        return text if self.decimal == "." else text.translate(_DECIMAL_COMMAS)


_DECIMAL_COMMAS = str.maketrans({",": ".", ".": "?"})
DEFAULT_LAYOUT = TextLayout()

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""Compression formats by the first bytes of a file."""


@contextmanager
def open_text(path: Path, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Open a text file. It is decompressed if its first bytes indicate gzip, bzip2, xz or Zstandard.

    Args:
        path: File.
        encoding: Encoding of the text; UTF-16 with a byte order mark is read as such.
    """
    with open(path, "rb") as raw, ExitStack() as stack:
        start = raw.read(8)
        raw.seek(0)
        kind = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), "")
        plain: Any = io.BufferedReader(_Bounded(stack.enter_context(_decompressed(raw, kind)), path)) if kind else raw
        if plain.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            encoding = "utf-16"
        elif codecs.lookup(encoding).name == "utf-8":
            encoding = "utf-8-sig"
        yield stack.enter_context(io.TextIOWrapper(plain, encoding=encoding, newline=""))


@contextmanager
def _open(path: Path, layout: TextLayout) -> Iterator[Iterator[str]]:
    """Open a text file. Comment lines are empty, so that line numbers do not change."""
    with open_text(path, layout.encoding) as file:
        yield ("" if line.lstrip().startswith(layout.comment) else line for line in file) if layout.comment else file


class _Bounded(io.RawIOBase):
    """A decompressed stream that raises a DataError once it has returned far more than the size of the file."""

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
    """Read columns of numbers, (rows, columns) float64.

    Args:
        path: File, which may be compressed.
        columns: Columns to read.
        layout: Format of the file.
        rows: Rows to read. Default: all.

    Raises:
        DataError: If the file is unreadable or empty, lacks a column, or a cell in these rows is not a finite number. The
            message names the line.
    """
    values = _read(path, tuple(columns), layout, "float64")
    first, last, _ = (rows or slice(None)).indices(len(values))
    bad = np.argwhere(~measurable(values[first:last]))
    if len(bad):
        row, column = bad[0].tolist()
        line, cells = next(islice(_lines(path, layout), first + row + layout.header, None))
        by_number = dict(zip(_numbers(path, columns, layout), columns, strict=True))
        what = cell_fault(line, cells, by_number, layout, partial(_advice, layout=layout), _other_delimiter(cells, layout))
        what = what or (
            f"line {line}: column {columns[column]!r} is {values[first + row, column]:g}, "
            f"not a finite number up to {LARGEST:g} ({len(bad)} such cells)"
        )
        raise DataError(f"{path}: {what}")
    return values[first:last]


def read_gappy(path: Path, columns: Sequence[Column], layout: TextLayout = DEFAULT_LAYOUT) -> np.ndarray:
    """Read columns of numbers, (rows, columns) float64, with NaN for cells that are missing, not numbers, or too large.

    Raises:
        DataError: If the file is unreadable or empty, or lacks a column.
    """
    values = _read(path, tuple(columns), layout, "float64")
    return np.where(measurable(values), values, np.nan)


def read_texts(path: Path, columns: Sequence[Column], layout: TextLayout = DEFAULT_LAYOUT) -> np.ndarray:
    """Read columns of text without surrounding blanks, (rows, columns); empty if a row ends before the column.

    Raises:
        DataError: If the file is unreadable or empty, or lacks a column.
    """
    return np.char.strip(_read(path, tuple(columns), layout, "str"))


def seems_headerless(path: Path, columns: Sequence[Column], layout: TextLayout) -> bool:
    """Return whether the first line contains numbers in `columns` that are not just the column numbers.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        first = next(_lines(path, layout), (0, []))[1]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {_not_text(error, layout)}") from error
    except (OSError, ValueError, csv.Error, EOFError, lzma.LZMAError) as error:
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
        raise DataError(f"{path}: {_not_text(error, layout)}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error
    except (EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: its compressed content is damaged ({error})") from error


def _not_text(error: UnicodeDecodeError, layout: TextLayout) -> str:
    what = f"is not text in {layout.encoding} ({error.reason} at byte {error.start})"
    return f"{what}; if it is text, set its `encoding`, such as latin-1 or cp1252"


@lru_cache(maxsize=32)
def _parse(path: Path, stamp: int, columns: tuple[Column, ...], layout: TextLayout, kind: str) -> np.ndarray:
    """Return the parsed columns. `stamp` is the modification time, so that a changed file is read again."""
    del stamp
    lines = _lines(path, layout)
    first = next(lines, (0, []))[0] if layout.header else 0
    numbers = _numbers(path, columns, layout)
    if not any(any(cells) for _, cells in lines):
        raise ValueError("has no rows")
    if layout.header and not layout.record_end and layout.delimiter != " ":
        _refuse_longer_rows(path, layout)
    values = None if layout.record_end else _load(path, kind, layout, first, numbers)
    if values is None:  # a row is too short, or a cell is not a number; the other rows may be valid
        rows = islice(_lines(path, layout), int(layout.header), None)
        values = np.array([[_cell(cells, number, kind, layout) for number in numbers] for _, cells in rows], dtype=kind)
    values.flags.writeable = False
    return values


def _load(path: Path, kind: str, layout: TextLayout, skipped: int, numbers: Sequence[int]) -> np.ndarray | None:
    """Read the columns quickly with NumPy; return None if that fails."""
    with _open(path, layout) as file:
        if layout.comment:  # NumPy warns of empty lines
            file, skipped = filter(None, islice(file, skipped, None)), 0
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
    """Raise an error for rows with more cells than the header has names, since cells cannot be assigned to names.

    Decimal commas and row names without a column name lead to such rows. Empty cells at the end are ignored.

    Raises:
        ValueError: If there is such a row. The message names the line.
    """
    with _open(path, layout) as file:
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
    """Return the indices of `columns` in a row."""
    names = next(_lines(path, layout), (0, []))[1] if layout.header else []
    if layout.header and not names:
        raise ValueError("is empty")
    return [_number(column, names, layout) for column in columns]


def _lines(path: Path, layout: TextLayout) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each non-empty line, starting at 1, and its cells without surrounding blanks."""
    delimiter, record_end = layout.delimiter, layout.record_end
    with _open(path, layout) as file:
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


def cell_fault(
    line: int,
    cells: Sequence[str],
    columns: Mapping[int, Column],
    layout: TextLayout,
    advice: Callable[[str], str],
    row_advice: str = "",
) -> str:
    """Return why a line's cells are not numbers; empty if they are numbers.

    Args:
        line: Number of the line.
        cells: Cells of the line.
        columns: Index of a column in the line → its name or number.
        layout: Format of the line.
        advice: Cell → hint to add to the message about it.
        row_advice: Hint to add if the line has too few cells.
    """
    for number, column in columns.items():
        if number >= len(cells):
            return f"line {line} has {len(cells)} column(s), none for {column!r}{row_advice}"
        if layout.number(cells[number]) is None:
            return f"line {line}: column {column!r} is {cells[number]!r}, not a number{advice(cells[number])}"
    return ""


def _advice(cell: str, layout: TextLayout) -> str:
    """Return a hint for a cell that is not a number: an option that may help."""
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
    """Return a hint if a line appears to have another delimiter than `layout`."""
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
