"""Consistency with a teacher's class probabilities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, LossContext, Needs
from kdcore.functional import full_precision


class Consistency(DistillationLoss):
    """Mean squared difference between the student's and each teacher's class probabilities; reads no labels.

    .. math:: L = \\frac1K \\sum_k \\frac1C \\| \\mathrm{softmax}(z_S) - \\mathrm{softmax}(z_k) \\|^2

    averaged over the batch. With a moving average of the student as the teacher this is Mean Teacher's consistency cost.
    A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017, https://arxiv.org/abs/1703.01780.
    """

    needs = Needs(teachers=1)

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers, classes and batch."""
        student, *teachers = (full_precision(each.logits).softmax(dim=1) for each in (ctx.student, *ctx.teachers.values()))
        return torch.stack([F.mse_loss(student, each) for each in teachers]).mean()
