"""Recordings of several devices, cut where labels change and aligned to one clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from kdcore import DataError, Signal
from kdcore_datasets.delimited import Column
from kdcore_datasets.modalities import FACTORS, SECONDS
from kdcore_datasets.sensor_csv.options import Device, Interpolate
from kdcore_datasets.sensor_csv.tables import read_gappy, read_instants, read_numbers, read_texts


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of a file.

    Args:
        path: File.
        first: First row, starting at 0 after the header.
        last: Row after the last.
        origin: Start of the sample's clock as a time stamp in seconds.
    """

    path: Path
    first: int
    last: int
    origin: float


@dataclass(frozen=True)
class Run:
    """Consecutive rows of a recording with equal labels and key columns."""

    values: tuple[str, ...]
    first: int
    last: int


def runs(path: Path, device: Device, columns: Sequence[Column]) -> Iterator[Run]:
    """Return contiguous rows of `path` in which `columns` do not change, in order."""
    texts = read_texts(path, columns, device.layout)
    texts = texts[_order(path, device)] if device.sort else texts
    changes = np.flatnonzero((texts[1:] != texts[:-1]).any(axis=1)) + 1
    edges = [0, *changes.tolist(), len(texts)]
    for first, last in pairwise(edges):
        yield Run(tuple(map(str, texts[first])), first, last)


def stamps(path: Path, device: Device) -> np.ndarray:
    """Return the time of each row in seconds on the common clock, NaN if missing, in the order in which rows are used.

    Devices without a time column start at 0.
    """
    times = _stamps(path, device)
    times = times[_order(path, device)] if device.sort else times
    if device.clock == "start" and np.isfinite(times).any():
        times = times - times[np.isfinite(times)][0]
    return times + device.clock_offset if device.clock_offset else times


def _order(path: Path, device: Device) -> np.ndarray:
    """Return the rows in order of time. Rows with equal time stamps keep their order; rows without one come last."""
    times = _stamps(path, device)
    times = times if device.missing_values == "error" else np.where(_fallen(times), np.nan, times)
    return np.argsort(times, kind="stable")


def _stamps(path: Path, device: Device) -> np.ndarray:
    """Return the time stamp of each row of the file in seconds."""
    if device.time_column is None:
        first = next(iter(device.columns.values()))[0]
        return np.arange(len(read_gappy(path, [first], device.layout))) / _given(device)
    if (instants := read_instants(path, device.time_column)) is not None:
        return instants
    if device.time_unit == "iso":
        return _seconds(read_texts(path, [device.time_column], device.layout)[:, 0])
    found = read_gappy(path, [device.time_column], device.layout)[:, 0]
    return found * SECONDS[device.time_unit]


def _seconds(texts: np.ndarray) -> np.ndarray:
    """Return dates and times as seconds since 1970, NaN if invalid. Without a time zone, UTC is assumed."""
    return np.array([_second(text) for text in texts.tolist()], dtype=np.float64)


def _second(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return np.nan
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def fault(path: Path, device: Device, run: Run) -> tuple[str, str] | None:
    """Return the problem with the time stamps of some rows, as a short and a long text, or None."""
    times = _of_rows(path, device, slice(run.first, run.last))
    known = np.isfinite(times)
    if not (known.all() if device.missing_values == "error" else known[0] and known[-1]):
        return "unreadable time", _unreadable_time(path, device, run.first + int((~known).argmax()))
    if (np.diff(times[known]) < 0).any():
        return (
            "time runs backwards",
            f"{path}: time stamps go back in rows {run.first + 1} to {run.last} (`sort: true` sorts rows)",
        )
    return None


def _of_rows(path: Path, device: Device, rows: slice) -> np.ndarray:
    """Return the times of some rows. If values may be missing, a time stamp of 0 after later ones becomes NaN."""
    times = stamps(path, device)[rows]
    if device.missing_values == "error":
        return times
    written = _stamps(path, device)
    return np.where(_fallen(written[_order(path, device)[rows] if device.sort else rows]), np.nan, times)


def _fallen(times: np.ndarray) -> np.ndarray:
    """Return which time stamps are 0 after later ones."""
    return (times == 0) & (np.fmax.accumulate(times) > 0)


def _unreadable_time(path: Path, device: Device, row: int) -> str:
    assert device.time_column is not None
    row = int(_order(path, device)[row]) if device.sort else row
    if read_instants(path, device.time_column) is not None:
        return f"{path}: row {row + 1}: column {device.time_column!r} is missing"
    if device.time_unit != "iso":
        try:
            rows = slice(row, row + 1)
            read_numbers(path, [device.time_column], device.layout, rows)
        except DataError as error:
            return str(error)
    return f"{path}: row {row + 1}: column {device.time_column!r} is not a {'date' if device.time_unit == 'iso' else 'number'}"


def stretches(files: Mapping[str, Path], devices: Mapping[str, Device], reference: str, run: Run) -> dict[str, Stretch]:
    """Return the rows of each device during a run of the `reference` device. Devices without rows are omitted."""
    times = stamps(files[reference], devices[reference])
    start, last = float(times[run.first]), float(times[run.last - 1])
    following = float(times[run.last]) if run.last < len(times) else np.nan
    end = following if following > last else last + 1e-9
    rows = {reference: (run.first, run.last)}
    for name, path in files.items():
        if path == files[reference]:
            rows[name] = (run.first, run.last)
        elif name != reference:
            clock = stamps(path, devices[name])
            known = np.flatnonzero(np.isfinite(clock))
            first, after = np.searchsorted(_increasing(clock[known], path), (start, end)).tolist()
            rows[name] = (int(known[first]), int(known[after - 1]) + 1) if after > first else (0, 0)
    return {name: Stretch(files[name], first, last, start) for name, (first, last) in rows.items() if last - first >= 2}


def read_signal(stretch: Stretch, device: Device, kind: str) -> Signal:
    """Read one kind of signal of a stretch, on the sample's clock.

    Raises:
        DataError: If there are fewer than two rows, or time does not increase.
    """
    values, times, _ = _rows(stretch, device, kind)
    if len(values) < 2:
        raise DataError(f"{stretch.path}: has {len(values)} row(s), but a signal needs at least two")
    values = (values * FACTORS[device.units[kind]] if kind in device.units else values).astype(np.float32)
    if device.time_column is None:
        complete = len(values) == stretch.last - stretch.first
        clock = times - stretch.origin
        return Signal(values, _given(device), float(clock[0]), None if complete else clock)
    times = _increasing(times, stretch.path) - stretch.origin
    span = float(times[-1] - times[0])
    if span <= 0:
        raise DataError(f"{stretch.path}: time does not advance from row {stretch.first + 1} to row {stretch.last}")
    return Signal(values, device.rate or (len(times) - 1) / span, float(times[0]), times)


@dataclass(frozen=True)
class Gaps:
    """Number of rows of a stretch with missing values that are interpolated or dropped."""

    filled: int = 0
    dropped: int = 0


def gaps(stretch: Stretch, device: Device, kind: str) -> Gaps:
    """Count the rows that `read_signal` interpolates or drops; none if it raises an error."""
    try:
        return _rows(stretch, device, kind)[2]
    except DataError:
        return Gaps()


def _rows(stretch: Stretch, device: Device, kind: str) -> tuple[np.ndarray, np.ndarray, Gaps]:
    """Return values and times in seconds of a stretch's complete rows, and the number of incomplete rows."""
    rows = slice(stretch.first, stretch.last)
    times = _of_rows(stretch.path, device, rows)
    if device.missing_values == "error":
        values = _numbers(stretch.path, device, kind, rows)
        if not np.isfinite(times).all():
            raise DataError(_unreadable_time(stretch.path, device, stretch.first + int((~np.isfinite(times)).argmax())))
        return values, times, Gaps()
    values = read_gappy(stretch.path, device.columns[kind], device.layout)
    values = values[_order(stretch.path, device)[rows] if device.sort else rows]
    timed = np.isfinite(times)
    values, times, lost = values[timed], times[timed], int((~timed).sum())
    known = np.asarray(np.isfinite(values).all(axis=1))
    if not isinstance(device.missing_values, Interpolate):
        return values[known], times[known], Gaps(0, lost + int((~known).sum()))
    if not known.any():
        raise DataError(f"{stretch.path}: no row of {kind} from row {stretch.first + 1} to {stretch.last} has all values")
    values, known, times, edges = _trimmed(values, known, times)
    return (
        _filled(values, times, device.missing_values.interpolate, stretch, kind),
        times,
        Gaps(int((~known).sum()), lost + edges),
    )


def _numbers(path: Path, device: Device, kind: str, rows: slice) -> np.ndarray:
    """Return a signal in some rows.

    Raises:
        DataError: If a value in these rows is not a number.
    """
    columns = device.columns[kind]
    if not device.sort:
        return read_numbers(path, columns, device.layout, rows)
    chosen = _order(path, device)[rows]
    values = read_gappy(path, columns, device.layout)[chosen]
    for row in chosen[~np.isfinite(values).all(axis=1)].tolist():
        read_numbers(path, columns, device.layout, slice(row, row + 1))  # raises an error that names the line
    return values


def _trimmed(values: np.ndarray, known: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Drop the rows before the first complete one and after the last, and return their number."""
    first, last = int(known.argmax()), len(known) - int(known[::-1].argmax())
    return values[first:last], known[first:last], times[first:last], len(known) - (last - first)


def _filled(values: np.ndarray, times: np.ndarray, longest: float, stretch: Stretch, kind: str) -> np.ndarray:
    """Interpolate each column of `values` over time. The first and the last row must be complete.

    Raises:
        DataError: If a gap is longer than `longest` seconds.
    """
    _increasing(times, stretch.path)
    filled = values.copy()
    for column in range(values.shape[1]):
        present = np.isfinite(values[:, column])
        spans = np.diff(times[present])
        interrupted = np.diff(np.flatnonzero(present)) > 1
        if (spans[interrupted] > longest + 1e-6).any():  # the precision of time stamps
            worst = float(spans[interrupted].max())
            raise DataError(f"{stretch.path}: {kind} is missing for {worst:.3g} s, more than the {longest:g} s to interpolate")
        filled[~present, column] = np.interp(times[~present], times[present], values[present, column])
    return filled


def _increasing(times: np.ndarray, path: Path) -> np.ndarray:
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        what = f"time stamps go back {len(back)} time(s), first after {times[back[0]]:.6f} s"
        raise DataError(f"{path}: {what}; to sort the rows by time, set `sort: true`")
    return times


def _given(device: Device) -> float:
    if device.rate is None:
        raise ValueError("a device without a time column must have a rate")
    return device.rate
