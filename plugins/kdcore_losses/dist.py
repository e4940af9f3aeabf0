"""Knowledge distillation from a stronger teacher."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import LossContext, Ramp
from kdcore_losses.logit_loss import LogitLoss


class StrongerTeacher(LogitLoss):
    """One minus the correlation with a teacher's probabilities, within each sample and within each class.

    .. math:: L = T^2 \\left(\\beta\\, \\frac1B \\sum_b \\left(1 - \\rho(p^S_{b\\cdot}, p^k_{b\\cdot})\\right)
        + \\gamma\\, \\frac1C \\sum_c \\left(1 - \\rho(p^S_{\\cdot c}, p^k_{\\cdot c})\\right)\\right)

    with :math:`\\rho` Pearson's correlation, 0 for constants, and p the softmax at temperature T. For a batch of
    one, the second part is left out. T. Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022,
    https://arxiv.org/abs/2205.10536.

    Args:
        beta: Weight of the correlation over the classes of a sample.
        gamma: Weight of the correlation over the samples of a class.
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    def __init__(
        self,
        *,
        beta: Annotated[float, Ge(0)] = 1.0,
        gamma: Annotated[float, Ge(0)] = 1.0,
        temperature: Annotated[float, Gt(0)] | Ramp = 1.0,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature
        self.temperature_power = None if standardise else 2

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the weighted sum of both parts, a scalar."""
        T = ctx.progress.at(self.temperature)
        student, teacher = (student / T).softmax(dim=1), (teacher / T).softmax(dim=1)
        value = self.beta * _decorrelation(student, teacher)
        if len(student) > 1:
            value = value + self.gamma * _decorrelation(student.T, teacher.T)
        return value * T**2


def _decorrelation(a: Tensor, b: Tensor) -> Tensor:
    """Return one minus Pearson's correlation of rows, averaged over them."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return (1 - F.cosine_similarity(a, b, dim=1, eps=1e-8)).mean()
