"""Regression onto the teachers' logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdcore import EVERY_TARGET, LossContext
from kdcore_losses.logit_loss import LogitLoss


class Logits(LogitLoss):
    """Mean squared error between logits.

    .. math:: L = \\frac1K \\sum_k \\frac1{BC} \\|z_S - z_k\\|_2^2

    J. Ba, R. Caruana, "Do Deep Nets Really Need to be Deep?", NIPS 2014, https://arxiv.org/abs/1312.6184.

    Args:
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    targets = EVERY_TARGET

    def __init__(self, *, standardise: bool = False):
        super().__init__(standardise)
        if standardise:
            self.targets = ("classes",)

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the mean over batch and classes."""
        return F.mse_loss(student, teacher)
