"""Differences between joints and between frames."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from kdcore import Transform
from kdcore_skeleton.layouts import LayoutOption, find_layout
from kdcore_skeleton.transforms.refusal import require_layout


class Bones(Transform):
    r"""Bones instead of joints: :math:`x_v - x_{\text{parent}(v)}`, zero at the root (2s-AGCN, section 3.3).

    Args:
        layout: The skeleton's layout, by name or spelt out as joints, edges and centre. Recordings do not
            say theirs: give it unless it is UTD-MHAD's.
        coordinates: The first so many channels are positions; others are left as they are.
        append: Keep the positions, and add bones as further channels after all others.
    """

    parents: Tensor

    def __init__(self, *, layout: LayoutOption = "utd-mhad-20", coordinates: Annotated[int, Ge(1)] = 3, append: bool = False):
        super().__init__()
        found = find_layout(layout)
        parents = torch.arange(len(found))
        child, parent = torch.from_numpy(found.bones).unbind(1)
        parents[child] = parent
        self.layout: LayoutOption = layout
        self.register_buffer("parents", parents, persistent=False)
        self.coordinates = coordinates
        self.append = append

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V, M) → (B, C or C + coordinates, T, V, M).

        Raises:
            ValueError: If these are not the layout's joints.
        """
        require_layout(x, self.layout, "bones")
        joints = x[:, : self.coordinates]
        return _merged(x, joints - joints[:, :, :, self.parents], self.append)


class Motion(Transform):
    r"""Displacements instead of positions: :math:`x_{t+1} - x_t`, zero in the last frame.

    Args:
        coordinates: The first so many channels are positions; others are left as they are.
        append: Keep the positions, and add displacements as further channels after all others.
    """

    def __init__(self, *, coordinates: Annotated[int, Ge(1)] = 3, append: bool = False):
        super().__init__()
        self.coordinates = coordinates
        self.append = append

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V, M) → (B, C or C + coordinates, T, V, M)."""
        steps = x[:, : self.coordinates].diff(dim=2)
        return _merged(x, F.pad(steps, (0, 0, 0, 0, 0, 1)), self.append)


def _merged(x: Tensor, differences: Tensor, append: bool) -> Tensor:
    kept = [x, differences] if append else [differences, x[:, differences.shape[1] :]]
    return torch.cat(kept, dim=1)
