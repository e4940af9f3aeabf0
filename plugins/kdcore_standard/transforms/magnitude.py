"""Lengths of vectors as further channels."""

from __future__ import annotations

import torch
from torch import Tensor

from kdcore import Transform


class Magnitude(Transform):
    """Appends, for every three channels x, y, z, their Euclidean length: (B, C, T …) → (B, C + C/3, T …).

    A length does not change when the sensor is worn turned.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The channels and, after them, the lengths.

        Raises:
            ValueError: If channels do not come in threes.
        """
        if x.shape[1] % 3:
            raise ValueError(f"magnitude needs channels in threes (x, y, z), not {x.shape[1]}")
        return torch.cat([x, x.unflatten(1, (-1, 3)).norm(dim=2)], dim=1)
