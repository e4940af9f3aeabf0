"""Knowledge review: each level of the student learns from the teacher's lower levels too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Example, LossContext
from kdcore.functional import adaptive_mean, same_positions
from kdcore_losses.connectors import ChannelNorm, convolution
from kdcore_losses.features import Comparison, FeatureLoss, Pairs
from kdcore_losses.regressor import Regressor

POOLED = (4, 2, 1)


class KnowledgeReview(FeatureLoss):
    """Regression onto the teacher's activations level by level, where each of the student's levels is fused with deeper ones.

    .. math:: L = \\frac1K \\sum_k \\sum_{l=1}^n \\mathrm{HCL}(F_l, A^k_l), \\quad (F_l, x_l) = \\mathrm{ABF}(A^S_l, x_{l+1}),
        \\quad \\mathrm{HCL}(a, b) = \\frac{\\sum_i 2^{-i}\\, \\mathrm{mean}\\, (\\mathrm{pool}_i(a)
        - \\mathrm{pool}_i(b))^2}{\\sum_i 2^{-i}}

    Attention-based fusion (ABF) weights a level and the enlarged deeper one, position by position, and brings the sum to the
    teacher's channels; the hierarchical context loss (HCL) compares whole activations and their averages at 4, 2 and 1
    positions per axis. P. Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021,
    https://arxiv.org/abs/2104.09044. To match shapes, persons and frames are averaged; of student and teacher, surplus
    position axes are averaged and each axis is average-pooled to the shorter side's length; numbers of channels may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap), from input to output.
        width: Channels inside a fusion; by default those of the student's last tap, but at most 512.
    """

    def __init__(self, *, pairs: Pairs, width: Annotated[int, Ge(1)] | None = None):
        super().__init__(pairs)
        self.width = width
        self.fusions = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create a fusion for every teacher and pair.

        Raises:
            ValueError: If activations have more than three position axes.
        """
        found = list(self.examples(example))
        width = self.width or min(512, found[-1][1].shape[1])
        axes = max(student.ndim for _, student, _ in found) - 2
        for number, (key, student, teacher) in enumerate(found):
            deepest = number % len(self.pairs) == len(self.pairs) - 1
            self.fusions[key] = Fusion(student.shape[1], width, teacher.shape[1], axes, not deepest).to(student.device)

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the sum over levels, averaged over teachers."""
        found, n = list(self.activations(ctx.student, ctx.teachers, batch=len(ctx.batch))), len(self.pairs)
        terms = [self._review(found[first : first + n]) for first in range(0, len(found), n)]
        return torch.stack(terms).mean()

    def _review(self, levels: Sequence[Comparison]) -> Tensor:
        axes = max(student.ndim for _, student, _ in levels) - 2
        deeper, terms = None, []
        for key, student, teacher in reversed(levels):
            student = student.reshape(*student.shape, *(1,) * (axes + 2 - student.ndim))
            fused, deeper = self.fusions[key](student, deeper)
            terms.append(context_loss(*same_positions(fused, teacher)))
        return torch.stack(terms).sum()


class Fusion(nn.Module):
    """Attention-based fusion of one level with the deeper ones.

    Args:
        inputs: Channels of the student's level.
        width: Channels of the feature that is passed on.
        outputs: Channels of the teacher's level.
        axes: Number of position axes.
        fuse: Whether there is a deeper level.
    """

    def __init__(self, inputs: int, width: int, outputs: int, axes: int, fuse: bool):
        super().__init__()
        self.narrow = nn.Sequential(Regressor(inputs, width), ChannelNorm(width))
        self.attention = Regressor(2 * width, 2) if fuse else None
        self.widen = nn.Sequential(convolution(width, outputs, axes, bias=False), ChannelNorm(outputs))

    def forward(self, x: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the feature that is compared with the teacher's level, and the one that is passed on."""
        x = self.narrow(x)
        if self.attention is not None and deeper is not None:
            for axis in range(2, x.ndim):
                deeper = stretch(deeper, axis, x.shape[axis])
            weights = self.attention(torch.cat([x, deeper], dim=1)).sigmoid()
            x = x * weights[:, :1] + deeper * weights[:, 1:]
        return self.widen(x), x


def stretch(x: Tensor, axis: int, length: int) -> Tensor:
    """Resize one axis by nearest neighbours, as a product with a matrix, whose gradient is deterministic on CUDA."""
    size = x.shape[axis]
    if size == length:
        return x
    source = torch.arange(length, device=x.device) * size // length
    chosen = (torch.arange(size, device=x.device)[:, None] == source).to(x.dtype)
    return (x.movedim(axis, -1) @ chosen).movedim(-1, axis)


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the hierarchical context loss of activations (B, C, …) of one shape."""
    longest = max(student.shape[2:], default=1)
    value, weight, total = F.mse_loss(student, teacher), 1.0, 1.0
    for length in POOLED:
        if length < longest:
            weight /= 2
            total += weight
            value = value + weight * F.mse_loss(_pooled(student, length), _pooled(teacher, length))
    return value / total


def _pooled(x: Tensor, length: int) -> Tensor:
    for axis in range(2, x.ndim):
        x = adaptive_mean(x, axis, min(length, x.shape[axis]))
    return x
