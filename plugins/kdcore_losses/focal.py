"""Focal loss."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from kdcore import LossContext, Ramp
from kdcore.functional import full_precision
from kdcore_losses.label_loss import ClassWeights, LabelLoss


class Focal(LabelLoss):
    """Cross-entropy with the labels that weights well-predicted samples less.

    .. math:: L = -\\frac{1}{\\sum_b w_{y_b}} \\sum_b w_{y_b} (1 - p_b)^\\gamma \\log p_b, \\quad
        p_b = \\mathrm{softmax}(z_b)_{y_b}

    At γ = 0, this is cross-entropy. T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017,
    https://arxiv.org/abs/1708.02002, Eq. (5) with w for α, of a softmax in place of sigmoids.

    Args:
        gamma: γ, a number or a ramp over epochs.
        class_weights: Weights by class name, 1 for other classes; ``balanced`` gives class c the weight
            :math:`N / (K n_c)`, with :math:`n_c` of the N labelled training samples and K classes that have any; None for 1.
    """

    def __init__(self, *, gamma: Annotated[float, Ge(0)] | Ramp = 2.0, class_weights: ClassWeights | None = None):
        super().__init__(class_weights)
        self.gamma = gamma

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the weighted mean over the batch."""
        logits = full_precision(ctx.student.logits)
        log_p = F.log_softmax(logits, dim=1).gather(1, ctx.labels[:, None])[:, 0]
        missed = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)  # 1 - p, where a small power has a gradient
        values = -(missed ** ctx.progress.at(self.gamma)) * log_p
        weights = self.weights_for(logits)
        return self.mean(values if weights is None else weights[ctx.labels] * values, ctx)
