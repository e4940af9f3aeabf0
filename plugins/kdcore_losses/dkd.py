"""Decoupled knowledge distillation."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import LossContext, Needs, Ramp
from kdcore.functional import softened_kl
from kdcore_losses.logit_loss import LogitLoss, other_logits


class DecoupledDistillation(LogitLoss):
    """Soft targets in two weighted parts: the probability of the true class, and the distribution over the others.

    .. math:: L = \\frac1K \\sum_k T^2
        \\left(\\alpha\\, \\mathrm{KL}(b_k \\| b_S) + \\beta\\, \\mathrm{KL}(\\hat p_k \\| \\hat p_S)\\right)

    with :math:`b` the pair (probability of the true class, of all others) and :math:`\\hat p` the softmax over the other
    classes, both at temperature T. B. Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022,
    https://arxiv.org/abs/2203.08679, Eq. (7).

    Args:
        alpha: Weight of the true class's part.
        beta: Weight of the other classes' part.
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    needs = Needs(labels=True, teachers=1)

    def __init__(
        self,
        *,
        alpha: Annotated[float, Ge(0)] = 1.0,
        beta: Annotated[float, Ge(0)] = 8.0,
        temperature: Annotated[float, Gt(0)] | Ramp = 4.0,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.temperature_power = None if standardise else 2
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the weighted sum of both parts for every sample."""
        T = ctx.progress.at(self.temperature)
        true, others = _decouple(student / T, ctx.labels)
        teacher_true, teacher_others = _decouple(teacher / T, ctx.labels)
        of_true, of_others = softened_kl(true, teacher_true), softened_kl(others, teacher_others)
        return (self.alpha * of_true + self.beta * of_others) * T**2


def _decouple(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of (true class, any other), (B, 2), and logits of the other classes, (B, C - 1)."""
    others = other_logits(logits, labels)
    true = logits.gather(1, labels[:, None])
    return F.log_softmax(torch.cat([true, others.logsumexp(1, keepdim=True)], dim=1), dim=1), others
