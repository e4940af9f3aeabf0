"""Multi-scale temporal relations between the frame features of a clip, as in TRN."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor, nn


class MultiScaleRelations(nn.Module):
    r"""Sum class scores of ordered tuples of frames, over tuples of every length.

    .. math:: z = \sum_{k=2}^{S} \sum_{r \in R_k} h_k([f_{r_1}, \dots, f_{r_k}])

    with :math:`h_k` a two-layer perceptron (behind a ReLU) and :math:`R_k` a few of the increasing k-tuples of frames:
    random ones while training, else evenly spaced ones in lexicographic order. Shapes: (B, S, F) → (B, num_classes).

    Args:
        frames: S, at least 2.
        features: F.
        num_classes: Number of classes.
        hidden: Units of each perceptron's hidden layer.
        relations: Tuples of each length; all of them where there are fewer.

    Raises:
        ValueError: If there is only one frame.

    Source: Zhou et al., Temporal Relational Reasoning in Videos (ECCV 2018, https://arxiv.org/abs/1711.08496), Eqs (1)-(3).
    """

    def __init__(self, frames: int, features: int, num_classes: int, hidden: int = 256, relations: int = 3):
        super().__init__()
        if frames < 2:
            raise ValueError(f"temporal relations need clips of at least 2 frames, not {frames}")
        self.frames = frames
        self.relations = relations
        self.lengths = range(frames, 1, -1)
        self.perceptrons = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(length * features, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
            for length in self.lengths
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of frame features (B, S, F)."""
        logits = [
            perceptron(x[:, self.chosen(length, x.device)].flatten(2)).sum(1)
            for length, perceptron in zip(self.lengths, self.perceptrons, strict=True)
        ]
        return torch.stack(logits).sum(0)

    def chosen(self, length: int, device: torch.device | None = None) -> Tensor:
        """Return the tuples of this length to use, (relations, length)."""
        total = comb(self.frames, length)
        count = min(self.relations, total)
        ranks = _distinct(count, total) if self.training else [-(-i * total // count) for i in range(count)]
        return torch.tensor([unranked(rank, self.frames, length) for rank in ranks], device=device)


def unranked(rank: int, frames: int, length: int) -> list[int]:
    """Return the increasing `length`-tuple of ``range(frames)`` that comes after `rank` others in lexicographic order."""
    chosen: list[int] = []
    frame = 0
    while len(chosen) < length:
        here = comb(frames - frame - 1, length - len(chosen) - 1)
        if rank < here:
            chosen.append(frame)
        else:
            rank -= here
        frame += 1
    return chosen


def _distinct(count: int, total: int) -> list[int]:
    """`count` different random numbers below `total`, which may be too large to shuffle."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[int(torch.randint(total, ()))] = None
    return list(found)
