"""Deterministic transforms of signals: length, rate, scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kdcore import Modality, SampleTransform, Signal, Transform


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
    """Append samples up to `length`; a longer signal does not change.

    Args:
        length: Smallest number of samples.
        mode: Values to append: zeros, the last sample repeated, or the signal repeated.
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
        """Interpolation for evenly sampled recordings; None with `rate` or `anti_aliasing`, which depend on the recording's
        rate."""
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
        """Interpolated samples; the first and last stay in place."""
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
    left = np.minimum(np.maximum(np.searchsorted(clock, times, side="right") - 1, 0), len(clock) - 2)
    gap = clock[left + 1] - clock[left]
    share = np.minimum(np.maximum((times - clock[left]) / np.where(gap > 0, gap, 1.0), 0.0), 1.0)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    mixed = values[left] * (1 - share) + values[left + 1] * share
    return (np.rint(mixed) if np.issubdtype(values.dtype, np.integer) else mixed).astype(values.dtype)


class Normalise(Transform):
    """Subtract each channel's mean and divide by its standard deviation, both over the training split.

    The statistics are buffers: a saved student carries them.

    Args:
        channel_axis: Where channels are, counting the batch axis; 1 for (B, C, T …), 2 for clips (B, S, C, H, W).
        smallest: Lower bound of standard deviations, so that a constant channel stays constant.
    """

    fitted = True
    mean: Tensor
    std: Tensor

    def __init__(self, *, channel_axis: Annotated[int, Ge(1)] = 1, smallest: Annotated[float, Gt(0)] = 1e-6):
        super().__init__()
        self.channel_axis = channel_axis
        self.smallest = smallest
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("std", torch.empty(0))
        self.register_load_state_dict_pre_hook(_make_room)

    def output_spec(self, spec: Modality) -> Modality:
        """The same signal, without unit."""
        return replace(spec, units="1")

    def fit(self, x: Tensor) -> None:
        """Measure every channel of ``x``, some samples at a time so that memory-mapped data stays on disk."""
        axes = [axis for axis in range(x.ndim) if axis != self.channel_axis]
        total = square = torch.zeros((), dtype=torch.float64)
        for part in x.split(256):
            part = part.double()
            total = total + part.sum(axes)
            square = square + part.square().sum(axes)
        count = x.numel() / x.shape[self.channel_axis]
        mean = total / count
        std = (square / count - mean.square()).clamp_min(0).sqrt()
        self.mean = mean.to(self.mean)
        self.std = std.to(self.std).clamp_min(self.smallest)

    def forward(self, x: Tensor) -> Tensor:
        """Z-scores of the same shape.

        Raises:
            RuntimeError: If called before `fit`.
        """
        if not self.mean.numel():
            raise RuntimeError("normalise must be fitted before use")
        shape = [1] * x.ndim
        shape[self.channel_axis] = -1
        return (x - self.mean.view(shape)) / self.std.view(shape)


def _make_room(module: Any, saved: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    for name in ("mean", "std"):  # their length is known only from the data, or from what was saved
        if prefix + name in saved:
            setattr(module, name, torch.empty_like(saved[prefix + name], device=module.mean.device))


class Scale(Transform):
    """Multiply by a number and add another, the same for every channel: ``x * factor + offset``, as floats.

    Args:
        factor: Number to multiply values by, e.g. 0.10197 for m/s² → g.
        offset: Number to add afterwards.
        units: Unit of the result; unknown if not given.
    """

    def __init__(self, *, factor: float = 1.0, offset: float = 0.0, units: str = ""):
        super().__init__()
        self.factor = factor
        self.offset = offset
        self.units = units

    def output_spec(self, spec: Modality) -> Modality:
        """The same signal in other units."""
        return replace(spec, units=self.units)

    def forward(self, x: Tensor) -> Tensor:
        """The mapped values, same shape."""
        return x * self.factor + self.offset


class Magnitude(Transform):
    """Append the Euclidean length of every three channels x, y, z: (B, C, T …) → (B, C + C/3, T …).

    The length does not depend on the orientation of the sensor.
    """

    def output_spec(self, spec: Modality) -> Modality:
        """The channels, followed by the lengths."""
        threes = [spec.channels[first : first + 3] for first in range(0, len(spec.channels), 3)]
        return replace(spec, channels=(*spec.channels, *(f"|{', '.join(three)}|" for three in threes)))

    def forward(self, x: Tensor) -> Tensor:
        """The channels, followed by the lengths.

        Raises:
            ValueError: If the number of channels is not a multiple of three.
        """
        if x.shape[1] % 3:
            raise ValueError(f"magnitude needs a multiple of three channels (x, y, z), not {x.shape[1]}")
        return torch.cat([x, x.unflatten(1, (-1, 3)).norm(dim=2)], dim=1)
