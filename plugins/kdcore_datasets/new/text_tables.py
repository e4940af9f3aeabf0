"""Detection of the layout of text files with numbers: delimiter, header, and roles of columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from kdcore import DataError
from kdcore_datasets.delimited import TextLayout, open_text
from kdcore_datasets.modalities import SECONDS
from kdcore_datasets.new.column_units import unit_in
from kdcore_datasets.new.file_names import kind_of
from kdcore_datasets.parquet_tables import first_rows, is_parquet

LINES = 2000
"""Number of lines of a file that are inspected."""

_DELIMITERS = (",", ";", "\t", "|", " ")
_MISSING = {"", "nan", "na", "n/a", "null", "none", "?"}
LABEL_NAMES = {
    "label", "labels", "aktivität", "activity", "activityid", "class", "action", "gesture", "activitylabel",
    "annotation", "target",
}  # fmt: skip
SUBJECT_NAMES = {"subject", "proband", "subjectname", "user", "participant", "person", "subjectid", "userid", "volunteer"}
_TRIAL = {"trial", "recording", "recordingid", "rec", "trialid", "clip", "clipid", "segment", "repetition"}
_TIME = {
    "time", "timestamp", "timestamps", "t", "ts", "epoch", "datetime", "date", "unixtime", "timems", "times", "seconds",
    "zeit",
}  # fmt: skip
_FILLERS = {"attr", "attribute", "value", "val", "data", "sensor", "raw", "axis"}
"""Meaningless words in column names, as in ``attr_time``."""
_RATES = (4.0, 1000.0)
"""Range of sampling rates of wearables in Hz. For each time stamp, at most one unit gives a rate in this range."""


@dataclass(frozen=True)
class TextTable:
    """The first lines of a text file, and their layout.

    Args:
        delimiter: Column separator.
        record_end: Character at the end of each row, before the line break.
        names: Column names in the header; empty without a header.
        rows: Cells as text.
        decimal: Decimal mark of numbers.
        encoding: Encoding of the text.
        comment: Start of lines that are not read.
    """

    delimiter: str
    record_end: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    comment: str = ""

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.rows[0])

    def texts(self, column: int) -> list[str]:
        """Return the cells of a column."""
        return [row[column] for row in self.rows if column < len(row)]

    def numbers(self, column: int) -> np.ndarray:
        """Return the cells of a column as float64, with NaN for cells that are not numbers."""
        layout = TextLayout(decimal=self.decimal)
        return np.array([layout.number(text) for text in self.texts(column)], dtype=np.float64)

    def column_name(self, column: int) -> str | int:
        """Return the column as in a recipe: its name, or its index without a header."""
        return self.names[column] if self.names else column


def read_table(path: Path) -> TextTable | None:
    """The layout of a file; None if it is no table with at least two columns of numbers."""
    if is_parquet(path):
        return _parquet_table(path)
    for encoding in ("utf-8", "cp1252"):
        with suppress(OSError, UnicodeDecodeError, EOFError, csv.Error):
            with open_text(path, encoding) as file:
                lines = [line.strip() for line in islice(file, LINES)]
            kept = [line for line in lines if line and not line.startswith("#")]
            if len(kept) >= 3 and not any("\0" in line for line in kept):
                found = _table(kept)
                comment = "#" if any(line.startswith("#") for line in lines) else ""
                return replace(found, encoding=encoding, comment=comment) if found else None
    return None


def _parquet_table(path: Path) -> TextTable | None:
    with suppress(DataError, ValueError):
        if found := first_rows(path, LINES):
            names, rows = found
            table = TextTable(",", "", tuple(names), tuple(map(tuple, rows)))
            numeric = sum(bool(np.isfinite(table.numbers(column)).any()) for column in range(len(names)))
            return table if len(rows) >= 3 and numeric >= 2 and len(set(names)) == len(names) else None
    return None


def _table(lines: Sequence[str]) -> TextTable | None:
    ends = ";" if sum(line.endswith(";") for line in lines) > 0.9 * len(lines) else ""
    plain = [line.rstrip(";,").rstrip() if ends else line for line in lines]
    layout = TextLayout(decimal="," if _have_decimal_commas(plain) else ".")
    best: tuple[int, str, list[list[str]]] | None = None
    for delimiter in _DELIMITERS:
        if delimiter == layout.decimal:
            continue
        rows = _split(plain, delimiter)
        widths = [len(row) for row in rows[1:]]
        width = max(set(widths), key=widths.count)
        numeric = sum(_is_finite(text, layout) for text in rows[len(rows) // 2][:width])
        regular = widths.count(width) >= 0.9 * len(widths)
        if width > 1 and regular and numeric >= 2 and (best is None or numeric > best[0]):
            best = (numeric, delimiter, [row for row in rows if len(row) == width])
    if best is None:
        return None
    _, delimiter, rows = best
    header = _is_header(rows, layout)
    names = tuple(rows[0]) if header else ()
    if len(set(names)) < len(names):
        names = ()
    return TextTable(delimiter, ends, names, tuple(tuple(row) for row in rows[int(header) :]), layout.decimal)


def _have_decimal_commas(lines: Sequence[str]) -> bool:
    """Return whether rows contain numbers with decimal commas, separated by semicolons, tabs or bars."""
    rows = [re.split(r"[;\t|]", line) for line in lines[1:20]]
    return all(sum(bool(re.fullmatch(r"\s*[-+]?\d+,\d+\s*", cell)) for cell in row) >= 2 for row in rows)


def _split(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    if delimiter == " ":
        return [line.split() for line in lines]
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]


def _is_header(rows: Sequence[Sequence[str]], layout: TextLayout) -> bool:
    """Return whether the first row has text in a column of numbers."""
    below = rows[1 : min(len(rows), 20)]
    numeric = [all(_is_value(row[n], layout) for row in below) for n in range(len(rows[0]))]
    return any(fits and not _is_value(cell, layout) for fits, cell in zip(numeric, rows[0], strict=True))


def _is_finite(text: str, layout: TextLayout) -> bool:
    value = layout.number(text)
    return value is not None and bool(np.isfinite(value))


def _is_value(text: str, layout: TextLayout) -> bool:
    return text.lower() in _MISSING or _is_finite(text, layout)


def plain(name: str) -> str:
    """Return a column name in lower case without blanks, punctuation and a unit in brackets."""
    return re.sub(r"[\W_]+", "", re.sub(r"[(\[].*?[)\]]", "", name.lower()))


def _without_fillers(name: str) -> str:
    return "_".join(part for part in name.split("_") if part.lower() not in _FILLERS) or name


@dataclass
class Columns:
    """The roles of the columns of a table.

    Args:
        time: Column of time stamps.
        unit: Unit of the time stamps.
        rate: Sampling rate derived from the time stamps, in Hz.
        label: Column of labels.
        subject: Column of subjects.
        trial: Column that distinguishes the recordings of a file.
        restarts: Whether time stamps go back where no column of labels, subjects or trials changes.
        groups: Columns by (device or empty, kind of signal).
        gaps: Whether values are missing.
        unused: Columns of numbers with another role, which is unknown.
    """

    time: int | None
    unit: str
    rate: float | None
    label: int | None
    subject: int | None
    trial: int | None
    restarts: bool
    groups: dict[tuple[str, str], list[int]]
    gaps: bool
    unused: list[int]


def read_columns(table: TextTable) -> Columns:
    """Detect the columns of time, label, subject and signals in a table."""
    names = [plain(_without_fillers(name)) for name in table.names]
    label = _named(names, LABEL_NAMES)
    subject = _named(names, SUBJECT_NAMES)
    if not names:
        label = next((n for n in range(table.width) if _is_words(table, n)), None)
    time, unit, rate = _time(table, names, {label, subject})
    if not names:
        seldom = [n for n in range(table.width) if n not in (time, label) and _is_constant_count(table, n)]
        if label is None and table.width - 1 in seldom:
            label = seldom.pop()
        subject = next((n for n in seldom if label is not None and n < label), None)
    trial = _named(names, _TRIAL)
    keys = [n for n in (label, subject, trial) if n is not None]
    back = _restarts(table, time) if unit != "iso" else set()
    if trial is None and not back <= _changes(table, keys):
        others = [n for n in range(table.width) if n not in (time, *keys) and names and not kind_of(names[n])]
        trial = next((n for n in others if back <= (found := _changes(table, [n])) and len(found) <= 2 * len(back)), None)
        keys += [trial] if trial is not None else []
    restarts = not back <= _changes(table, keys)
    rest = [n for n in range(table.width) if n not in (time, *keys) and _is_signal(table, n)]
    groups = _by_name(table, rest) if names else _by_threes(table, rest)
    used = [n for group in groups.values() for n in group]
    gaps = any(not np.isfinite(table.numbers(n)).all() for n in used)
    unused = [n for n in rest if n not in used and not (np.diff(table.numbers(n)) == 1).all()]  # or row numbers
    return Columns(time, unit, rate, label, subject, trial, restarts, groups, gaps, unused)


def _changes(table: TextTable, columns: Sequence[int]) -> set[int]:
    """Return the rows in which one of the columns differs from the row before."""
    return {row for n in columns for row, (one, other) in enumerate(pairwise(table.texts(n)), start=1) if one != other}


def _restarts(table: TextTable, time: int | None) -> set[int]:
    """Return the rows in which the time is before that of the row before."""
    return set() if time is None else set((np.flatnonzero(np.diff(table.numbers(time)) < 0) + 1).tolist())


def _named(names: Sequence[str], known: set[str]) -> int | None:
    return next((n for n, name in enumerate(names) if name in known), None)


def _is_words(table: TextTable, column: int) -> bool:
    texts = table.texts(column)
    words = all(text.lower() not in _MISSING for text in texts) and not np.isfinite(table.numbers(column)).any()
    return words and not _dates(texts)


def _is_constant_count(table: TextTable, column: int) -> bool:
    """Return whether numbers are integers that rarely change."""
    values = table.numbers(column)
    integers = np.isfinite(values).all() and (values == np.round(values)).all()
    return bool(integers) and int((np.diff(values) != 0).sum()) < len(values) / 10


def _is_signal(table: TextTable, column: int) -> bool:
    values = table.numbers(column)
    known = values[np.isfinite(values)]
    return len(known) > len(values) / 2 and len(np.unique(known)) > 2


def _time(table: TextTable, names: Sequence[str], taken: set[int | None]) -> tuple[int | None, str, float | None]:
    """Return the column of time stamps, their unit, and the sampling rate derived from them."""
    time_columns = {n: each for n, name in enumerate(table.names) for each in SECONDS.items() if each[0] == unit_in(name)}
    named = _named(names, _TIME) if _named(names, _TIME) is not None else next(iter(time_columns), None)
    free = [n for n in range(table.width) if n not in taken and (not names or _advances(table, n))]
    candidates = [named] if named is not None else free
    for column in candidates:
        texts = table.texts(column)
        if _dates(texts):
            return column, "iso", _rate(np.array([datetime.fromisoformat(text).timestamp() for text in texts]))
        values = table.numbers(column)
        back = float((np.diff(values) < 0).mean())  # more than 0 if there are several recordings in a file
        if not np.isfinite(values).all() or back > (0.01 if named is None else 0.1):
            continue
        if not back and len(np.unique(values)) < len(values) / 3:
            continue
        if column in time_columns:
            return column, time_columns[column][0], _rate(values * time_columns[column][1])
        for unit, seconds in SECONDS.items():
            rate = _rate(values * seconds)
            if rate and _RATES[0] <= rate <= _RATES[1]:
                return column, unit, rate
        if named is not None:
            return column, "", None
    return None, "", None


def _advances(table: TextTable, column: int) -> bool:
    """Return whether numbers increase from row to row, and do not only count the rows."""
    steps = np.diff(table.numbers(column))
    return bool((steps > 0).all()) and not bool((steps == 1).all())


def _dates(texts: Sequence[str]) -> bool:
    try:
        return all(datetime.fromisoformat(text) and not text.isdecimal() for text in texts[:50])
    except ValueError:
        return False


def _rate(seconds: np.ndarray) -> float | None:
    steps = np.diff(seconds)
    steps = steps[steps > 0]
    return 1 / float(np.median(steps)) if len(steps) else None


def _by_name(table: TextTable, columns: Sequence[int]) -> dict[tuple[str, str], list[int]]:
    """Return groups of columns whose names contain a kind of signal and, possibly, a device."""
    groups: dict[tuple[str, str], list[int]] = {}
    loose = []
    for column in columns:
        words = list(words_of(_without_fillers(table.names[column])))
        kind = next(filter(None, map(kind_of, words)), "")
        if not kind:
            if words and words[-1] in ("x", "y", "z") and len(words) == 1:
                loose.append(column)
            continue
        device = "-".join(word for word in words if not kind_of(word) and word not in ("x", "y", "z", "w") and word.isalpha())
        groups.setdefault((device, kind), []).append(column)
    if loose and not groups:
        groups["", guess_kind(table, loose)] = loose
    return groups


def words_of(name: str) -> Iterator[str]:
    """The words of a column's name: ``wristAccX`` is wrist, acc, x."""
    for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", re.sub(r"[(\[].*?[)\]]", "", name)):
        lower = word.lower()
        axis = re.fullmatch(r"(acc|accel|gyr|gyro|mag)([xyz])|([xyz])(acc|accel|gyr|gyro|mag)", lower)
        short = {"ax": "acc x", "ay": "acc y", "az": "acc z", "gx": "gyr x", "gy": "gyr y", "gz": "gyr z"}
        if axis:
            yield from (group for group in axis.groups() if group)
        else:
            yield from str(short.get(lower, lower)).split()


def _by_threes(table: TextTable, columns: Sequence[int]) -> dict[tuple[str, str], list[int]]:
    """Group adjacent columns in threes, if there is no header."""
    if not columns or len(columns) % 3 or len(columns) > 9:
        return {("", "signal"): list(columns)} if columns else {}
    groups: dict[tuple[str, str], list[int]] = {}
    for start in range(0, len(columns), 3):
        three = list(columns[start : start + 3])
        kind = guess_kind(table, three)
        kind = kind if ("", kind) not in groups else "gyroscope" if ("", "gyroscope") not in groups else "magnetometer"
        groups["", kind] = three
    return groups


def guess_kind(table: TextTable, columns: Sequence[int]) -> str:
    """Return ``accelerometer`` if the median length of vectors in three columns is gravity, or else ``signal``."""
    return "accelerometer" if len(columns) == 3 and acceleration_unit(table, columns) else "signal"


def typical(table: TextTable, columns: Sequence[int]) -> float:
    """Return the median length of the vectors in some columns."""
    length = np.linalg.norm(np.stack([table.numbers(n) for n in columns]), axis=0)
    return float(np.median(length[np.isfinite(length)])) if np.isfinite(length).any() else np.nan


def acceleration_unit(table: TextTable, columns: Sequence[int]) -> str:
    """The unit in which the typical acceleration is that of gravity; empty if there is none."""
    return gravity_unit(typical(table, columns))


def gravity_unit(length: float) -> str:
    """The unit in which a typical acceleration of this length is that of gravity; empty if there is none."""
    return next((unit for unit, one in (("m/s^2", 9.81), ("g", 1.0), ("mg", 1000.0)) if 0.7 < length / one < 1.5), "")
