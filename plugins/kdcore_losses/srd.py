"""A simple recipe: a projector, normalisation, and a soft maximum of the differences."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from kdcore import Example
from kdcore.functional import mean_over_positions
from kdcore_losses.connectors import ChannelNorm
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs
from kdcore_losses.regressor import Regressor

SMALLEST = 1e-8


class SimpleRecipe(FeatureLoss):
    """Logarithm of the summed differences between normalised features, of which the largest count most.

    .. math:: L = \\log \\sum_{b,d} \\left|\\mathrm{BN}(W\\, s_b)_d - \\mathrm{BN}(t_b)_d\\right|^\\alpha

    with a linear projector W per teacher and pair, and batch normalisation BN without scale and shift. The value falls
    without bound as features become equal; 10⁻⁸ is added to the sum. R. Miles, K. Mikolajczyk, "Understanding the Role of the
    Projector in Knowledge Distillation", AAAI 2024, https://arxiv.org/abs/2303.11098. To match shapes, persons, frames and
    positions are averaged; numbers of channels may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        exponent: α.
    """

    def __init__(self, *, pairs: Pairs = DEFAULT, exponent: Annotated[float, Gt(1)] = 4.0):
        super().__init__(pairs)
        self.exponent = exponent
        self.projectors = nn.ModuleDict()
        self.norms = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create a projector and two normalisations for every teacher and pair."""
        for key, student, teacher in self.examples(example):
            width = teacher.shape[1]
            self.projectors[key] = Regressor(student.shape[1], width).to(student.device)
            self.norms[key] = nn.ModuleList(ChannelNorm(width, affine=False).to(student.device) for _ in range(2))

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the logarithm of the sum."""
        student, teacher = mean_over_positions(student), mean_over_positions(teacher)
        with torch.autocast(student.device.type, enabled=False):
            of_student, of_teacher = self.norms[key]  # type: ignore[misc]
            apart = of_student(self.projectors[key](student)) - of_teacher(teacher)
            return (apart.abs().pow(self.exponent).sum() + SMALLEST).log()
