"""On-the-fly selection of the samples that modalities agree on."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from kdcore import LossContext, Needs, Ramp
from kdcore_losses.divergence import soft_divergence
from kdcore_losses.logit_loss import LogitLoss
from kdcore_losses.nontarget import other_logits

BLOCK = 64
"""Classes compared with all others at once."""


class SelectiveDistillation(LogitLoss):
    """Soft targets over the classes other than the true one, for those samples whose classes both modalities rank alike.

    .. math:: L = \\frac{T^2}B \\sum_b [\\tau_b > \\omega]\\, \\mathrm{KL}(\\hat p^k_b \\| \\hat p^S_b)

    with :math:`\\hat p` the softmax at temperature T over the classes other than the true one, and :math:`\\tau_b` Kendall's
    rank correlation of all logits of a sample. This is the selective term of C²KD; that its teacher learns from the student
    in turn is the recipe's to say. Its proxies, extra heads on both networks' features, are left out, and the true class is
    left out where the authors' code sets its logit to 0. Where no sample is selected the value is 0. F. Huo et al., "C2KD:
    Bridging the Modality Gap for Cross-Modal Knowledge Distillation", CVPR 2024, https://github.com/huofushuo/C2KD.

    Args:
        threshold: ω, the rank correlation above which a sample is learnt from.
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    needs = Needs(labels=True, teachers=1)

    def __init__(
        self,
        *,
        threshold: Annotated[float, Ge(-1), Lt(1)] = 0.0,
        temperature: Annotated[float, Gt(0)] | Ramp = 1.0,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.threshold = threshold
        self.temperature = temperature
        self.temperature_power = None if standardise else 2

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """The divergence of every sample, 0 for those not selected."""
        T = ctx.progress.at(self.temperature)
        selected = rank_correlation(student.detach(), teacher) > self.threshold
        divergence = soft_divergence(other_logits(student, ctx.labels), other_logits(teacher, ctx.labels), T)
        return divergence * selected * T**2


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Kendall's tau-b of the rows of two matrices (B, C): (B,), 0 for a constant row.

    Classes are compared with all others a block at a time, so that memory grows with B times C.
    """
    agreement, pairs_a, pairs_b = (torch.zeros(len(a), dtype=a.dtype, device=a.device) for _ in range(3))
    for some_a, some_b in zip(a.split(BLOCK, dim=1), b.split(BLOCK, dim=1), strict=True):
        of_a, of_b = torch.sign(some_a[:, :, None] - a[:, None]), torch.sign(some_b[:, :, None] - b[:, None])
        agreement += (of_a * of_b).sum(dim=(1, 2))
        pairs_a += of_a.abs().sum(dim=(1, 2))
        pairs_b += of_b.abs().sum(dim=(1, 2))
    return agreement / (pairs_a.sqrt() * pairs_b.sqrt()).clamp_min(1.0)
