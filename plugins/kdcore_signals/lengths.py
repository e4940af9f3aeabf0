"""Length and rate of recorded signals. This module loads no torch, so that processes that only read recordings start fast."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from kdcore import Modality, SampleTransform, Signal

if TYPE_CHECKING:
    from torch import nn


class Crop(SampleTransform):
    """Keep at most `length` consecutive samples; a shorter signal does not change.

    Args:
        length: Samples to keep.
        at: Part of the signal to keep.
    """

    def __init__(self, *, length: Annotated[int, Ge(1)], at: Literal["start", "centre", "end"] = "centre"):
        self.length = length
        self.at = at

    def __call__(self, signal: Signal) -> Signal:
        """Return the part, at the times at which it was recorded."""
        spare = max(0, len(signal) - self.length)
        first = {"start": 0, "centre": spare // 2, "end": spare}[self.at]
        kept = slice(first, first + self.length)
        return replace(
            signal,
            values=signal.values[kept],
            start=signal.start + first / signal.rate,
            times=None if signal.times is None else signal.times[kept],
        )


class Pad(SampleTransform):
    """Append samples up to `length`; a longer signal does not change.

    Args:
        length: Smallest number of samples.
        mode: Values to append: zeros, the last sample repeated, or the signal repeated.
    """

    def __init__(self, *, length: Annotated[int, Ge(1)], mode: Literal["zeros", "edge", "repeat"] = "zeros"):
        self.length = length
        self.mode = mode

    def __call__(self, signal: Signal) -> Signal:
        """Return the signal, continued at its nominal rate.

        Raises:
            ValueError: If the signal is empty.
        """
        missing = self.length - len(signal)
        if missing <= 0:
            return signal
        if not len(signal):
            raise ValueError("the signal has no samples")
        widths = [(0, missing)] + [(0, 0)] * (signal.values.ndim - 1)
        mode = {"zeros": "constant", "edge": "edge", "repeat": "wrap"}[self.mode]
        times = signal.times
        if times is not None:
            times = np.concatenate([times, times[-1] + np.arange(1, missing + 1) / signal.rate])
        return replace(signal, values=np.pad(signal.values, widths, mode=mode), times=times)  # type: ignore[call-overload]


class Resample(SampleTransform):
    """Linear interpolation to a number of samples or to a rate, at the times at which samples were taken.

    With `length`, the new samples are evenly spaced from the first to the last recorded one; with `rate`, they start at
    the first and stop at or before the last. Axes after time (joints, channels, pixels …) are carried along; integer
    values are rounded to integers again.

    Args:
        length: Number of samples, at least 1.
        rate: Samples per second. Give either this or `length`.
        anti_aliasing: Smooth with a Gaussian of (factor - 1) / 2 samples before downsampling by a factor above 1.

    Raises:
        ValueError: If both or neither of `length` and `rate` are given.
    """

    def __init__(
        self,
        *,
        length: Annotated[int, Ge(1)] | None = None,
        rate: Annotated[float, Gt(0)] | None = None,
        anti_aliasing: bool = False,
    ):
        if (length is None) == (rate is None):
            raise ValueError("give either length or rate")
        self.length = length
        self.rate = rate
        self.anti_aliasing = anti_aliasing

    def __call__(self, signal: Signal) -> Signal:
        """Return the signal on its new, even clock.

        Raises:
            ValueError: If the signal is empty or its clock runs backwards.
        """
        if not len(signal):
            raise ValueError("the signal has no samples")
        clock = np.asarray(signal.clock, dtype=np.float64)
        if np.any(np.diff(clock) < 0):
            raise ValueError("the signal's clock runs backwards")
        times, rate = self._new_clock(clock, signal.rate)
        values = signal.values
        if self.anti_aliasing:
            values = _smooth(values, factor=_mean_rate(clock, signal.rate) / rate)
        return replace(signal, values=_interpolate(values, clock, times), rate=rate, start=float(clock[0]), times=None)

    def output_spec(self, spec: Modality) -> Modality:
        """Evenly sampled at the new rate; with `length`, at one that differs from recording to recording."""
        return replace(spec, rate=self.rate)

    def as_module(self) -> nn.Module | None:
        """Interpolation for evenly sampled recordings; None with `rate` or `anti_aliasing`, which depend on the recording's
        rate."""
        if self.length is None or self.anti_aliasing:
            return None
        from kdcore_signals.transforms import Interpolate

        return Interpolate(self.length)

    def _new_clock(self, clock: np.ndarray, old_rate: float) -> tuple[np.ndarray, float]:
        first, last = float(clock[0]), float(clock[-1])
        if self.rate is not None:
            # the tolerance keeps the last sample where (last - first) · rate is a whole number but for rounding
            count = int(np.floor((last - first) * self.rate + 1e-6)) + 1
            return first + np.arange(count) / self.rate, float(self.rate)
        assert self.length is not None
        span = last - first
        rate = (self.length - 1) / span if span > 0 and self.length > 1 else old_rate
        return np.linspace(first, last, self.length), rate


def _mean_rate(clock: np.ndarray, nominal: float) -> float:
    span = float(clock[-1] - clock[0])
    return (len(clock) - 1) / span if span > 0 else nominal


def _smooth(values: np.ndarray, factor: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(values.astype(np.float64), (factor - 1) / 2, axis=0, mode="nearest") if factor > 1 else values


def _interpolate(values: np.ndarray, clock: np.ndarray, times: np.ndarray) -> np.ndarray:
    if len(clock) == 1:
        return np.repeat(values, len(times), axis=0)
    left = np.minimum(np.maximum(np.searchsorted(clock, times, side="right") - 1, 0), len(clock) - 2)
    gap = clock[left + 1] - clock[left]
    share = np.minimum(np.maximum((times - clock[left]) / np.where(gap > 0, gap, 1.0), 0.0), 1.0)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    mixed = values[left] * (1 - share) + values[left + 1] * share
    return (np.rint(mixed) if np.issubdtype(values.dtype, np.integer) else mixed).astype(values.dtype)
