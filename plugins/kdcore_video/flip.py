"""Mirroring."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor

from kdcore import Transform


class Flip(Transform):
    """Mirrors whole clips left to right. Only for classes that do not say which side (not for ``swipe left``).

    Shapes: (B, …, C, H, W) → the same.

    Args:
        probability: Of each clip.
        flow: Whether channels alternate between x and y flow; then mirrored x flow also changes its sign
            (``255 − value`` where flow is stored as uint8).
    """

    augmentation: ClassVar[bool] = True

    def __init__(self, *, probability: Annotated[float, Ge(0), Le(1)] = 0.5, flow: bool = False):
        super().__init__()
        self.probability = probability
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        """Clips, some of them mirrored."""
        chosen = torch.rand(len(x), device=x.device) < self.probability
        mirrored = x.flip(-1)
        if self.flow:
            sideways = mirrored[..., 0::2, :, :]
            mirrored[..., 0::2, :, :] = -sideways if x.is_floating_point() else 255 - sideways
        return torch.where(chosen.view(-1, *[1] * (x.ndim - 1)), mirrored, x)
