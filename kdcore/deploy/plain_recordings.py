"""Recordings that belong to no dataset: arrays, tables of numbers and standard input.

What a column holds is decided by its name, its unit and the number of columns. Anything ambiguous is refused, since a wrong
column or unit gives a confident wrong class.
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
"""Endings of tables of numbers."""

TIME_NAMES = ("time", "timestamp", "times", "t")
STEADY = 8
"""Rows from which on a first column that rises by equal steps is taken for a clock."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are a modality's channels.

    Args:
        numbers: Of the columns, in the order of the channels.
        factors: To the modality's unit, one per channel.
        time: Number of the column with time stamps, if any.
        unused: Names of the other columns.
    """

    numbers: tuple[int, ...]
    factors: tuple[float, ...]
    time: int | None = None
    unused: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[int]:
        """Numbers of the columns to read: the channels, and the time last, if there is one."""
        return [*self.numbers, *([] if self.time is None else [self.time])]


def plain_array(path: Path, modality: Modality, rate: float, units: str = "", channels: int = 0, decimal: str = ".") -> Signal:
    """A ``.npy`` file or a table of numbers as a signal.

    Args:
        path: File; a row per sample.
        modality: What it is a recording of.
        rate: Samples per second.
        units: Of the values, where the columns' names do not give them; the modality's by default.
        channels: How many channels a recording has, where `modality` does not name them.
        decimal: Decimal mark of a table of text.

    Raises:
        DataError: If it cannot be read or does not fit the modality.
    """
    try:
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
        raise DataError(f"{path}: claims to hold more than fits into the memory") from error
    except (OSError, ValueError, TypeError, EOFError) as error:
        why = "it is not in NumPy's format, or holds Python objects" if "pickle" in str(error) else error
        raise DataError(f"{path}: not a readable array of numbers: {why}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_table(text: str, modality: Modality, rate: float, units: str = "", channels: int = 0, decimal: str = ".") -> Signal:
    """A table of numbers, with or without a line of names, as a signal.

    Raises:
        DataError: If its columns are not those of the modality, or a cell is not a number.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter, names = header_of(first, decimal)
    columns = choose_columns(names, len(names) or len(cells_of(first, delimiter)), modality, units, channels)
    found = read_cells(text, columns.wanted, delimiter, names, decimal)
    note_unused(columns)
    return _signal(found, columns, names, modality, rate)


def _from_parquet(path: Path, modality: Modality, rate: float, units: str, channels: int) -> Signal:
    names = parquet_names(path)
    columns = choose_columns(names, len(names), modality, units, channels)
    found = read_parquet(path, [names[number] for number in columns.wanted])
    note_unused(columns)
    return _signal(found, columns, names, modality, rate)


def from_columns(
    names: Sequence[str], values: np.ndarray, modality: Modality, rate: float, units: str = "", channels: int = 0
) -> Signal:
    """Named columns (T, columns), such as those of a data frame, as a signal.

    Raises:
        DataError: If they are not those of the modality.
    """
    columns = choose_columns(tuple(map(str, names)), len(names), modality, units, channels)
    note_unused(columns)
    return _signal(np.asarray(values)[:, columns.wanted].astype(np.float64), columns, tuple(names), modality, rate)


def _signal(found: np.ndarray, columns: Columns, names: Sequence[str], modality: Modality, rate: float) -> Signal:
    count = len(columns.numbers)
    if columns.time is not None:
        check_clock(found[:, count], str(names[columns.time]), rate)
    elif not names:
        refuse_clock(found)
    values = _scaled(found[:, :count], np.array(columns.factors))
    warn_of_g(values, modality)
    return Signal(values, rate)


def _scaled(values: np.ndarray, factors: np.ndarray | float) -> np.ndarray:
    if values.dtype.kind not in "fiub":
        return values  # refused with the reason where it is compared with what the student reads
    whole = np.all(np.asarray(factors) == 1)
    return values if whole and values.dtype != np.float64 else (values * factors).astype(np.float32)


def choose_columns(names: Sequence[str], width: int, modality: Modality, units: str = "", channels: int = 0) -> Columns:
    """The columns that are channels of `modality`.

    A column is channel ``x`` of an accelerometer if it is called ``x``, ``acc_x``, ``ax``, ``x [g]`` or
    ``accelerometer-x (m/s^2)``: the channel's name, alone or with the beginning of the modality's name or placement.

    Args:
        names: Of the columns; empty if the table has none.
        width: Number of columns.
        modality: What is recorded.
        units: Of values whose columns do not say theirs; the modality's by default.
        channels: How many channels there are, where `modality` does not name them.

    Raises:
        DataError: If they do not fit, or more than one choice is possible.
    """
    if set(modality.axes) != {"time", "channel"}:
        raise DataError(f"{modality.name} has axes {', '.join(modality.axes)}, which no table of columns can hold")
    wanted = len(modality.channels) or channels
    if not names:
        if wanted and width != wanted:
            named = f" ({', '.join(modality.channels)})" if modality.channels else ""
            raise DataError(
                f"the table has {width} columns and no names, but {modality.name} has {wanted} channels{named}; "
                "name the columns in its first line"
            )
        return Columns(tuple(range(width)), (factor_of(units, modality),) * width)
    bare = [_without_unit(name) for name in names]
    time = next((number for number, (name, _) in enumerate(bare) if _is_time(name)), None)
    if modality.channels:
        numbers = [_column_of(channel, names, bare, modality) for channel in modality.channels]
    else:
        numbers = [number for number in range(len(names)) if number != time]
        if channels and len(numbers) != channels:
            raise DataError(f"the table has {len(numbers)} columns of values ({', '.join(names)}), not {channels}")
    factors = tuple(_factor(bare[number][1], names[number], units, modality) for number in numbers)
    unused = tuple(names[number] for number in range(len(names)) if number not in (*numbers, time))
    return Columns(tuple(numbers), factors, time if time not in numbers else None, unused)


def note_unused(columns: Columns) -> None:
    """Warn about columns that are left out."""
    if columns.unused:
        warn(f"columns not used: {', '.join(columns.unused)}")


def warn_of_g(values: np.ndarray, modality: Modality) -> None:
    """Warn about accelerations that look as if they were in g and are read as m/s²."""
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not len(values):
        return  # refused with the reason where it is compared with what the student reads
    size = float(np.median(np.linalg.norm(values.astype(np.float64), axis=1)))
    if looks_like_g(modality, size):
        warn(
            f"{modality.name}: the vectors are about {size:.2g} long, as in g, and are read as {modality.units}; "
            "if they are in g, pass --units g or name the columns 'x [g]', 'y [g]', 'z [g]'",
            kind=f"{modality.name} in g",
        )


def _column_of(channel: str, names: Sequence[str], bare: Sequence[tuple[str, str]], modality: Modality) -> int:
    words = {part for text in (modality.name, modality.placement) for part in re.split(r"[^a-z0-9]+", text.lower()) if part}
    found = [number for number, (name, _) in enumerate(bare) if _is_channel(name, channel, words)]
    if not found:
        raise DataError(
            f"no column for channel {channel!r} of {modality.name} (columns: {', '.join(names)}); "
            f"name them {', '.join(modality.channels)} or {', '.join(f'{modality.name}_{each}' for each in modality.channels)}"
        )
    if len(found) > 1:
        several = " and ".join(repr(names[number]) for number in found)
        raise DataError(f"columns {several} could each be channel {channel!r} of {modality.name}")
    return found[0]


def _is_channel(name: str, channel: str, words: set[str]) -> bool:
    if name.lower() == channel.lower():
        return True
    tokens = [each.lower() for each in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+", name)]
    if len(tokens) == 1 and tokens[0].endswith(channel.lower()) and len(channel) == 1:
        tokens = [tokens[0].removesuffix(channel.lower()), channel.lower()]
    last = channel.lower()
    rest = tokens[:-1] if tokens[-1:] == [last] else tokens[1:] if tokens[:1] == [last] else []
    return bool(rest) and all(any(_short_for(token, word) for word in words) for token in rest)


def _short_for(token: str, word: str) -> bool:
    """True for ``acc`` and ``acceleration``, if the word is ``accelerometer``."""
    return bool(token) and (word.startswith(token) or (len(token) >= 5 and word[:5] == token[:5]))


def _without_unit(name: str) -> tuple[str, str]:
    """``x [g]`` as ``x`` and ``g``."""
    found = re.fullmatch(r"(.*?)\s*[\[(]\s*([^\])]*?)\s*[\])]", name.strip())
    return (found[1], found[2]) if found and found[1] else (name.strip(), "")


def _is_time(name: str) -> bool:
    return re.split(r"[^a-z]+", name.lower())[0] in TIME_NAMES


def factor_of(units: str, modality: Modality) -> float:
    """Factor from `units` to those of the modality.

    Raises:
        DataError: If they are of another kind.
    """
    try:
        return conversion(units, modality.units) if units else 1.0
    except ValueError as error:
        raise DataError(f"{modality.name} is in {modality.units}: {error}") from error


def _factor(said: str, name: str, units: str, modality: Modality) -> float:
    if said and units and factor_of(said, modality) != factor_of(units, modality):
        raise DataError(f"column {name!r} says {said!r}, but the units asked for are {units!r}")
    return factor_of(said or units, modality)


def check_clock(times: np.ndarray, name: str, rate: float) -> None:
    """Refuse a column of time stamps that contradicts the rate.

    Raises:
        DataError: If its median step is not ``1 / rate``, in any unit of time that the name allows.
    """
    if len(times) < 2:
        return
    unit = _without_unit(name)[1] or re.split(r"[^a-zµ]+", name.lower())[-1]
    scales = [SECONDS[unit]] if unit in SECONDS else sorted(set(SECONDS.values()))
    steps = np.diff(times)
    if (steps < 0).any() and not (steps <= 0).all():
        raise DataError(f"column {name!r} goes back at row {int((steps < 0).argmax()) + 2}; sort the rows by time")
    step = float(np.median(steps))
    if not any(same_rate(step * scale * rate, 1.0) for scale in scales):
        raise DataError(f"column {name!r} rises by {step:g} a row, which is not {rate:g} samples per second")


def refuse_clock(values: np.ndarray) -> None:
    """Refuse a table without names whose first column looks like time stamps.

    Raises:
        DataError: If it rises by equal steps.
    """
    steps = np.diff(values[:, 0])
    if len(values) >= STEADY and steps.min() > 0 and np.ptp(steps) < 0.01 * steps.mean():
        raise DataError("the first of its columns without names looks like time stamps; name the columns in its first line")


def as_signal(values: Any, modality: Modality, rate: float | None, channels: int = 0) -> Signal:
    """An array, tensor, data frame or (array, rate) pair in memory as a signal.

    Args:
        values: Axes as the modality has them, time first. Columns of a data frame are chosen by name.
        modality: What it is a recording of.
        rate: Samples per second; the modality's by default.
        channels: As in `choose_columns`.

    Raises:
        DataError: If the rate is unknown, or `values` is none of these.
    """
    if isinstance(values, tuple):
        if len(values) != 2 or not isinstance(values[1], int | float):
            raise DataError(f"{modality.name}: a tuple is an (array, rate) pair; a batch of recordings is a list")
        values, own = values
        if rate and rate != own:
            raise DataError(f"{modality.name}: the recording says {own:g} samples per second, rate= says {rate:g}")
        rate = own
    if isinstance(values, Signal):
        if rate and abs(values.rate - rate) > 1e-6 * rate:
            raise DataError(f"{modality.name}: the signal says {values.rate:g} samples per second, rate= says {rate:g}")
        return values
    rate = known_rate(rate, modality)
    if is_table(values):
        names = [str(name) for name in values.columns]
        if not any(map(_is_time, names)) and goes_back(getattr(values, "index", None)):
            raise DataError(
                f"{modality.name}: the table has no column of times, and its index goes back; sort the rows by time, then call "
                "reset_index"
            )
        return from_columns(names, _with_seconds(values, modality).to_numpy(), modality, rate, "", channels)
    if not hasattr(values, "__array__"):
        raise DataError(f"{modality.name}: a recording must be a path, an array or a Signal, not {type(values).__name__}")
    array = as_numpy(values)
    warn_of_g(array, modality)
    return Signal(array, rate)


def _with_seconds(table: Any, modality: Modality) -> Any:
    """A data frame whose dates and durations are seconds."""
    dated = [place for place, kind in enumerate(table.dtypes) if getattr(kind, "kind", "O") in "Mm"]
    table = table.copy() if dated else table
    for place in dated:
        table.isetitem(place, instants(modality.name, table.iloc[:, place], str(table.columns[place])))
    return table


def known_rate(rate: float | None, modality: Modality, option: str = "rate=") -> float:
    """Samples per second: `rate`, else the modality's.

    Raises:
        DataError: If neither is known, or it is not above zero.
    """
    chosen = rate if rate is not None else modality.rate
    if chosen is None:
        raise DataError(f"{modality.name} has no rate of its own: give the samples per second with {option}")
    if not (np.isfinite(chosen) and chosen > 0):
        raise DataError(f"{modality.name}: the rate must be greater than 0 samples per second, not {chosen:g}")
    return float(chosen)


def rate_for(rate: float | Mapping[str, float] | None, name: str) -> float | None:
    """The rate of one modality, where `rate` is for all or by name."""
    return rate.get(name) if isinstance(rate, Mapping) else rate
