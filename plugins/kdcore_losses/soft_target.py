"""Soft targets: the teachers' softened class probabilities."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from kdcore import DistillationLoss, LossContext, Needs, Ramp
from kdcore.functional import full_precision, softened_kl
from kdcore_losses.logit_loss import standardised


class SoftTarget(DistillationLoss):
    """Knowledge distillation as first published: match every teacher's softened probabilities.

    .. math:: L = \\frac1K \\sum_k T^2\\, \\mathrm{KL}(\\mathrm{softmax}(z_k / T) \\,\\|\\, \\mathrm{softmax}(z_S / T))

    averaged over the batch. G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531; SAKDN Eq. (23), PSKD Eq. (2).

    Args:
        temperature: T, a number or a ramp over epochs.
        squared: Multiply by T², which keeps the gradient's size independent of T.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    needs = Needs(teachers=1)

    def __init__(self, *, temperature: Annotated[float, Gt(0)] | Ramp = 4.0, squared: bool = True, standardise: bool = False):
        super().__init__()
        self.standardise = standardise
        self.temperature = temperature
        self.squared = squared
        self.temperature_power = None if standardise else 2 if squared else 0

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers and batch."""
        T = ctx.progress.at(self.temperature)
        prepare = standardised if self.standardise else full_precision
        student = prepare(ctx.student.logits)
        divergences = [softened_kl(student, prepare(teacher.logits), T) for teacher in ctx.teachers.values()]
        together = torch.stack(divergences) if len(divergences) > 1 else divergences[0]
        return together.mean() * (T**2 if self.squared else 1.0)
