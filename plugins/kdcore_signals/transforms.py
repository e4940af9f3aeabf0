"""Deterministic transforms of batches of signals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kdcore import Modality, Transform


class Interpolate(nn.Module):
    """`Resample` to a length, for evenly sampled recordings: (B, T, …) → (B, length, …)."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        """Return interpolated samples; the first and last stay in place."""
        last = x.shape[1] - 1
        places = torch.arange(self.length, dtype=torch.float64, device=x.device) * (last / max(1, self.length - 1))
        left = places.floor().long().clamp(max=last)
        share = (places - left).float().view(-1, *[1] * (x.ndim - 2))
        mixed = x.index_select(1, left) * (1 - share) + x.index_select(1, (left + 1).clamp(max=last)) * share
        return mixed if x.is_floating_point() else mixed.round().to(x.dtype)


class Normalise(Transform):
    """Subtract each channel's mean and divide by its standard deviation, both over the training split.

    The statistics are buffers: a saved student carries them.

    Args:
        channel_axis: Index of the channel axis, including the batch axis; 1 for (B, C, T …), 2 for clips (B, S, C, H, W).
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
        """Return the spec without a unit."""
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
        """Return z-scores of the same shape.

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
        """Return the spec with the new unit."""
        return replace(spec, units=self.units)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mapped values, same shape."""
        return x * self.factor + self.offset


class Magnitude(Transform):
    """Append the Euclidean length of every three channels x, y, z: (B, C, T …) → (B, C + C/3, T …).

    The length does not depend on the orientation of the sensor.
    """

    def output_spec(self, spec: Modality) -> Modality:
        """Return the channels, followed by the magnitudes."""
        threes = [spec.channels[first : first + 3] for first in range(0, len(spec.channels), 3)]
        return replace(spec, channels=(*spec.channels, *(f"|{', '.join(three)}|" for three in threes)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels, followed by the magnitudes.

        Raises:
            ValueError: If the number of channels is not a multiple of three.
        """
        if x.shape[1] % 3:
            raise ValueError(f"magnitude needs a multiple of three channels (x, y, z), not {x.shape[1]}")
        return torch.cat([x, x.unflatten(1, (-1, 3)).norm(dim=2)], dim=1)
