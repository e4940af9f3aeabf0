"""Options that describe sensor files in a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Gt

from kdcore import Modality
from kdcore_datasets.delimited import Column, TextLayout
from kdcore_datasets.modalities import ACCELEROMETER, GYROSCOPE, ORIENTATION, TimeUnit, Unit
from kdcore_datasets.parquet_tables import is_parquet
from kdcore_datasets.pattern import PathPattern

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class Interpolate:
    """Linear interpolation of missing values.

    Args:
        interpolate: Maximum length of a gap in seconds, from the last value before it to the first value after it.
    """

    interpolate: Annotated[float, Gt(0)]
    __pydantic_config__ = _STRICT


MissingValues = Literal["error", "drop"] | Interpolate
"""Treatment of rows with a missing value."""
KeyField = Literal["subject", "trial", "view", "scene", "session"]
_KNOWN = {each.name: each for each in (ACCELEROMETER, GYROSCOPE, ORIENTATION)}


@dataclass(frozen=True)
class Device:
    """The files of a device and their columns.

    Args:
        pattern: Pattern of the file paths relative to the dataset's root, e.g. ``s{subject}/{action}_{trial}_watch.csv``. Files
            with the suffix ``.parquet`` or ``.pq`` are read as Parquet, with a row per time step; all others as text.
        columns: Columns of each kind of signal (``accelerometer``, ``gyroscope``, ``orientation`` or any other word), by name
            or by number from 0.
        units: Units of kinds of signals, if not m/s², rad/s or rad.
        rate: Sampling rate in Hz. Default: computed from the time column.
        time_column: Column of time stamps.
        time_unit: Unit of the time stamps; ``iso`` for dates such as ``2014-05-07 13:29:50.43``. Not used for columns of
            Parquet files whose type is a timestamp, date, time or duration.
        clock: ``shared`` if the time stamps come from a clock that all devices share; ``start`` if each file's time counts from
            its first row, because all devices started together.
        clock_offset: Seconds to add to the time stamps, for a clock that is ahead or behind.
        sort: Sort the rows of each file by time stamp. Otherwise, time stamps that go back mark a recording as bad.
        delimiter: Column separator; a blank means any white space. Like `header`, `record_end`, `decimal`, `encoding` and
            `comment`, for text files only.
        header: Whether the first line contains column names.
        record_end: Character at the end of each row, before the line break, such as ``;``.
        decimal: Decimal mark of numbers. With a comma, a number with a point counts as missing, since the point may separate
            thousands.
        encoding: Encoding of the text, such as ``latin-1``. UTF-16 with a byte order mark is recognised.
        comment: Start of lines that are not read, such as ``#``.
        missing_values: Treatment of rows in which a value of a signal is missing or not a number. ``error`` marks the recording
            as bad. ``drop`` drops the row. ``{interpolate: 0.5}`` fills gaps of at most 0.5 seconds, drops rows before the
            first value and after the last, and marks a recording with a longer gap as bad. A time stamp of 0 after later ones
            is missing.
        placement: Where the device is worn.

    Raises:
        ValueError: If neither rate nor time column is given, rows are sorted without a time column, the pattern is malformed,
            the delimiter is the decimal mark or not one character, the encoding is unknown, or an option of text files is given
            for Parquet files.
    """

    pattern: str
    columns: dict[str, tuple[Column, ...]]
    units: dict[str, Unit] = field(default_factory=dict)
    rate: float | None = None
    time_column: Column | None = None
    time_unit: TimeUnit | Literal["iso"] = "s"
    clock: Literal["shared", "start"] = "shared"
    clock_offset: float = 0.0
    sort: bool = False
    delimiter: str = ","
    header: bool = True
    record_end: str = ""
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    comment: str = ""
    missing_values: MissingValues = "error"
    placement: str = ""
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        PathPattern(self.pattern)
        try:
            given = self.layout.changed()
        except ValueError as error:
            raise ValueError(f"device with pattern {self.pattern!r}: {error}") from error
        if self.rate is None and self.time_column is None:
            raise ValueError(f"device with pattern {self.pattern!r}: give rate or time_column")
        if self.sort and self.time_column is None:
            raise ValueError(f"device with pattern {self.pattern!r}: sort requires a time_column")
        if self.rate is not None and self.rate <= 0:
            raise ValueError(f"device with pattern {self.pattern!r}: rate must be positive, not {self.rate}")
        if not self.columns or not all(self.columns.values()):
            raise ValueError(f"device with pattern {self.pattern!r}: name at least one column for each kind of signal")
        if is_parquet(self.pattern) and given:
            raise ValueError(f"device with pattern {self.pattern!r}: {', '.join(given)} is for text files, not for Parquet")
        if self.delimiter == self.decimal:
            raise ValueError(
                f"device with pattern {self.pattern!r}: the delimiter and the decimal mark are both {self.decimal!r}"
            )
        unknown = sorted(set(self.units) - set(self.columns))
        if unknown:
            raise ValueError(f"device with pattern {self.pattern!r}: units are given for {unknown}, which have no columns")

    @property
    def layout(self) -> TextLayout:
        """Format of the files."""
        return TextLayout(self.delimiter, self.header, self.record_end, self.decimal, self.encoding, self.comment)

    def modality(self, kind: str, name: str) -> Modality:
        """Return the modality called `name` for a `kind` of signal of this device."""
        channels = tuple(str(column) for column in self.columns[kind])
        known = _KNOWN.get(kind) or Modality(kind, ("time", "channel"), ("channel", "time"), units=self.units.get(kind, ""))
        if len(channels) == len(known.channels):
            channels = known.channels
        return known.renamed(name, rate=self.rate, channels=channels, placement=self.placement)


@dataclass(frozen=True)
class Label:
    """Source of labels: a column or a part of the path.

    Args:
        column: Column of labels. Each recording is cut where its label changes.
        path: Placeholder of the pattern.

    Raises:
        ValueError: If both or neither are given.
    """

    column: Column | None = None
    path: Literal["action", "trial", "scene", "session"] | None = None
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if (self.column is None) == (self.path is None):
            raise ValueError("label: give either column or path")
