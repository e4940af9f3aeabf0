"""Differences of frames: what moves, without the room and the clothes."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from kdcore import Transform


class RgbDifference(Transform):
    r"""Each frame minus the one before it.

    .. math:: y_s = gain\, (x_{s+1} - x_s)

    Shapes: (B, S, C, H, W) → (B, S - 1, C, H, W); stands after ``pixels`` or ``depth-range``, which make pixels floating.

    Args:
        gain: Factor that brings the small differences to the size an encoder expects.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016), section 3.2.
    """

    def __init__(self, *, gain: Annotated[float, Gt(0)] = 1.0):
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Differences of the clip's neighbouring frames.

        Raises:
            ValueError: If the clip has one frame, or pixels are still integers.
        """
        if x.shape[1] < 2 or not x.is_floating_point():
            raise ValueError(f"rgb-difference needs two frames or more of floating pixels, not {tuple(x.shape)} {x.dtype}")
        return self.gain * (x[:, 1:] - x[:, :-1])
