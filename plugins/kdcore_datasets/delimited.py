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
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from kdcore import DataError, refuse_bomb
from kdcore_datasets.file_formats import LARGEST, measurable

Column = str | int
"""A column's name in the header, or its number counted from 0."""

LARGE_TEXT = 1 << 26
"""Bytes of text up to which a compressed file is read whatever its own size."""

_DELIMITERS = (",", ";", "\t", "|")

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
    path: Path,
    columns: Sequence[Column],
    delimiter: str = ",",
    header: bool = True,
    rows: slice | None = None,
    record_end: str = "",
) -> np.ndarray:
    """Columns of numbers, as (rows, columns) float64; of `rows` only, where these are given.

    Args:
        path: The file, which may be compressed.
        columns: Those wanted.
        delimiter: What stands between columns.
        header: Whether the first line names the columns.
        rows: Those wanted; all by default.
        record_end: Ends a row, besides the end of the line; nothing by default.

    Raises:
        DataError: If the file is unreadable or empty, lacks a column, or a cell of these rows is not a finite number, naming
            the line.
    """
    values = _read(path, tuple(columns), delimiter, header, "float64", record_end)
    first, last, _ = (rows or slice(None)).indices(len(values))
    bad = np.argwhere(~measurable(values[first:last]))
    if len(bad):
        row, column = bad[0].tolist()
        line, cells = next(islice(_lines(path, delimiter, record_end), first + row + header, None))
        what = _fault(
            line, cells, dict(zip(_numbers(path, columns, delimiter, header, record_end), columns, strict=True)), delimiter
        )
        what = what or (
            f"line {line}: column {columns[column]!r} is {values[first + row, column]:g}, "
            f"not a finite number up to {LARGEST:g} ({len(bad)} such cells)"
        )
        raise DataError(f"{path}: {what}")
    return values[first:last]


def read_gappy(
    path: Path, columns: Sequence[Column], delimiter: str = ",", header: bool = True, record_end: str = ""
) -> np.ndarray:
    """Columns of numbers, (rows, columns) float64, NaN where a cell is missing, no number, or beyond all measure.

    Raises:
        DataError: If the file is unreadable or empty, or lacks the column.
    """
    values = _read(path, tuple(columns), delimiter, header, "float64", record_end)
    return np.where(measurable(values), values, np.nan)


def read_texts(
    path: Path, columns: Sequence[Column], delimiter: str = ",", header: bool = True, record_end: str = ""
) -> np.ndarray:
    """Columns of text without surrounding blanks, as (rows, columns); empty where a row ends before the column.

    Raises:
        DataError: If the file is unreadable or empty, or lacks a column.
    """
    return np.char.strip(_read(path, tuple(columns), delimiter, header, "str", record_end))


def seems_headerless(path: Path, columns: Sequence[Column], delimiter: str = ",", record_end: str = "") -> bool:
    """True if the first line has numbers where `columns` are, and these are not just the columns' own numbers.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        first = next(_lines(path, delimiter, record_end), (0, []))[1]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    cells = [(column, first[column]) for column in columns if isinstance(column, int) and column < len(first)]
    return bool(cells) and all(_is_number(text) for _, text in cells) and any(text != str(column) for column, text in cells)


def _read(path: Path, columns: tuple[Column, ...], delimiter: str, header: bool, kind: str, record_end: str) -> np.ndarray:
    try:
        return _parse(path, path.stat().st_mtime_ns, columns, delimiter, header, kind, record_end)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error
    except (EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: its compressed content is damaged ({error})") from error


@lru_cache(maxsize=32)
def _parse(
    path: Path, stamp: int, columns: tuple[Column, ...], delimiter: str, header: bool, kind: str, record_end: str
) -> np.ndarray:
    """Parsed columns; `stamp` is the file's time of change, so that a changed file is read again."""
    del stamp
    lines = _lines(path, delimiter, record_end)
    first = next(lines, (0, []))[0] if header else 0
    numbers = _numbers(path, columns, delimiter, header, record_end)
    if not any(any(cells) for _, cells in lines):
        raise ValueError("has no rows")
    if header and not record_end and delimiter != " ":
        _refuse_longer_rows(path, delimiter)
    values = None if record_end else _load(path, kind, delimiter, first, numbers)
    if values is None:  # a row is too short, or a cell no number: the others may be sound
        rows = islice(_lines(path, delimiter, record_end), int(header), None)
        values = np.array([[_cell(cells, number, kind) for number in numbers] for _, cells in rows], dtype=kind)
    values.flags.writeable = False
    return values


def _load(path: Path, kind: str, delimiter: str, skipped: int, numbers: Sequence[int]) -> np.ndarray | None:
    """The columns as NumPy reads them, quickly; None if it cannot."""
    with open_text(path) as file:
        try:
            return np.loadtxt(
                file,
                dtype=kind,
                comments=None,
                delimiter=None if delimiter == " " else delimiter,
                skiprows=skipped,
                usecols=numbers,
                ndmin=2,
                quotechar='"',
            )
        except UnicodeDecodeError:
            raise
        except ValueError:
            return None


def _refuse_longer_rows(path: Path, delimiter: str) -> None:
    """Refuse rows with more cells than the header has names: nobody knows which name belongs to which cell.

    Decimal commas make such rows, and row names without a heading. Empty cells at the end do not count.

    Raises:
        ValueError: If there is one, naming its line.
    """
    with open_text(path) as file:
        counts = (line.count(delimiter) for line in file)
        first = next((count for count in counts if count), 0)
        if all(count <= first for count in counts):
            return
    lines = _lines(path, delimiter, "")
    names = next(lines)[1]
    for line, cells in lines:
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()
        if len(cells) > len(names):
            hint = "; are there decimal commas, or row names without a heading?"
            raise ValueError(f"line {line} has {len(cells)} columns, and the header names {len(names)}{hint}")


def _cell(cells: Sequence[str], number: int, kind: str) -> float | str:
    if kind == "str":
        return cells[number] if number < len(cells) else ""
    return float(cells[number]) if number < len(cells) and _is_number(cells[number]) else np.nan


def _numbers(path: Path, columns: Sequence[Column], delimiter: str, header: bool, record_end: str) -> list[int]:
    """The indices of `columns` in a row."""
    names = next(_lines(path, delimiter, record_end), (0, []))[1] if header else []
    if header and not names:
        raise ValueError("is empty")
    return [_number(column, names, header, delimiter) for column in columns]


def _lines(path: Path, delimiter: str, record_end: str) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not empty: the number of its line, counted from 1, and its cells without surrounding blanks."""
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


def _fault(line: int, cells: Sequence[str], columns: Mapping[int, Column], delimiter: str) -> str:
    """The reason why a line's cells are not numbers; empty if they are."""
    for number, column in columns.items():
        if number >= len(cells):
            return f"line {line} has {len(cells)} column(s), none for {column!r}{_other_delimiter(cells, delimiter)}"
        if not _is_number(cells[number]):
            decimal = re.fullmatch(r"[-+]?\d*,\d+", cells[number])
            hint = "; decimal commas are not read" if decimal else _other_delimiter([cells[number]], delimiter)
            if cells[number].endswith(";") and delimiter != ";":
                hint = "; does ';' end its rows? set `record_end: ';'`"
            elif cells[number] in ("", "?", "NA", "N/A", "null", "None"):
                hint = "; `missing_values` says what to do about missing ones"
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
        raise ValueError(f"column {column!r} is given by name, but header is false")
    if column not in names:
        hint = _other_delimiter(names, delimiter)
        raise ValueError(f"has no column {column!r}; its columns are {', '.join(names)}{hint}")
    if names.count(column) > 1:
        raise ValueError(
            f"has {names.count(column)} columns {column!r}; name them differently, or give a column's number from 0"
        )
    return names.index(column)
