"""Cutting and filling signals to a number of samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from kdcore import SampleTransform, Signal


class Crop(SampleTransform):
    """Keeps at most `length` consecutive samples; a shorter signal stays as it is.

    Args:
        length: Samples to keep.
        at: Which part of the signal they are.
    """

    def __init__(self, *, length: Annotated[int, Ge(1)], at: Literal["start", "centre", "end"] = "centre"):
        self.length = length
        self.at = at

    def __call__(self, signal: Signal) -> Signal:
        """The part, at the times at which it was recorded."""
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
    """Appends samples until there are `length`; a longer signal stays as it is.

    Args:
        length: Samples to have at least.
        mode: What is appended: zeros, the last sample over and over, or the signal over and over.
    """

    def __init__(self, *, length: Annotated[int, Ge(1)], mode: Literal["zeros", "edge", "repeat"] = "zeros"):
        self.length = length
        self.mode = mode

    def __call__(self, signal: Signal) -> Signal:
        """The signal, continued at its nominal rate.

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
