"""Normalised knowledge distillation."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import LossContext, Needs, Ramp
from kdcore_losses.logit_loss import LogitLoss, other_logits


class NormalisedDistillation(LogitLoss):
    """Cross-entropy with a teacher in two parts: the true class, and the other classes with probabilities that sum to one.

    .. math:: L = -p^k_y \\log p^S_y - \\gamma\\, T^2 \\sum_{c \\ne y} \\hat p^k_c \\log \\hat p^S_c

    averaged over the batch, with p the plain softmax and :math:`\\hat p` the softmax at temperature T over the classes other
    than the true class y. Z. Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach
    with Normalized Loss and Customized Soft Labels", ICCV 2023, https://arxiv.org/abs/2303.13005.

    Args:
        gamma: γ, weight of the other classes.
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    needs = Needs(labels=True, teachers=1)

    def __init__(
        self,
        *,
        gamma: Annotated[float, Ge(0)] = 1.5,
        temperature: Annotated[float, Gt(0)] | Ramp = 1.0,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.gamma = gamma
        self.temperature = temperature

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the weighted sum of both parts for every sample."""
        T, y = ctx.progress.at(self.temperature), ctx.labels[:, None]
        true = -(teacher.softmax(dim=1).gather(1, y) * F.log_softmax(student, dim=1).gather(1, y))[:, 0]
        others, of_teacher = other_logits(student, ctx.labels) / T, other_logits(teacher, ctx.labels) / T
        rest = -(of_teacher.softmax(dim=1) * F.log_softmax(others, dim=1)).sum(dim=1)
        return true + self.gamma * T**2 * rest
