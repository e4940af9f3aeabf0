"""Soft supervision by a teacher of another modality."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from kdcore import DistillationLoss, LossContext, Needs, Ramp
from kdcore_mutual.divergence import Direction, divergence


class Divergence(DistillationLoss):
    """KL divergence between student and teachers at a temperature; reads no labels.

    .. math:: L = \\frac1K \\sum_k \\mathrm{KL}(p_S^\\tau \\| p_k^\\tau), \\quad p^\\tau = \\mathrm{softmax}(z / \\tau)

    as printed; with ``direction: hinton`` the arguments change places. F. M. Thoker, J. Gall, "Cross-Modal Knowledge
    Distillation for Action Recognition", ICIP 2019, Eqs. (1)-(2).

    Args:
        temperature: τ, a number or a ramp over epochs.
        direction: ``printed``, KL(student ‖ teacher), or ``hinton``, KL(teacher ‖ student).
        squared: Multiply by τ².
    """

    needs = Needs(teachers=1)

    def __init__(
        self,
        *,
        temperature: Annotated[float, Gt(0)] | Ramp = 10.0,
        direction: Direction = "printed",
        squared: bool = False,
    ):
        super().__init__()
        self.temperature = temperature
        self.direction: Direction = direction
        self.squared = squared
        self.temperature_power = 2 if squared else 0

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over teachers and batch."""
        tau = ctx.progress.at(self.temperature)
        terms = [divergence(ctx.student.logits, each.logits, tau, self.direction) for each in ctx.teachers.values()]
        return torch.stack(terms).mean() * (tau**2 if self.squared else 1.0)
