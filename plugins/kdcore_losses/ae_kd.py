"""Adaptive ensemble of teachers, weighted so that their gradients agree."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from kdcore import LossContext, Needs, Ramp
from kdcore.functional import softened_kl
from kdcore.shares import shortest_shares
from kdcore_losses.logit_loss import LogitLoss


class AdaptiveEnsemble(LogitLoss):
    """Soft targets of several teachers, weighted for each batch to give a descent direction for all of them.

    .. math:: L = \\frac1B \\sum_b \\sum_k \\alpha_k\\, T^2\\, \\mathrm{KL}(p^k_b \\| p^S_b), \\quad
        \\alpha = \\arg\\min_\\alpha \\Big\\|\\sum_k \\alpha_k g_k\\Big\\|^2, \\quad 0 \\le \\alpha_k \\le C,
        \\quad \\sum_k \\alpha_k = 1

    with p the softmax at temperature T and :math:`g_k = \\frac{T}{B} \\sum_b (p^S_b - p^k_b)`, the gradient of teacher k's
    divergence with respect to the student's logits, averaged over the batch. No gradient flows through the weights. S. Du et
    al., "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space", NeurIPS 2020,
    https://proceedings.neurips.cc/paper/2020/hash/91c77393975889bd08f301c9e13a44b7-Abstract.html, for logits, as in the
    authors' code. For other terms, see `gradients` and `largest_share` of `kdcore.Training`.

    Args:
        largest_share: C, the largest weight of a teacher. At 1, teachers that disagree slow the student down most; at 1 / K or
            less, all K teachers have the same weight.
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does; then gradients are those of standardised logits.
    """

    needs = Needs(teachers=2)

    def __init__(
        self,
        *,
        largest_share: Annotated[float, Gt(0), Le(1)] = 0.6,
        temperature: Annotated[float, Gt(0)] | Ramp = 4.0,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.largest_share = largest_share
        self.temperature = temperature
        self.temperature_power = None if standardise else 2

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the weighted sum over teachers, averaged over the batch."""
        T, student = ctx.progress.at(self.temperature), self.prepare(ctx.student.logits)
        teachers = [self.prepare(each.logits) for each in ctx.teachers.values()]
        terms = torch.stack([softened_kl(student, each, T).mean() for each in teachers])
        with torch.no_grad():
            probabilities = (student / T).softmax(dim=1)
            gradients = torch.stack([(probabilities - (each / T).softmax(dim=1)).mean(dim=0) for each in teachers])
        weights = shortest_shares(gradients, self.largest_share).to(terms)
        return (weights * terms).sum() * T**2
