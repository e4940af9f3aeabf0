"""Transforms of a skeleton's position, orientation and size.

Joints that are zero in all coordinates were not seen; they stay zero, and nothing is measured on them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from kdcore import Modality, Transform
from kdcore_skeleton.layout import Joint, Layout
from kdcore_skeleton.layouts import LayoutOption, layout_of, require_joints

When = Literal["first", "every"]
Coordinates = Annotated[int, Ge(1)]


class Centre(Transform):
    """Move a joint to the origin; all other joints, and other persons, move along.

    Args:
        layout: Skeleton layout: a name, or joints, edges and centre. Default: the dataset's layout.
        joint: Which joint, by name or number; the layout's centre by default.
        frame: ``every``: each frame by itself, which takes walking out of the recording; ``first``: all frames by the first
            in which the joint was seen.
        coordinates: Number of leading channels that are positions; others do not change.
        spec: Description of the input.

    In both cases it is the first person's joint. Frames in which it was not seen are moved as the one seen before them was.
    """

    def __init__(
        self,
        *,
        layout: LayoutOption | None = None,
        joint: Joint | None = None,
        frame: When = "every",
        coordinates: Coordinates = 3,
        spec: Modality | None = None,
    ):
        super().__init__()
        self.layout = layout_of(spec, layout)
        self.joint = self.layout.index(self.layout.centre if joint is None else joint)
        self.frame = frame
        self.coordinates = coordinates

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V, M) → the same shape.

        Raises:
            ValueError: If these are not the layout's joints.
        """
        require_joints(x, self.layout, "centre")
        positions = x[:, : self.coordinates]
        origin = positions[:, :, :, self.joint, 0]
        seen = (origin != 0).any(dim=1)
        frames = _latest(seen) if self.frame == "every" else _first(seen).expand_as(seen)
        origin = origin.gather(2, frames[:, None].expand_as(origin))
        return _replaced(x, positions - origin[..., None, None])


class ViewAlign(Transform):
    """Rotate a skeleton so that it stands upright and faces the camera.

    Up, from the middle of the hips to that of the shoulders, becomes +y; across, from left to right, becomes +x as nearly as
    that allows; a person in front of a Kinect then faces -z. Measured once, on the first person in the first frame that has
    all four joints; the whole recording is rotated about the origin, so `centre` usually comes first. If no frame has them,
    nothing is rotated.

    Args:
        layout: Skeleton layout: a name, or joints, edges and centre. Default: the dataset's layout.
        spec: Description of the input.

    Raises:
        ValueError: If no layout is known, or it lacks a shoulder or hip.
    """

    def __init__(self, *, layout: LayoutOption | None = None, spec: Modality | None = None):
        super().__init__()
        self.layout = layout_of(spec, layout)
        self.torso = _torso(self.layout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C ≥ 3, T, V, M) → the same shape.

        Raises:
            ValueError: If these are not the layout's joints, or have two coordinates.
        """
        require_joints(x, self.layout, "view-align", coordinates=3)
        corners, seen = _corners(x, self.torso)
        first = _first(seen)[:, None, :, None].expand(-1, 3, -1, 4)
        left_shoulder, right_shoulder, left_hip, right_hip = corners.gather(2, first)[:, :, 0].unbind(-1)
        up = left_shoulder + right_shoulder - left_hip - right_hip
        across = right_shoulder - left_shoulder + right_hip - left_hip
        rotation = _upright(up, across, seen.any(dim=1))
        return _replaced(x, torch.einsum("bij,bjtvm->bitvm", rotation, x[:, :3]))


class SkeletonScale(Transform):
    """Divide positions by the length of the torso, from the middle of the hips to that of the shoulders.

    The length is the first person's mean over frames that have the four joints; if none has, positions do not change.

    Args:
        layout: Skeleton layout: a name, or joints, edges and centre. Default: the dataset's layout.
        coordinates: Number of leading channels that are positions; others do not change.
        spec: Description of the input.

    Raises:
        ValueError: If no layout is known, or it lacks a shoulder or hip.
    """

    def __init__(self, *, layout: LayoutOption | None = None, coordinates: Coordinates = 3, spec: Modality | None = None):
        super().__init__()
        self.layout = layout_of(spec, layout)
        self.torso = _torso(self.layout)
        self.coordinates = coordinates

    def output_spec(self, spec: Modality) -> Modality:
        """Return the spec with torso lengths as unit."""
        return replace(spec, units="1")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V, M) → the same shape.

        Raises:
            ValueError: If these are not the layout's joints.
        """
        require_joints(x, self.layout, "skeleton-scale")
        corners, seen = _corners(x, self.torso, self.coordinates)
        lengths = (corners[..., :2].mean(dim=-1) - corners[..., 2:].mean(dim=-1)).norm(dim=1)
        length = (lengths * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)
        length = torch.where(length > 0, length, 1)
        return torch.cat([x[:, : self.coordinates] / length[:, None, None, None, None], x[:, self.coordinates :]], dim=1)


def _torso(layout: Layout) -> list[int]:
    return [layout.index(joint) for joint in ("left-shoulder", "right-shoulder", "left-hip", "right-hip")]


def _corners(x: Tensor, torso: list[int], coordinates: int = 3) -> tuple[Tensor, Tensor]:
    """Return the first person's shoulders and hips (B, C, T, 4), and in which frames all were seen (B, T)."""
    corners = x[:, :coordinates, :, torso, 0]
    return corners, (corners != 0).any(dim=1).all(dim=-1)


def _first(seen: Tensor) -> Tensor:
    """First frame that is True, (B, T) → (B, 1); frame 0 where none is."""
    return seen.int().argmax(dim=1, keepdim=True)


def _latest(seen: Tensor) -> Tensor:
    """For each frame the last one up to it that is True, else the first that is; (B, T) → (B, T)."""
    count = seen.shape[1]
    frames = torch.arange(count, device=seen.device)
    known = torch.where(seen, frames, frames + count).sort(dim=1).values % count  # cummax is not available in ONNX
    return known.gather(1, (seen.cumsum(dim=1) - 1).clamp(min=0))


def _upright(up: Tensor, across: Tensor, valid: Tensor) -> Tensor:
    """Rotations (B, 3, 3) that take `up` to +y and `across` to +x as nearly as can be; the identity where not valid."""
    y = F.normalize(up, dim=1)
    x = F.normalize(across - (across * y).sum(dim=1, keepdim=True) * y, dim=1)
    rotation = torch.stack([x, y, torch.linalg.cross(x, y)], dim=1)
    proper = valid & (rotation.norm(dim=2) > 0.5).all(dim=1)
    return torch.where(proper[:, None, None], rotation, torch.eye(3).to(rotation))


def _replaced(x: Tensor, positions: Tensor) -> Tensor:
    """`x` with other positions, but joints that were not seen still at zero."""
    before = x[:, : positions.shape[1]]
    return torch.cat([positions * (before != 0).any(dim=1, keepdim=True), x[:, positions.shape[1] :]], dim=1)
