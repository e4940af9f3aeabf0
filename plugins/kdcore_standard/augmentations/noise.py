"""Random changes of values."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from kdcore import Transform


class Jitter(Transform):
    """Adds independent Gaussian noise to every value.

    Args:
        std: Its standard deviation, in the units of the input; in standard deviations of the signal after ``normalise``.
    """

    augmentation = True

    def __init__(self, *, std: Annotated[float, Ge(0)] = 0.05):
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, …) with noise."""
        return x + self.std * torch.randn_like(x)


class Scaling(Transform):
    """Multiplies every channel of every sample by a random factor around one.

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
    """Sets whole channels of a sample to zero, as if they had not been recorded.

    Args:
        probability: Of each channel of each sample.
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
