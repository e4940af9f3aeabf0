"""Joint positions as the channels of a plain time series."""

from __future__ import annotations

from torch import Tensor

from kdcore import Transform


class JointsToChannels(Transform):
    """Lays coordinates, joints and persons side by side as channels, for encoders of time series.

    Shapes: (B, C, T, V, M) → (B, C·V·M, T).
    """

    def forward(self, x: Tensor) -> Tensor:
        """The positions as a series."""
        return x.permute(0, 1, 3, 4, 2).flatten(1, 3)
