"""Lengths of vectors as further channels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kdcore import Modality, Transform


class Magnitude(Transform):
    """Appends, for every three channels x, y, z, their Euclidean length: (B, C, T …) → (B, C + C/3, T …).

    A length does not change when the sensor is worn turned.
    """

    def output_spec(self, spec: Modality) -> Modality:
        """The lengths' channels after the others."""
        threes = [spec.channels[first : first + 3] for first in range(0, len(spec.channels), 3)]
        return replace(spec, channels=(*spec.channels, *(f"|{', '.join(three)}|" for three in threes)))

    def forward(self, x: Tensor) -> Tensor:
        """The channels and, after them, the lengths.

        Raises:
            ValueError: If channels do not come in threes.
        """
        if x.shape[1] % 3:
            raise ValueError(f"magnitude needs channels in threes (x, y, z), not {x.shape[1]}")
        return torch.cat([x, x.unflatten(1, (-1, 3)).norm(dim=2)], dim=1)
