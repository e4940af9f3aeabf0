"""Conversion of plain recordings to signals: arrays, tables of numbers and standard input.

Columns are assigned to channels by name, unit and number of columns. Ambiguous tables are rejected, since a wrong column or
unit would lead to wrong predictions with high confidence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.units import SECONDS, conversion, same_rate
from kdcore.data.arrays import as_numpy
from kdcore.data.sample_tables import goes_back, instants, is_table
from kdcore.data.signal_checks import looks_like_g
from kdcore.deploy.plain_tables import PARQUET, cells_of, header_of, parquet_names, read_cells, read_parquet
from kdcore.errors import DataError
from kdcore.user_warnings import warn

SUFFIXES = (".csv", ".txt", ".tsv", PARQUET)
"""File name suffixes of tables of numbers."""

TIME_NAMES = ("time", "timestamp", "times", "t")
STEADY = 8
"""Minimum number of rows for an unnamed first column with equal steps to count as time stamps."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that contain the channels of a modality.

    Args:
        numbers: Column indices in the order of the channels.
        factors: Factor to the unit of the modality for each channel.
        time: Index of the column with time stamps, if any.
        unused: Names of the other columns.
    """

    numbers: tuple[int, ...]
    factors: tuple[float, ...]
    time: int | None = None
    unused: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[int]:
        """Indices of the columns to read: the channels, then the time if there is one."""
        return [*self.numbers, *([] if self.time is None else [self.time])]


def plain_array(path: Path, modality: Modality, rate: float, units: str = "", channels: int = 0, decimal: str = ".") -> Signal:
    """Read a ``.npy`` file or a table of numbers as a signal.

    Args:
        path: File with one row per sample.
        modality: Modality of the recording.
        rate: Sampling rate in Hz.
        units: Unit of columns whose names do not contain one. Default: the unit of the modality.
        channels: Number of channels, if `modality` does not name them.
        decimal: Decimal mark of a text table.

    Raises:
        DataError: If the file cannot be read or does not match the modality.
    """
    try:
        if decimal != "." and path.suffix in (".npy", PARQUET):
            raise DataError("--decimal requires a text table; this file contains numbers")
        if path.suffix == PARQUET:
            return _from_parquet(path, modality, rate, units, channels)
        if path.suffix != ".npy":
            return read_table(path.read_text(encoding="utf-8-sig", errors="replace"), modality, rate, units, channels, decimal)
        values = np.load(path, allow_pickle=False)
        if values.dtype.names:
            table = np.stack([values[name].astype(np.float64) for name in values.dtype.names], axis=1)
            return from_columns(values.dtype.names, table, modality, rate, units, channels)
        values = _scaled(values, factor_of(units, modality))
        warn_of_g(values, modality)
        return Signal(values, rate)
    except MemoryError as error:
        raise DataError(f"{path}: claims to contain more data than fits into memory") from error
    except (OSError, ValueError, TypeError, EOFError) as error:
        reason = "it is not in NumPy format, or contains Python objects" if "pickle" in str(error) else error
        raise DataError(f"{path}: not a readable array of numbers: {reason}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_table(text: str, modality: Modality, rate: float, units: str = "", channels: int = 0, decimal: str = ".") -> Signal:
    """Parse a table of numbers, with or without a header line, as a signal.

    Raises:
        DataError: If its columns do not match the modality, or a cell is not a number.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter, names = header_of(first, decimal)
    columns = choose_columns(names, len(names) or len(cells_of(first, delimiter)), modality, units, channels)
    values = read_cells(text, columns.wanted, delimiter, names, decimal)
    note_unused(columns)
    return _signal(values, columns, names, modality, rate)


def _from_parquet(path: Path, modality: Modality, rate: float, units: str, channels: int) -> Signal:
    names = parquet_names(path)
    columns = choose_columns(names, len(names), modality, units, channels)
    values = read_parquet(path, [names[number] for number in columns.wanted])
    note_unused(columns)
    return _signal(values, columns, names, modality, rate)


def from_columns(
    names: Sequence[str], values: np.ndarray, modality: Modality, rate: float, units: str = "", channels: int = 0
) -> Signal:
    """Convert named columns (T, columns), such as those of a data frame, to a signal.

    Raises:
        DataError: If the columns do not match the modality.
    """
    columns = choose_columns(tuple(map(str, names)), len(names), modality, units, channels)
    note_unused(columns)
    return _signal(np.asarray(values)[:, columns.wanted].astype(np.float64), columns, tuple(names), modality, rate)


def _signal(table: np.ndarray, columns: Columns, names: Sequence[str], modality: Modality, rate: float) -> Signal:
    count = len(columns.numbers)
    if columns.time is not None:
        check_clock(table[:, count], str(names[columns.time]), rate)
    elif not names:
        refuse_clock(table)
    values = _scaled(table[:, :count], np.array(columns.factors))
    warn_of_g(values, modality)
    return Signal(values, rate)


def _scaled(values: np.ndarray, factors: np.ndarray | float) -> np.ndarray:
    if values.dtype.kind not in "fiub":
        return values  # rejected with a reason when compared with the student's input
    unscaled = np.all(np.asarray(factors) == 1)
    return values if unscaled and values.dtype != np.float64 else (values * factors).astype(np.float32)


def choose_columns(names: Sequence[str], width: int, modality: Modality, units: str = "", channels: int = 0) -> Columns:
    """Select the columns that contain the channels of `modality`.

    A column is channel ``x`` of an accelerometer if it is called ``x``, ``acc_x``, ``ax``, ``x [g]`` or
    ``accelerometer-x (m/s^2)``: the channel's name, alone or with the beginning of the modality's name or placement.

    Args:
        names: Column names; empty if the table has none.
        width: Number of columns.
        modality: Modality of the recording.
        units: Unit of columns whose names do not contain one. Default: the unit of the modality.
        channels: Number of channels, if `modality` does not name them.

    Raises:
        DataError: If the columns do not match the modality, or the choice is ambiguous.
    """
    if set(modality.axes) != {"time", "channel"}:
        raise DataError(f"{modality.name} has axes {', '.join(modality.axes)}, which a table cannot represent")
    expected = len(modality.channels) or channels
    if not names:
        if expected and width != expected:
            named = f" ({', '.join(modality.channels)})" if modality.channels else ""
            raise DataError(
                f"the table has {width} columns without names, but {modality.name} has {expected} channels{named}; "
                "name the columns in the first line"
            )
        return Columns(tuple(range(width)), (factor_of(units, modality),) * width)
    parsed = [_split_unit(name) for name in names]
    time = next((number for number, (name, _) in enumerate(parsed) if _is_time(name)), None)
    if modality.channels:
        numbers = [_column_of(channel, names, parsed, modality) for channel in modality.channels]
    else:
        numbers = [number for number in range(len(names)) if number != time]
        if channels and len(numbers) != channels:
            raise DataError(f"the table has {len(numbers)} columns of values ({', '.join(names)}), not {channels}")
    factors = tuple(_factor(parsed[number][1], names[number], units, modality) for number in numbers)
    unused = tuple(names[number] for number in range(len(names)) if number not in (*numbers, time))
    return Columns(tuple(numbers), factors, time if time not in numbers else None, unused)


def note_unused(columns: Columns) -> None:
    """Warn about columns that are not used."""
    if columns.unused:
        warn(f"columns not used: {', '.join(columns.unused)}")


def warn_of_g(values: np.ndarray, modality: Modality) -> None:
    """Warn about accelerations that appear to be in g but are read as m/s²."""
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not len(values):
        return  # rejected with a reason when compared with the student's input
    size = float(np.median(np.linalg.norm(values.astype(np.float64), axis=1)))
    if looks_like_g(modality, size):
        warn(
            f"{modality.name}: the vectors have a length of about {size:.2g}, as if in g, but are read as {modality.units}; "
            "if they are in g, pass --units g or name the columns 'x [g]', 'y [g]', 'z [g]'",
            kind=f"{modality.name} in g",
        )


def _column_of(channel: str, names: Sequence[str], parsed: Sequence[tuple[str, str]], modality: Modality) -> int:
    words = {part for text in (modality.name, modality.placement) for part in re.split(r"[^a-z0-9]+", text.lower()) if part}
    matches = [number for number, (name, _) in enumerate(parsed) if _is_channel(name, channel, words)]
    if not matches:
        raise DataError(
            f"no column for channel {channel!r} of {modality.name} (columns: {', '.join(names)}); "
            f"name them {', '.join(modality.channels)} or {', '.join(f'{modality.name}_{each}' for each in modality.channels)}"
        )
    if len(matches) > 1:
        several = " and ".join(repr(names[number]) for number in matches)
        raise DataError(f"columns {several} could each be channel {channel!r} of {modality.name}")
    return matches[0]


def _is_channel(name: str, channel: str, words: set[str]) -> bool:
    if name.lower() == channel.lower():
        return True
    tokens = [each.lower() for each in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+", name)]
    if len(tokens) == 1 and tokens[0].endswith(channel.lower()) and len(channel) == 1:
        tokens = [tokens[0].removesuffix(channel.lower()), channel.lower()]
    last = channel.lower()
    rest = tokens[:-1] if tokens[-1:] == [last] else tokens[1:] if tokens[:1] == [last] else []
    return bool(rest) and all(any(_abbreviates(token, word) for word in words) for token in rest)


def _abbreviates(token: str, word: str) -> bool:
    """Return whether `token` abbreviates `word`, as ``acc`` and ``acceleration`` do for ``accelerometer``."""
    return bool(token) and (word.startswith(token) or (len(token) >= 5 and word[:5] == token[:5]))


def _split_unit(name: str) -> tuple[str, str]:
    """Split ``x [g]`` into ``x`` and ``g``."""
    match = re.fullmatch(r"(.*?)\s*[\[(]\s*([^\])]*?)\s*[\])]", name.strip())
    return (match[1], match[2]) if match and match[1] else (name.strip(), "")


def _is_time(name: str) -> bool:
    return re.split(r"[^a-z]+", name.lower())[0] in TIME_NAMES


def factor_of(units: str, modality: Modality) -> float:
    """Return the factor from `units` to the unit of the modality.

    Raises:
        DataError: If the units are not convertible.
    """
    try:
        return conversion(units, modality.units) if units else 1.0
    except ValueError as error:
        raise DataError(f"{modality.name} is in {modality.units}: {error}") from error


def _factor(own: str, name: str, units: str, modality: Modality) -> float:
    if own and units and factor_of(own, modality) != factor_of(units, modality):
        raise DataError(f"column {name!r} is in {own!r}, but the given units are {units!r}")
    return factor_of(own or units, modality)


def check_clock(times: np.ndarray, name: str, rate: float) -> None:
    """Check that a column of time stamps is consistent with the rate.

    Raises:
        DataError: If its median step is not ``1 / rate`` in any unit of time that the column name allows.
    """
    if len(times) < 2:
        return
    unit = _split_unit(name)[1] or re.split(r"[^a-zµ]+", name.lower())[-1]
    scales = [SECONDS[unit]] if unit in SECONDS else sorted(set(SECONDS.values()))
    steps = np.diff(times)
    if (steps < 0).any() and not (steps <= 0).all():
        raise DataError(f"column {name!r} decreases at row {int((steps < 0).argmax()) + 2}; sort the rows by time")
    step = float(np.median(steps))
    if not any(same_rate(step * scale * rate, 1.0) for scale in scales):
        raise DataError(f"column {name!r} increases by {step:g} per row, which does not match {rate:g} samples per second")


def refuse_clock(values: np.ndarray) -> None:
    """Check that the first column of a table without names does not look like time stamps.

    Raises:
        DataError: If it increases in equal steps.
    """
    steps = np.diff(values[:, 0])
    if len(values) >= STEADY and steps.min() > 0 and np.ptp(steps) < 0.01 * steps.mean():
        raise DataError("the first column looks like time stamps, but has no name; name the columns in the first line")


def as_signal(values: Any, modality: Modality, rate: float | None, channels: int = 0) -> Signal:
    """Convert an array, tensor, data frame, `Signal` or (array, rate) pair to a signal.

    Args:
        values: Recording with the axes of the modality, time first. Columns of a data frame are selected by name.
        modality: Modality of the recording.
        rate: Sampling rate in Hz. Default: the rate of the modality.
        channels: Number of channels, if `modality` does not name them.

    Raises:
        DataError: If the rate is unknown, or `values` has another type.
    """
    if rate is not None:
        known_rate(rate, modality)
    if isinstance(values, tuple):
        if len(values) != 2 or not isinstance(values[1], int | float):
            raise DataError(f"{modality.name}: a tuple is an (array, rate) pair; a batch of recordings is a list")
        values, own = values
        if rate and rate != own:
            raise DataError(f"{modality.name}: the recording has {own:g} samples per second, but rate={rate:g}")
        rate = own
    if isinstance(values, Signal):
        if rate and abs(values.rate - rate) > 1e-6 * rate:
            raise DataError(f"{modality.name}: the signal has {values.rate:g} samples per second, but rate={rate:g}")
        return values
    rate = known_rate(rate, modality)
    if is_table(values):
        names = [str(name) for name in values.columns]
        if not any(map(_is_time, names)) and goes_back(getattr(values, "index", None)):
            raise DataError(
                f"{modality.name}: the table has no time column, and its index is not sorted; sort the rows by time, then "
                "call reset_index"
            )
        return from_columns(names, _with_seconds(values, modality).to_numpy(), modality, rate, "", channels)
    if not hasattr(values, "__array__"):
        raise DataError(f"{modality.name}: a recording must be a path, an array or a Signal, not {type(values).__name__}")
    array = as_numpy(values)
    warn_of_g(array, modality)
    return Signal(array, rate)


def _with_seconds(table: Any, modality: Modality) -> Any:
    """Return a data frame with dates and durations converted to seconds."""
    dates = [index for index, kind in enumerate(table.dtypes) if getattr(kind, "kind", "O") in "Mm"]
    table = table.copy() if dates else table
    for index in dates:
        table.isetitem(index, instants(modality.name, table.iloc[:, index], str(table.columns[index])))
    return table


def known_rate(rate: float | None, modality: Modality, option: str = "rate=") -> float:
    """Return `rate`, or else the rate of the modality, in Hz.

    Raises:
        DataError: If neither is known, or the rate is not greater than 0.
    """
    chosen = rate if rate is not None else modality.rate
    if chosen is None:
        raise DataError(f"{modality.name} has no default rate: give the samples per second with {option}")
    if not (np.isfinite(chosen) and chosen > 0):
        raise DataError(f"{modality.name}: the rate must be greater than 0 samples per second, not {chosen:g}")
    return float(chosen)


def rate_for(rate: float | Mapping[str, float] | None, name: str) -> float | None:
    """Return the rate of one modality, given one rate for all or rates by name."""
    return rate.get(name) if isinstance(rate, Mapping) else rate
