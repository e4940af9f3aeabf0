"""Multi-level logit distillation."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor

from kdcore import LossContext
from kdcore.functional import softened_kl
from kdcore_losses.logit_loss import LogitLoss

Temperatures = Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)]


class MultiLevelLogits(LogitLoss):
    """Match probabilities at several temperatures on three levels: samples, pairs of samples, and pairs of classes.

    .. math:: L = \\sum_T \\left(\\lambda_i\\, \\frac{T^2}{B} \\sum_b \\mathrm{KL}(p^k_b \\| p^S_b)
        + \\frac{\\lambda_b}{B} \\|P_S P_S^\\top - P_k P_k^\\top\\|_F^2
        + \\frac{\\lambda_c}{C} \\|P_S^\\top P_S - P_k^\\top P_k\\|_F^2\\right)

    with P (B, C) the softmax at temperature T. Y. Jin, J. Wang, D. Lin, "Multi-Level Logit Distillation", CVPR 2023,
    https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html. The authors'
    code also omits the half of the samples and classes of which the teacher is more certain; the equations, and this loss, do
    not.

    Args:
        temperatures: Every T.
        instances: λ_i.
        batch: λ_b.
        classes: λ_c.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    def __init__(
        self,
        *,
        temperatures: Temperatures = (2.0, 3.0, 4.0, 5.0, 6.0),
        instances: Annotated[float, Ge(0)] = 1.0,
        batch: Annotated[float, Ge(0)] = 1.0,
        classes: Annotated[float, Ge(0)] = 1.0,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.temperatures = tuple(temperatures)
        self.instances = instances
        self.batch = batch
        self.classes = classes

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the sum over temperatures, a scalar."""
        return torch.stack([self._at(student, teacher, T) for T in self.temperatures]).sum()

    def _at(self, student: Tensor, teacher: Tensor, T: float) -> Tensor:
        samples = softened_kl(student, teacher, T).mean() * T**2
        student, teacher = (student / T).softmax(dim=1), (teacher / T).softmax(dim=1)
        pairs = (student @ student.T - teacher @ teacher.T).square().sum() / len(student)
        classes = (student.T @ student - teacher.T @ teacher).square().sum() / student.shape[1]
        return self.instances * samples + self.batch * pairs + self.classes * classes
