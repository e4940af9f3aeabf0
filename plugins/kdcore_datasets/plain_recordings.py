"""Readers of recordings that belong to no dataset: arrays, tables of numbers, and standard input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import DataError, PlainRecording, RecordingForm, Signal
from kdcore_datasets.delimited import cell_fault
from kdcore_datasets.named_channels import Columns, check_clock, choose_columns, factor_of, is_time, note_unused, refuse_clock
from kdcore_datasets.number_text import advice, cells_of, has_extra_cells, layout_of, parse_columns
from kdcore_datasets.parquet_tables import column_names, read_measurements

TEXTS = (".csv", ".txt", ".tsv")
BINARY = (".npy", ".parquet")


def open_recording(source: Any, decimal: str = ".") -> PlainRecording | None:
    """Open a file, a data frame, or an iterable of lines; None for a file of another kind.

    Args:
        source: Path of a ``.npy`` file, a text table or a Parquet file; a data frame; or lines of a text table.
        decimal: Decimal mark of a text table.

    Raises:
        DataError: If the file cannot be read.
    """
    if not isinstance(source, Path):
        if hasattr(source, "columns"):
            return NamedColumns(list(map(str, source.columns)), source.to_numpy())
        return TextTable(source, decimal)
    if source.suffix not in (*TEXTS, *BINARY):
        return None
    if source.suffix in BINARY and decimal != ".":
        raise DataError("--decimal requires a text table; this file contains numbers")
    try:
        if source.suffix in TEXTS:
            return TextTable(source.read_text(encoding="utf-8-sig", errors="replace").splitlines(), decimal)
        if source.suffix == ".parquet":
            return ParquetTable(source)
        values = np.load(source, allow_pickle=False)
        names = values.dtype.names
        return NamedColumns(names, np.stack([values[name].astype(float) for name in names], axis=1)) if names else Array(values)
    except MemoryError as error:
        raise DataError("claims to contain more data than fits into memory") from error
    except (OSError, ValueError, TypeError, EOFError) as error:
        reason = "it is not in NumPy format, or contains Python objects" if "pickle" in str(error) else error
        raise DataError(f"not a readable array of numbers: {reason}") from error


class Array(PlainRecording):
    """An array with the axes of the modality, time first."""

    def __init__(self, values: np.ndarray):
        self.values = values

    def signal(self, form: RecordingForm) -> Signal:
        """Return the array in the units of the modality."""
        return Signal(_scaled(self.values, factor_of(form.units, form.modality)), form.rate)


class Table(PlainRecording):
    """A table of numbers with one row per sample, and optionally with named columns."""

    def __init__(self, names: Sequence[str], width: int):
        self.names, self.width = tuple(names), width
        self.time = next(filter(is_time, names), "")

    @abstractmethod
    def read(self, columns: Sequence[int]) -> np.ndarray:
        """Read the numbers in `columns`, (rows, columns) float64."""

    def columns_for(self, form: RecordingForm) -> Columns:
        """Select the columns with the channels of a modality."""
        return choose_columns(self.names, self.width, form.modality, form.units, form.channels)

    def signal(self, form: RecordingForm) -> Signal:
        """Read the columns with the channels of the modality, and check those with time stamps."""
        columns = self.columns_for(form)
        table = self.read(columns.wanted)
        note_unused(columns)
        count = len(columns.numbers)
        if columns.time is not None:
            check_clock(table[:, count], self.names[columns.time], form.rate)
        elif not self.names:
            refuse_clock(table)
        return Signal(_scaled(table[:, :count], np.array(columns.factors)), form.rate)


class NamedColumns(Table):
    """Named columns (rows, columns), of a structured array or a data frame."""

    def __init__(self, names: Sequence[str], values: np.ndarray):
        super().__init__(names, len(names))
        self.values = values

    def read(self, columns: Sequence[int]) -> np.ndarray:
        """Return `columns` as numbers."""
        return self.values[:, columns].astype(np.float64)


class ParquetTable(Table):
    """A Parquet file with one row per sample."""

    def __init__(self, path: Path):
        self.path = path
        names = column_names(path)
        super().__init__(names, len(names))

    def read(self, columns: Sequence[int]) -> np.ndarray:
        """Read `columns` from the file, with times in seconds."""
        return read_measurements(self.path, [self.names[each] for each in columns])


class TextTable(Table):
    """A table of numbers as text, in a file or in a stream, with or without a header line.

    Args:
        lines: Lines of the table.
        decimal: Decimal mark.

    Raises:
        DataError: If the columns are separated by the decimal mark.
    """

    def __init__(self, lines: Iterable[str], decimal: str = "."):
        self._lines = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        self._first = next(self._lines, None)
        first_line = self._first[1] if self._first else ""
        self.layout, names = layout_of(first_line, decimal)
        if decimal == "," and self.layout.delimiter == " " and any("," in name for name in names):
            raise DataError("with --decimal , columns are separated by semicolons, tabs or blanks, not by commas")
        super().__init__(names, len(cells_of(first_line, self.layout)))

    def _rows(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the text of each line of numbers."""
        if self._first and not self.names:
            yield self._first
        yield from self._lines

    def read(self, columns: Sequence[int]) -> np.ndarray:
        """Parse `columns` of all lines."""
        return parse_columns(list(self._rows()), columns, self.layout, self.names, self.width)

    def blocks(self, form: RecordingForm) -> Iterator[np.ndarray]:
        """Yield the samples of one line at a time."""
        if self._first is None:
            return
        columns = self.columns_for(form)
        note_unused(columns)
        titles = {each: self.names[each] if self.names else str(each) for each in columns.numbers}
        for number, line in self._rows():
            cells = cells_of(line, self.layout)
            if has_extra_cells(cells, self.width):
                raise DataError(f"line {number} has {len(cells)} columns, and the first line {self.width}")
            if fault := cell_fault(number, cells, titles, self.layout, partial(advice, layout=self.layout)):
                raise DataError(fault)
            values = [self.layout.number(cells[each]) or 0.0 for each in columns.numbers]
            yield np.array([values]) * columns.factors


def _scaled(values: np.ndarray, factors: np.ndarray | float) -> np.ndarray:
    if values.dtype.kind not in "fiub":
        return values  # rejected with a reason when compared with the student's input
    unscaled = np.all(np.asarray(factors) == 1)
    return values if unscaled and values.dtype != np.float64 else (values * factors).astype(np.float32)
