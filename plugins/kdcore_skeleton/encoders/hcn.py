"""Hierarchical co-occurrence networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Encoder, Modality
from kdcore_skeleton.encoders.graph_encoder import Count, Share
from kdcore_skeleton.layouts import require_skeleton


class Hcn(Encoder):
    """HCN: convolutions over time first, then over all joints at once, on positions and on motion.

    Li, Zhong, Xie, Pu: Co-occurrence Feature Learning from Skeleton Data for Action Recognition and Detection with
    Hierarchical Aggregation, IJCAI 2018, https://arxiv.org/abs/1804.06055. It needs no skeleton layout. Persons share all
    weights; the maximum over persons is used.

    Stages: ``branches`` (B · M, 2 width, T / 4, P / 4), ``conv5``, ``conv6``, ``persons`` (B, features), ``fc0``, ``relu``,
    ``dropout``, ``fc``.

    Args:
        num_classes: Number of classes.
        in_shape: (C, T, V, M), any number of channels, joints and persons; the window T at least 16 frames.
        spec: Description of the input.
        width: Channels of the first convolution.
        point_channels: P, the channels of the second convolution, at least 16: the length T of the window by default, as in
            the published code, where the paper has 32.
        embedding: Width of the layer ``fc0`` before the classifier, which HCN always has.
        dropout: Dropout probability of channels.

    Raises:
        ValueError: If the window is too short or the input is not a skeleton.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        spec: Modality | None = None,
        *,
        width: Annotated[int, Ge(2)] = 64,
        point_channels: Annotated[int, Ge(16)] | None = None,
        embedding: Count = 512,
        dropout: Share = 0.5,
    ):
        super().__init__()
        require_skeleton(in_shape, None, spec)
        if in_shape[1] < 16:
            raise ValueError(f"hcn reads (channel, time, joint, person) of at least 16 frames, not {tuple(in_shape)}")
        channels, frames, joints, persons = in_shape
        points = point_channels or frames
        self.persons = persons
        self.position = _branch(channels, joints, width, points, dropout)
        self.motion = _branch(channels, joints, width, points, dropout)
        self.conv5 = _co_occurrence(2 * width, 2 * width, nn.ReLU(), nn.Dropout2d(dropout))
        self.conv6 = _co_occurrence(2 * width, 4 * width, nn.ReLU(), nn.Dropout2d(dropout))
        self.fc0 = nn.Linear(4 * width * (frames // 16) * (points // 16), embedding)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(embedding, num_classes)
        for layer in self.modules():  # nothing normalises between layers: PyTorch's own start would shrink signals to nothing
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer is not self.fc:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Return the layers in order; both branches and all persons run in the first."""
        after = {"fc0": self.fc0, "relu": self.relu, "dropout": self.dropout, "fc": self.fc}
        return {
            "branches": self.branches,
            "conv5": self.conv5,
            "conv6": self.conv6,
            "persons": self.strongest,
            **after,
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of skeletons (B, C, T, V, M)."""
        for stage in self.stages().values():
            x = stage(x)
        return x

    def branches(self, x: Tensor) -> Tensor:
        """Return features of positions and of motion, (B, C, T, V, M) → (B · M, 2 width, T / 4, P / 4)."""
        position = x.permute(0, 4, 1, 2, 3).flatten(0, 1)
        return torch.cat([self.position(position), self.motion(motion(position))], dim=1)

    def strongest(self, x: Tensor) -> Tensor:
        """Return the maximum over persons, (B · M, …) → (B, features)."""
        return x.flatten(1).unflatten(0, (-1, self.persons)).amax(dim=1)


class SwapJoints(nn.Module):
    """Turn joints into channels, (N, P, T, V) → (N, V, T, P), so that the next convolution sees all of them."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the same numbers with two axes swapped."""
        return x.transpose(1, 3)


def motion(x: Tensor) -> Tensor:
    """Return differences of successive frames, stretched linearly back to T frames; (N, C, T, V)."""
    return F.interpolate(x.diff(dim=2), size=x.shape[2:], mode="bilinear", align_corners=False)


def _branch(channels: int, joints: int, width: int, points: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1),
        nn.ReLU(),
        nn.Conv2d(width, points, (3, 1), padding=(1, 0)),
        SwapJoints(),
        _co_occurrence(joints, width // 2),
        _co_occurrence(width // 2, width, nn.Dropout2d(dropout)),
    )


def _co_occurrence(channels: int, out_channels: int, *between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out_channels, 3, padding=1), *between, nn.MaxPool2d(2))
