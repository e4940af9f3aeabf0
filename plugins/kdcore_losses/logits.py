"""Regression onto the teachers' logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, LossContext, Needs
from kdcore.functional import full_precision


class Logits(DistillationLoss):
    """Mean squared error between logits.

    .. math:: L = \\frac1K \\sum_k \\frac1{BC} \\|z_S - z_k\\|_2^2

    J. Ba, R. Caruana, "Do Deep Nets Really Need to be Deep?", NIPS 2014.
    """

    needs = Needs(teachers=1)

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over teachers, batch and classes."""
        logits = full_precision(ctx.student.logits)
        return torch.stack([F.mse_loss(logits, full_precision(each.logits)) for each in ctx.teachers.values()]).mean()
