"""The geometric mean of several teachers."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from kdcore import LossContext, Needs, Ramp
from kdcore.functional import softened_kl
from kdcore_losses.logit_loss import LogitLoss


class AveragedTeachers(LogitLoss):
    """Soft targets from the mean of all teachers' logits, the geometric mean of their probabilities.

    .. math:: L = T^2\\, \\mathrm{KL}\\!\\left(\\mathrm{softmax}(\\bar z / T) \\,\\|\\, \\mathrm{softmax}(z_S / T)\\right),
        \\quad \\bar z = \\frac1K \\sum_k z_k

    averaged over the batch. The arithmetic mean of probabilities needs no loss of its own: its gradient is that of
    ``soft-target``. G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531, section 1 ("an arithmetic or geometric mean of their individual predictive
    distributions").

    Args:
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does, each teacher's on its own.
    """

    needs = Needs(teachers=2)

    def __init__(self, *, temperature: Annotated[float, Gt(0)] | Ramp = 4.0, standardise: bool = False):
        super().__init__(standardise)
        self.temperature = temperature
        self.temperature_power = None if standardise else 2

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over the batch."""
        T = ctx.progress.at(self.temperature)
        teacher = torch.stack([self.prepare(each.logits) for each in ctx.teachers.values()]).mean(dim=0)
        return softened_kl(self.prepare(ctx.student.logits), teacher, T).mean() * T**2
