"""Augmentations of signals."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor
from torch.nn import functional as F

from kdcore import Transform


class Jitter(Transform):
    """Add independent Gaussian noise to every value.

    Args:
        std: Standard deviation of the noise, in the units of the input; after ``normalise``, in standard deviations of the
            signal.
    """

    augmentation = True

    def __init__(self, *, std: Annotated[float, Ge(0)] = 0.05):
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, …) with noise."""
        return x + self.std * torch.randn_like(x)


class Scaling(Transform):
    """Multiply every channel of every sample by a random factor around one.

    Args:
        std: Standard deviation of the factor.
    """

    augmentation = True

    def __init__(self, *, std: Annotated[float, Ge(0)] = 0.1):
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, …), scaled."""
        return x * (1 + self.std * _one_per_channel(torch.randn, x))


class ChannelDropout(Transform):
    """Set complete channels of a sample to zero, as if they were not recorded.

    Args:
        probability: Probability of dropping each channel of each sample.
    """

    augmentation = True

    def __init__(self, *, probability: Annotated[float, Ge(0), Le(1)] = 0.1):
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, …) without some of its channels."""
        return x * (_one_per_channel(torch.rand, x) >= self.probability)


def _one_per_channel(draw, x: Tensor) -> Tensor:
    return draw(*x.shape[:2], *[1] * (x.ndim - 2), dtype=x.dtype, device=x.device)


class Rotation3d(Transform):
    """Rotate every sample about a random axis, as if the sensor were worn at another angle.

    Every three channels are one vector x, y, z; all vectors of a sample are rotated alike. Axes are uniform on the sphere,
    angles uniform up to the largest.

    Args:
        max_angle: Largest angle in degrees.
    """

    augmentation = True

    def __init__(self, *, max_angle: Annotated[float, Ge(0), Le(180)] = 15.0):
        super().__init__()
        self.max_angle = max_angle

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, …), rotated.

        Raises:
            ValueError: If the number of channels is not a multiple of three.
        """
        if x.shape[1] % 3:
            raise ValueError(f"rotation-3d needs a multiple of three channels (x, y, z), not {x.shape[1]}")
        axes = F.normalize(torch.randn(len(x), 3, dtype=x.dtype, device=x.device), dim=1)
        angles = math.radians(self.max_angle) * torch.rand(len(x), dtype=x.dtype, device=x.device)
        vectors = x.reshape(len(x), x.shape[1] // 3, 3, -1)
        return torch.einsum("bij,bgjp->bgip", rotations(axes, angles), vectors).reshape(x.shape)


def rotations(axes: Tensor, angles: Tensor) -> Tensor:
    """Return rotation matrices (B, 3, 3) by `angles` (B,) in radians about unit vectors `axes` (B, 3): Rodrigues' formula."""
    x, y, z = axes.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    sine, cosine = angles.sin().view(-1, 1, 1), angles.cos().view(-1, 1, 1)
    return torch.eye(3, dtype=axes.dtype, device=axes.device) + sine * cross + (1 - cosine) * (cross @ cross)


Fraction = Annotated[float, Ge(0), Le(1)]


class TimeWarp(Transform):
    """Change the speed of every sample smoothly. The first and last value stay in place.

    The speed is the exponential of Gaussian noise at some knots, interpolated linearly between them, and scaled so that the
    whole takes as long as before.

    Args:
        std: Standard deviation of the logarithm of the speed.
        knots: Number of knots.
    """

    augmentation = True

    def __init__(self, *, std: Annotated[float, Ge(0)] = 0.2, knots: Annotated[int, Ge(2)] = 4):
        super().__init__()
        self.std = std
        self.knots = knots

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, T, …), warped along T."""
        length = x.shape[2]
        if length < 2:
            return x
        noise = torch.randn(len(x), 1, self.knots, dtype=x.dtype, device=x.device)
        speed = _read(noise, torch.linspace(0, self.knots - 1, length - 1, dtype=x.dtype, device=x.device)[None])[:, 0]
        passed = (self.std * speed).exp().cumsum(dim=1)
        passed = passed / passed[:, -1:] * (length - 1)
        return _read(x, torch.cat([torch.zeros_like(passed[:, :1]), passed], dim=1))


class TimeShift(Transform):
    """Shift every sample in time by whole steps; its first or last value fills the gap.

    Args:
        max_fraction: Maximum shift in either direction, as a share of the length.
    """

    augmentation = True

    def __init__(self, *, max_fraction: Fraction = 0.1):
        super().__init__()
        self.max_fraction = max_fraction

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, T, …), shifted along T."""
        length = x.shape[2]
        most = int(self.max_fraction * length)
        shift = torch.randint(-most, most + 1, (len(x), 1), device=x.device)
        steps = (torch.arange(length, device=x.device) - shift).clamp(0, length - 1)
        return _take(x, steps)


class TimeCrop(Transform):
    """Crop both ends of every sample and stretch the rest to the original length.

    Window slicing: Le Guennec, Malinowski, Tavenard: Data Augmentation for Time Series Classification using Convolutional
    Neural Networks, AALTD 2016, https://shs.hal.science/halshs-01357973.

    Args:
        max_fraction: Maximum share of the length to crop at each end; uniform from zero.
    """

    augmentation = True

    def __init__(self, *, max_fraction: Annotated[float, Ge(0), Lt(0.5)] = 0.1):
        super().__init__()
        self.max_fraction = max_fraction

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, T, …), a part of it along T, as long as the whole."""
        length = x.shape[2]
        if length < 2:
            return x
        cuts = self.max_fraction * torch.rand(2, len(x), 1, dtype=x.dtype, device=x.device)
        share = torch.linspace(0, 1, length, dtype=x.dtype, device=x.device)
        return _read(x, (length - 1) * torch.lerp(cuts[0], 1 - cuts[1], share))


class TimeMask(Transform):
    """Set segments of every sample to zero, in all channels.

    Args:
        max_fraction: Maximum length of a segment, as a share of the length; uniform from zero.
        count: Number of segments, which may overlap.
    """

    augmentation = True

    def __init__(self, *, max_fraction: Fraction = 0.2, count: Annotated[int, Ge(1)] = 1):
        super().__init__()
        self.max_fraction = max_fraction
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, T, …) with zeros in places."""
        length = x.shape[2]
        widths = (torch.rand(len(x), self.count, 1, device=x.device) * (int(self.max_fraction * length) + 1)).long()
        first = (torch.rand(len(x), self.count, 1, device=x.device) * (length - widths + 1)).long()
        steps = torch.arange(length, device=x.device)
        kept = ((steps < first) | (steps >= first + widths)).all(dim=1)
        return x * kept.view(len(x), 1, length, *[1] * (x.ndim - 3))


def _take(x: Tensor, steps: Tensor) -> Tensor:
    """``x`` (B, C, T, …) at whole `steps` (B, T')."""
    samples = torch.arange(len(x), device=x.device)[:, None]
    return x.movedim(2, 1)[samples, steps].movedim(1, 2)


def _read(x: Tensor, at: Tensor) -> Tensor:
    """``x`` (B, C, T, …) between steps, at positions `at` (B or 1, T') in [0, T - 1], by linear interpolation."""
    left = at.floor().clamp(0, x.shape[2] - 2).long()
    share = (at - left).view(len(at), 1, -1, *[1] * (x.ndim - 3))
    return torch.lerp(_take(x, left), _take(x, left + 1), share)
