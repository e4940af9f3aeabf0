"""Resampling on a signal's own clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kdcore import Modality, SampleTransform, Signal


class Resample(SampleTransform):
    """Linear interpolation to a number of samples or to a rate, at the times at which samples were really taken.

    With `length`, the new samples are evenly spaced from the first to the last recorded one; with `rate`, they start at
    the first and stop at or before the last. Axes after time (joints, channels, pixels …) are carried along; integer
    values are rounded to integers again.

    Args:
        length: Samples to have, at least 1.
        rate: Samples per second to have. Give either this or `length`.
        anti_aliasing: Smooth with a Gaussian of (factor - 1) / 2 samples before thinning out by a factor above 1.

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
        """The signal on its new, even clock.

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
        """Interpolation of an even clock; None with `rate` or `anti_aliasing`, which depend on the recording's own rate."""
        return None if self.length is None or self.anti_aliasing else Interpolate(self.length)

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


class Interpolate(nn.Module):
    """`Resample` to a length, for evenly sampled recordings: (B, T, …) → (B, length, …)."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        """First sample on first and last on last."""
        last = x.shape[1] - 1
        places = torch.arange(self.length, dtype=torch.float64, device=x.device) * (last / max(1, self.length - 1))
        left = places.floor().long().clamp(max=last)
        share = (places - left).float().view(-1, *[1] * (x.ndim - 2))
        mixed = x.index_select(1, left) * (1 - share) + x.index_select(1, (left + 1).clamp(max=last)) * share
        return mixed if x.is_floating_point() else mixed.round().to(x.dtype)


def _mean_rate(clock: np.ndarray, nominal: float) -> float:
    span = float(clock[-1] - clock[0])
    return (len(clock) - 1) / span if span > 0 else nominal


def _smooth(values: np.ndarray, factor: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(values.astype(np.float64), (factor - 1) / 2, axis=0, mode="nearest") if factor > 1 else values


def _interpolate(values: np.ndarray, clock: np.ndarray, times: np.ndarray) -> np.ndarray:
    if len(clock) == 1:
        return np.repeat(values, len(times), axis=0)
    left = np.clip(np.searchsorted(clock, times, side="right") - 1, 0, len(clock) - 2)
    gap = clock[left + 1] - clock[left]
    share = np.clip((times - clock[left]) / np.where(gap > 0, gap, 1.0), 0.0, 1.0)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    mixed = values[left] * (1 - share) + values[left + 1] * share
    return (np.rint(mixed) if np.issubdtype(values.dtype, np.integer) else mixed).astype(values.dtype)
