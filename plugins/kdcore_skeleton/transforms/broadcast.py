"""Skeletons and body-worn sensors in one tensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import Join


class BroadcastToJoints(Join):
    """Gives every joint of every person the sensors' channels, as PSKD's fusion teacher reads them.

    Ni, Ngu, Yan: Progressive Cross-modal Knowledge Distillation for Human Action Recognition, ACM MM 2022, section 3.2.
    The skeleton's channels come first. Sensors of another length are interpolated linearly, first sample on first frame and
    last on last.
    """

    def forward(self, parts: tuple[Tensor, ...]) -> Tensor:
        """One skeleton (B, C, T, V, M) and any sensors (B, C_i, T_i), in any order → (B, C + ΣC_i, T, V, M).

        Raises:
            ValueError: If there is not exactly one skeleton, or a part is neither.
        """
        skeletons = [part for part in parts if part.dim() == 5]
        sensors = [part for part in parts if part.dim() == 3]
        if len(skeletons) != 1 or len(sensors) != len(parts) - 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(f"broadcast-to-joints joins one skeleton (B, C, T, V, M) with sensors (B, C, T), not {shapes}")
        skeleton = skeletons[0]
        spread = [
            _resampled(each, skeleton.shape[2])[..., None, None].expand(-1, -1, -1, *skeleton.shape[3:]) for each in sensors
        ]
        return torch.cat([skeleton, *spread], dim=1)


def _resampled(x: Tensor, frames: int) -> Tensor:
    return x if x.shape[2] == frames else F.interpolate(x, size=frames, mode="linear", align_corners=True)
