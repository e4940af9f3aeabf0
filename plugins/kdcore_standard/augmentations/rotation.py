"""Random rotation in space."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn import functional as F

from kdcore import Transform


class Rotation3d(Transform):
    """Turns every sample about a random axis, as if the sensor had been worn askew.

    Every three channels are one vector x, y, z; all vectors of a sample are turned alike. Axes are uniform on the sphere,
    angles uniform up to the largest.

    Args:
        max_angle: Largest angle in degrees.
    """

    augmentation = True

    def __init__(self, *, max_angle: Annotated[float, Ge(0), Le(180)] = 15.0):
        super().__init__()
        self.max_angle = max_angle

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, …), turned.

        Raises:
            ValueError: If channels do not come in threes.
        """
        if x.shape[1] % 3:
            raise ValueError(f"rotation-3d needs channels in threes (x, y, z), not {x.shape[1]}")
        axes = F.normalize(torch.randn(len(x), 3, dtype=x.dtype, device=x.device), dim=1)
        angles = math.radians(self.max_angle) * torch.rand(len(x), dtype=x.dtype, device=x.device)
        vectors = x.reshape(len(x), x.shape[1] // 3, 3, -1)
        return torch.einsum("bij,bgjp->bgip", rotations(axes, angles), vectors).reshape(x.shape)


def rotations(axes: Tensor, angles: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that turn by `angles` (B,) in radians about unit vectors `axes` (B, 3): Rodrigues' formula."""
    x, y, z = axes.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    sine, cosine = angles.sin().view(-1, 1, 1), angles.cos().view(-1, 1, 1)
    return torch.eye(3, dtype=axes.dtype, device=axes.device) + sine * cross + (1 - cosine) * (cross @ cross)
