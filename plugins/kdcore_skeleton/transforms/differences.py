"""Differences between joints and between frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from kdcore import Modality, Transform
from kdcore_skeleton.layouts import LayoutOption, layout_of, require_joints


class Bones(Transform):
    r"""Bones instead of joints: :math:`x_v - x_{\text{parent}(v)}`, zero at the root (2s-AGCN, section 3.3).

    Args:
        layout: Skeleton layout: a name, or joints, edges and centre. Default: the dataset's layout.
        coordinates: Number of leading channels that are positions; others do not change.
        append: Keep the positions, and add bones as further channels after all others.
        spec: Description of the input.

    Raises:
        ValueError: If no layout is known.
    """

    parents: Tensor

    def __init__(
        self,
        *,
        layout: LayoutOption | None = None,
        coordinates: Annotated[int, Ge(1)] = 3,
        append: bool = False,
        spec: Modality | None = None,
    ):
        super().__init__()
        self.layout = layout_of(spec, layout)
        parents = torch.arange(len(self.layout))
        child, parent = torch.from_numpy(self.layout.bones).unbind(1)
        parents[child] = parent
        self.register_buffer("parents", parents, persistent=False)
        self.coordinates = coordinates
        self.append = append

    def output_spec(self, spec: Modality) -> Modality:
        """Return bones as channels, instead of positions or after all others."""
        return _named(spec, "bone", self.coordinates, self.append)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V, M) → (B, C or C + coordinates, T, V, M).

        Raises:
            ValueError: If these are not the layout's joints.
        """
        require_joints(x, self.layout, "bones")
        joints = x[:, : self.coordinates]
        return _merged(x, joints - joints[:, :, :, self.parents], self.append)


class Motion(Transform):
    r"""Displacements instead of positions: :math:`x_{t+1} - x_t`, zero in the last frame.

    Args:
        coordinates: Number of leading channels that are positions; others do not change.
        append: Keep the positions, and add displacements as further channels after all others.
    """

    def __init__(self, *, coordinates: Annotated[int, Ge(1)] = 3, append: bool = False):
        super().__init__()
        self.coordinates = coordinates
        self.append = append

    def output_spec(self, spec: Modality) -> Modality:
        """Return displacements as channels, instead of positions or after all others."""
        return _named(spec, "motion", self.coordinates, self.append)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V, M) → (B, C or C + coordinates, T, V, M)."""
        steps = x[:, : self.coordinates].diff(dim=2)
        return _merged(x, F.pad(steps, (0, 0, 0, 0, 0, 1)), self.append)


def _named(spec: Modality, kind: str, coordinates: int, append: bool) -> Modality:
    names = tuple(f"{kind}-{channel}" for channel in spec.channels[:coordinates])
    return replace(spec, channels=(*spec.channels, *names) if append else (*names, *spec.channels[coordinates:]))


def _merged(x: Tensor, differences: Tensor, append: bool) -> Tensor:
    kept = [x, differences] if append else [differences, x[:, differences.shape[1] :]]
    return torch.cat(kept, dim=1)
