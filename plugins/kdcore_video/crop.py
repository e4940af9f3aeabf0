"""Multi-scale cropping."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn import functional as F

from kdcore import Transform

CORNERS = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (0, 2), (2, 0), (2, 4), (4, 2), (1, 1), (1, 3), (3, 1), (3, 3))
"""Where a crop may lie, (top, left) in quarters of the room there is."""


class MultiScaleCrop(Transform):
    """Cuts a square out of every frame: while training one of random size, shape and place, else the middle one.

    While training, height and width are `scales` of the short side, at most one step of the list apart, and the crop lies at
    one of thirteen places; all frames of a clip are cut alike, then resized. In evaluation the middle `size` × `size`
    pixels are taken as they are. Shapes: (B, S, C, H, W) → (B, S, C, size, size), pixels of the same type.

    Args:
        size: Pixels of a side, None for the short side of the frames.
        scales: Sides of crops relative to the short side.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016), Section 3.2.
    """

    live: ClassVar[bool] = True

    def __init__(
        self,
        *,
        size: Annotated[int, Ge(1)] | None = None,
        scales: tuple[Annotated[float, Gt(0), Le(1)], ...] = (1.0, 0.875, 0.75, 0.66),
    ):
        super().__init__()
        self.size = size
        steps = range(len(scales))
        pairs = [(scales[i], scales[j]) for i in steps for j in steps if abs(i - j) <= 1]
        self.register_buffer("pairs", torch.tensor(pairs), persistent=False)
        self.register_buffer("places", torch.tensor(CORNERS) / 4, persistent=False)

    pairs: Tensor
    places: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Cropped clips.

        Raises:
            ValueError: If the frames are smaller than `size`.
        """
        height, width = x.shape[-2:]
        short = min(height, width)
        size = self.size or short
        if short < size:
            raise ValueError(f"multi-scale-crop: frames of {height} x {width} pixels are smaller than {size}")
        if not self.training:
            top, left = (height - size) // 2, (width - size) // 2
            return x[..., top : top + size, left : left + size]
        return self._sampled(x, size, self._draw(len(x), height, width))

    def _draw(self, count: int, height: int, width: int) -> Tensor:
        """Affine maps (count, 2, 3) from a crop's coordinates to its frame's, both in [-1, 1]."""
        pairs = self.pairs[torch.randint(len(self.pairs), (count,), device=self.pairs.device)]
        places = self.places[torch.randint(len(self.places), (count,), device=self.places.device)]
        sides = pairs * min(height, width) / torch.tensor([height, width], device=pairs.device)
        centres = (2 * places - 1) * (1 - sides)
        return torch.stack((_row(sides[:, 1], centres[:, 1], 0), _row(sides[:, 0], centres[:, 0], 1)), dim=1)

    @staticmethod
    def _sampled(x: Tensor, size: int, maps: Tensor) -> Tensor:
        stacked = x.flatten(1, 2)
        pixels = stacked if x.is_floating_point() else stacked.to(maps.dtype)
        grid = F.affine_grid(maps.to(pixels.dtype), [len(x), 1, size, size], align_corners=False)
        cut = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        return (cut if x.is_floating_point() else cut.round().to(x.dtype)).unflatten(1, x.shape[1:3])


def _row(side: Tensor, centre: Tensor, axis: int) -> Tensor:
    zero = torch.zeros_like(side)
    return torch.stack((zero, side, centre) if axis else (side, zero, centre), dim=1)
