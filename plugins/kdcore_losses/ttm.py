"""Transformed teacher matching."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from kdcore import LossContext, Ramp
from kdcore.functional import softened_kl
from kdcore_losses.logit_loss import LogitLoss


class TransformedTeacher(LogitLoss):
    """Match a teacher's softened probabilities with the student's unsoftened ones: only the teacher has a temperature.

    .. math:: L = \\frac1B \\sum_b u_b\\, \\mathrm{KL}(p^k_{T,b} \\| p^S_b), \\quad
        p^k_T = \\mathrm{softmax}(z_k / T), \\quad p^S = \\mathrm{softmax}(z_S)

    with :math:`u = 1`, or :math:`u = \\sum_c (p^k_c)^{1/T}`, which grows with the smoothness of the teacher's plain
    probabilities, where weighted. K. Zheng, E.-H. Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR
    2024, https://arxiv.org/abs/2402.11148; the paper tunes T for each pair of networks.

    Args:
        temperature: T, a number or a ramp over epochs.
        weighted: Weight each sample by u, which the paper calls WTTM.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Gt(0)] | Ramp = 4.0,
        weighted: bool = False,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.temperature = temperature
        self.weighted = weighted

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the weighted divergence of every sample."""
        T = ctx.progress.at(self.temperature)
        divergence = softened_kl(student, teacher / T, 1.0)
        if not self.weighted:
            return divergence
        return divergence * (teacher.log_softmax(dim=1) / T).exp().sum(dim=1)
