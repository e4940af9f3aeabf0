"""Attention transfer: maps of activation strength."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import Example
from kdcore.functional import same_positions, unit_rows
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs, require_positions


class AttentionTransfer(FeatureLoss):
    """Compare maps of activation strength, regardless of individual channels.

    .. math:: L = \\mathrm{mean} \\left(\\frac{Q_S}{\\|Q_S\\|_2} - \\frac{Q_T}{\\|Q_T\\|_2}\\right)^2, \\quad
        Q = \\frac1C \\sum_c |A_c|^p

    per sample over positions. S. Zagoruyko, N. Komodakis, "Paying More Attention to Attention", ICLR 2017,
    https://arxiv.org/abs/1612.03928, Eq. (2). To match shapes, persons and frames are averaged, surplus position axes are
    averaged, and each axis is average-pooled to the shorter side's length, all before the maps are taken; numbers of channels
    may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        power: p.
    """

    def __init__(self, *, pairs: Pairs = DEFAULT, power: Annotated[float, Gt(0)] = 2.0):
        super().__init__(pairs)
        self.power = power

    def setup(self, example: Example) -> None:
        """Check that activations have positions.

        Raises:
            ValueError: If an activation has at most one position.
        """
        for _, student, teacher in self.examples(example):
            require_positions("attention-transfer", student, teacher)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples and positions."""
        student, teacher = (self._attention(x) for x in same_positions(student, teacher))
        return F.mse_loss(student, teacher)

    def _attention(self, x: Tensor) -> Tensor:
        return unit_rows(x.abs().pow(self.power).mean(dim=1))
