"""Augmentations of skeletons."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from kdcore import Transform
from kdcore_skeleton.layouts import require_coordinates

Degrees = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]


class RandomRotation(Transform):
    """Rotate each skeleton about the origin, by angles drawn uniformly up to a bound; usually after `centre`.

    Args:
        degrees: Largest angle about x (leaning), y (the vertical) and z, in degrees, either way.
    """

    augmentation = True

    def __init__(self, *, degrees: tuple[Degrees, Degrees, Degrees] = (0.0, 30.0, 0.0)):
        super().__init__()
        self.degrees = degrees

    def forward(self, x: Tensor) -> Tensor:
        """(B, C ≥ 3, T, V, M) → the same shape; only the first three channels are rotated.

        Raises:
            ValueError: If joints have two coordinates.
        """
        require_coordinates(x, 3, "random-rotation")
        bound = torch.deg2rad(x.new_tensor(self.degrees))
        rotation = _rotations((2 * torch.rand(len(x), 3, device=x.device, dtype=x.dtype) - 1) * bound)
        return torch.cat([torch.einsum("bij,bjtvm->bitvm", rotation, x[:, :3]), x[:, 3:]], dim=1)


class RandomScale(Transform):
    """Scale each skeleton by a factor drawn uniformly from 1 - spread to 1 + spread.

    Args:
        spread: Largest relative change.
        per_axis: Draw a factor for each coordinate.
        coordinates: Number of leading channels that are positions; others do not change.
    """

    augmentation = True

    def __init__(self, *, spread: Share = 0.1, per_axis: bool = False, coordinates: Annotated[int, Ge(1)] = 3):
        super().__init__()
        self.spread = spread
        self.per_axis = per_axis
        self.coordinates = coordinates

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V, M) → the same shape."""
        positions, rest = x[:, : self.coordinates], x[:, self.coordinates :]
        axes = positions.shape[1] if self.per_axis else 1
        factor = 1 + self.spread * (2 * torch.rand(len(x), axes, 1, 1, 1, device=x.device, dtype=x.dtype) - 1)
        return torch.cat([positions * factor, rest], dim=1)


class DropJoints(Transform):
    """Set joints to zero for a complete recording.

    Args:
        share: Probability that a joint is hidden, each person's on its own.
        coordinates: Number of leading channels that are positions; others do not change.
    """

    augmentation = True

    def __init__(self, *, share: Share = 0.1, coordinates: Annotated[int, Ge(1)] = 3):
        super().__init__()
        self.share = share
        self.coordinates = coordinates

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V, M) → the same shape."""
        kept = torch.rand(len(x), 1, 1, *x.shape[3:], device=x.device) >= self.share
        return torch.cat([x[:, : self.coordinates] * kept, x[:, self.coordinates :]], dim=1)


def _rotations(angles: Tensor) -> Tensor:
    """Return rotation matrices (B, 3, 3) about x, then y, then z, by `angles` (B, 3) in radians."""
    generators = torch.zeros(3, 3, 3, device=angles.device, dtype=angles.dtype)
    for axis, (a, b) in enumerate(((1, 2), (2, 0), (0, 1))):
        generators[axis, a, b], generators[axis, b, a] = -1, 1
    about_x, about_y, about_z = torch.linalg.matrix_exp(angles[..., None, None] * generators).unbind(1)
    return about_z @ about_y @ about_x
