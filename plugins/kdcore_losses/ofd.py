"""Overhauled feature distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdcore import Example
from kdcore.functional import full_precision, same_positions
from kdcore_losses.connectors import Connector
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs


class OverhaulDistillation(FeatureLoss):
    """Regression onto a teacher's activations before the ReLU, where the size of negative ones does not matter.

    .. math:: L = \\mathrm{mean} \\begin{cases} 0 & r(s) \\le t \\le 0 \\\\ (t - r(s))^2 & \\text{otherwise} \\end{cases},
        \\quad t = \\max(A_T, m_c)

    with r a 1×1 convolution and batch normalisation per teacher and pair, and :math:`m_c` the mean of the negative activations
    of channel c. B. Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019,
    https://arxiv.org/abs/1904.01866, which sums where this averages and reads the margins off the teacher's batch
    normalisation; here they are the mean over all batches so far, which checkpoints keep. To match shapes, persons and
    frames are averaged, surplus position axes are averaged, and each axis is average-pooled to the shorter side's length;
    numbers of channels may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
    """

    def __init__(self, *, pairs: Pairs = DEFAULT):
        super().__init__(pairs)
        self.connectors = nn.ModuleDict()
        self.margins = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create connector and margins for every teacher and pair."""
        for key, student, teacher in self.examples(example):
            self.connectors[key] = Connector(student.shape[1], teacher.shape[1]).to(student)
            self.margins[key] = Margin(teacher.shape[1]).to(student.device)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples, channels and positions."""
        student, teacher = same_positions(student, teacher)
        student, teacher = full_precision(self.connectors[key](student)), self.margins[key](full_precision(teacher))
        counts = (student > teacher) | (teacher > 0)
        return ((teacher - student).square() * counts).mean()


class Margin(nn.Module):
    """Clamp activations from below at the mean negative activation of their channel over all training batches.

    Args:
        channels: Number of channels.
    """

    mean: Tensor
    count: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("count", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) → the same shape."""
        if self.training:
            self._learn(x.detach())
        return torch.maximum(x, self.mean.to(x).view(-1, *(1,) * (x.ndim - 2)))

    @torch.no_grad()
    def _learn(self, x: Tensor) -> None:
        values = x.movedim(1, 0).flatten(1).to(self.mean)
        negative = values < 0
        found = negative.sum(dim=1).to(self.count)
        sums = (values * negative).sum(dim=1)
        self.count = self.count + found
        self.mean = self.mean + (sums - self.mean * found) / self.count.clamp_min(1)
