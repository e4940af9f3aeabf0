"""Jensen-Shannon divergence between softened probabilities."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import LossContext, Ramp
from kdcore_losses.logit_loss import LogitLoss


class JensenShannon(LogitLoss):
    """Jensen-Shannon divergence: symmetric in student and teacher, and never above log 2.

    .. math:: L = \\frac1K \\sum_k \\frac{T^2}2 \\left(\\mathrm{KL}(p_k \\| m) + \\mathrm{KL}(p_S \\| m)\\right), \\quad
        m = \\tfrac12 (p_k + p_S)

    averaged over the batch, with p the softmax at temperature T. J. Lin, "Divergence Measures Based on the Shannon Entropy",
    IEEE Transactions on Information Theory 37, 1991, https://doi.org/10.1109/18.61115.

    Args:
        temperature: T, a number or a ramp over epochs.
        squared: Multiply by T², which keeps the gradient's size independent of T.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Gt(0)] | Ramp = 4.0,
        squared: bool = True,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.temperature = temperature
        self.squared = squared
        self.temperature_power = None if standardise else 2 if squared else 0

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the divergence of every sample."""
        T = ctx.progress.at(self.temperature)
        student, teacher = F.log_softmax(student / T, dim=1), F.log_softmax(teacher / T, dim=1)
        middle = torch.logaddexp(student, teacher) - math.log(2)
        halves = [F.kl_div(middle, each, log_target=True, reduction="none").sum(dim=1) for each in (student, teacher)]
        return (halves[0] + halves[1]) / 2 * (T**2 if self.squared else 1.0)
