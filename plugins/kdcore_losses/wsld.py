"""Weighted soft labels."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import LossContext, Needs, Ramp
from kdcore_losses.logit_loss import LogitLoss


class WeightedSoftLabels(LogitLoss):
    """Soft targets weighted per sample: less where the student already predicts the label better than the teacher.

    .. math:: L = -\\frac1B \\sum_b w_b\\, T^2 \\sum_c p^k_{bc} \\log p^S_{bc}, \\quad
        w_b = 1 - \\exp\\!\\left(-\\frac{\\mathrm{CE}(z^S_b, y_b)}{\\mathrm{CE}(z^k_b, y_b)}\\right)

    with p the softmax at temperature T; no gradient flows through w. H. Zhou et al., "Rethinking Soft Labels for Knowledge
    Distillation: A Bias-Variance Tradeoff Perspective", ICLR 2021, https://arxiv.org/abs/2102.00650; there weighted by 2.5.

    Args:
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does, for the soft targets and for w.
    """

    needs = Needs(labels=True, teachers=1)

    def __init__(self, *, temperature: Annotated[float, Gt(0)] | Ramp = 2.0, standardise: bool = False):
        super().__init__(standardise)
        self.temperature = temperature

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the weighted cross-entropy of every sample."""
        T = ctx.progress.at(self.temperature)
        with torch.no_grad():
            errors = [F.cross_entropy(each, ctx.labels, reduction="none") for each in (student, teacher)]
            weights = 1 - torch.exp(-errors[0] / (errors[1] + 1e-7))
        soft = (teacher / T).softmax(dim=1)
        return -weights * T**2 * (soft * F.log_softmax(student / T, dim=1)).sum(dim=1)
