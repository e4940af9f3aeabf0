"""Windows of equal length within recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kdcore.contracts.modality import Signal
from kdcore.contracts.units import misread_time
from kdcore.errors import DataError

MOST_WINDOWS = 100_000
"""Maximum number of windows of one recording; more are probably a mistake in the recipe."""

ROUNDING = 0.1
"""Part of a sampling interval by which rounded time stamps may shorten a recording."""

Span = tuple[float, float]
"""Start and end in seconds, on the clock that a sample's modalities share."""


class WindowError(DataError):
    """Raised for windows into which no recording can be cut: an error of the recipe, not of a sample."""


@dataclass(frozen=True)
class Cutting:
    """Options of windows: equal lengths, cut from the time that all of a sample's modalities cover.

    Args:
        length: Length of a window in seconds.
        hop: Seconds between the starts of consecutive windows.
        modalities: Modalities that must cover a window.
    """

    length: float
    hop: float
    modalities: tuple[str, ...]


def windows(signals: Sequence[Signal], length: float, hop: float) -> list[Span]:
    """Return start and end in seconds of every window within the time that all `signals` cover.

    The last window may end `ROUNDING` of a sampling interval after a signal with time stamps. Windows in which a signal has
    no samples, such as those in a gap, are left out.

    Raises:
        ValueError: If a signal is empty.
        WindowError: If a window is shorter than a sample, or there are more than `MOST_WINDOWS`.
    """
    if not all(map(len, signals)):
        raise ValueError("a recording is empty")
    slowest = min(signals, key=lambda signal: signal.rate)
    if length * slowest.rate < 1:
        rate = f"{slowest.rate:.4g} Hz{misread_time(slowest.rate)}"
        raise WindowError(f"data.window.length is {length:g} s, shorter than one sample of a signal at {rate}")
    start = max(float(signal.clock[0]) for signal in signals)
    stop = min(float(signal.clock[0]) + signal.duration for signal in signals)
    stop += max((ROUNDING / signal.rate for signal in signals if signal.times is not None), default=0.0)
    if (number := (stop - start - length) / hop) > MOST_WINDOWS:
        unit = misread_time(slowest.rate)
        raise WindowError(
            f"data.window.hop of {hop:g} s cuts a recording of {stop - start:.4g} s into {number:.3g} windows{unit}"
        )
    count = int((stop - start - length) / hop + 1e-6) + 1 if stop - start >= length - 1e-6 * hop else 0
    starts = start + np.arange(count) * hop
    for signal in signals:
        if signal.times is not None:
            first, last = _rows(signal, starts), _rows(signal, starts + length)
            starts = starts[first < last]
    return [(float(each), float(each) + length) for each in starts]


def _rows(signal: Signal, times: np.ndarray) -> np.ndarray:
    """For each time in seconds, the first sample of `signal` at or after it, with a tolerance for rounding."""
    return np.searchsorted(signal.clock, times - 1e-6 / signal.rate)


def timed(signal: Signal) -> Signal:
    """Return `signal` with explicit times, so that they are computed only once for all of its windows."""
    return signal if signal.times is not None else replace(signal, times=signal.clock)


def cut(signal: Signal, span: Span) -> Signal:
    """Return the part of `signal` within ``[start, end)``, on the same clock."""
    clock = signal.clock
    first, last = _rows(signal, np.asarray(span))
    return Signal(
        signal.values[first:last], signal.rate, float(clock[first]) if first < len(clock) else span[0], clock[first:last]
    )
