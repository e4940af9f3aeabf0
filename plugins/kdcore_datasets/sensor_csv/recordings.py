"""Recordings of several devices, cut where labels change and put on one clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from kdcore import DataError, Signal
from kdcore_datasets.delimited import Column, read_gappy, read_numbers, read_texts
from kdcore_datasets.modalities import FACTORS, SECONDS
from kdcore_datasets.sensor_csv.options import Device


@dataclass(frozen=True)
class Stretch:
    """Some rows of a file.

    Args:
        path: The file.
        first: First row, counted from 0 after the header.
        last: Row after the last.
        origin: Time stamp, in seconds, from which the sample's clock counts.
    """

    path: Path
    first: int
    last: int
    origin: float


@dataclass(frozen=True)
class Run:
    """Rows of a recording that agree in label and key columns."""

    values: tuple[str, ...]
    first: int
    last: int


def runs(path: Path, device: Device, columns: Sequence[Column]) -> Iterator[Run]:
    """Contiguous rows of `path` over which `columns` do not change, in order."""
    texts = read_texts(path, columns, device.delimiter, device.header)
    changes = np.flatnonzero((texts[1:] != texts[:-1]).any(axis=1)) + 1
    edges = [0, *changes.tolist(), len(texts)]
    for first, last in pairwise(edges):
        yield Run(tuple(map(str, texts[first])), first, last)


def stamps(path: Path, device: Device) -> np.ndarray:
    """Time of every row in seconds, NaN where it is missing; counted from 0 for a device without a time column."""
    if device.time_column is None:
        first = next(iter(device.columns.values()))[0]
        return np.arange(len(read_gappy(path, first, device.delimiter, device.header))) / _given(device)
    return read_gappy(path, device.time_column, device.delimiter, device.header) * SECONDS[device.time_unit]


def fault(path: Path, device: Device, run: Run) -> tuple[str, str] | None:
    """The fault in the time of a run's rows, in short and in full; None if there is none."""
    times = stamps(path, device)[run.first : run.last]
    if not np.isfinite(times).all():
        assert device.time_column is not None
        try:
            read_numbers(path, [device.time_column], device.delimiter, device.header, slice(run.first, run.last))
        except DataError as error:
            return "unreadable time", str(error)
    if (np.diff(times) < 0).any():
        return "time runs backwards", f"{path}: time stamps go back in rows {run.first + 1} to {run.last}"
    return None


def stretches(files: Mapping[str, Path], devices: Mapping[str, Device], reference: str, run: Run) -> dict[str, Stretch]:
    """Each device's rows during a run of the `reference` device; those that recorded nothing then are absent."""
    times = stamps(files[reference], devices[reference])
    start, last = float(times[run.first]), float(times[run.last - 1])
    following = float(times[run.last]) if run.last < len(times) else np.nan
    end = following if following > last else last + 1e-9
    rows = {reference: (run.first, run.last)}
    for name, path in files.items():
        if name != reference:
            clock = stamps(path, devices[name])
            known = np.flatnonzero(np.isfinite(clock))
            first, after = np.searchsorted(_increasing(clock[known], path), (start, end)).tolist()
            rows[name] = (int(known[first]), int(known[after - 1]) + 1) if after > first else (0, 0)
    return {name: Stretch(files[name], first, last, start) for name, (first, last) in rows.items() if last - first >= 2}


def read_signal(stretch: Stretch, device: Device, kind: str) -> Signal:
    """One kind of signal of a stretch, on the sample's clock.

    Raises:
        DataError: If there are fewer than two rows, or time does not advance.
    """
    rows = slice(stretch.first, stretch.last)
    values = read_numbers(stretch.path, device.columns[kind], device.delimiter, device.header, rows)
    if len(values) < 2:
        raise DataError(f"{stretch.path}: has {len(values)} row(s), a signal needs at least two")
    values = (values * FACTORS[device.units[kind]] if kind in device.units else values).astype(np.float32)
    if device.time_column is None:
        return Signal(values, _given(device), stretch.first / _given(device) - stretch.origin)
    times = read_numbers(stretch.path, [device.time_column], device.delimiter, device.header, rows)[:, 0]
    times = _increasing(times * SECONDS[device.time_unit], stretch.path) - stretch.origin
    span = float(times[-1] - times[0])
    if span <= 0:
        raise DataError(f"{stretch.path}: time does not advance from row {stretch.first + 1} to row {stretch.last}")
    return Signal(values, device.rate or (len(times) - 1) / span, float(times[0]), times)


def _increasing(times: np.ndarray, path: Path) -> np.ndarray:
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        raise DataError(f"{path}: time stamps go back {len(back)} time(s), first after {times[back[0]]:.6f} s")
    return times


def _given(device: Device) -> float:
    if device.rate is None:
        raise ValueError("a device without a time column must have a rate")
    return device.rate
