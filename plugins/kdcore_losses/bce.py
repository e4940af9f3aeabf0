"""Binary divergences, one for each class, for samples with several labels."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import LossContext, Ramp
from kdcore_losses.logit_loss import LogitLoss


class BinaryDivergence(LogitLoss):
    """Binary cross-entropy with a teacher's class probabilities, minus their entropy, for classes that may be true together.

    .. math:: L = \\frac1K \\sum_k T^2 \\sum_c \\mathrm{KL}\\!\\left([q^k_c, 1 - q^k_c] \\,\\|\\, [q^S_c, 1 - q^S_c]\\right),
        \\quad q_c = \\mathrm{sigmoid}(z_c / T)

    averaged over the batch. The teacher's entropy makes the value 0 for equal logits and leaves the gradient that of binary
    cross-entropy. P. Yang et al., "Multi-Label Knowledge Distillation", ICCV 2023, https://arxiv.org/abs/2308.06453.

    Args:
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    targets = ("classes", "labels")

    def __init__(self, *, temperature: Annotated[float, Gt(0)] | Ramp = 1.0, standardise: bool = False):
        super().__init__(standardise)
        if standardise:
            self.targets = ("classes",)
        self.temperature = temperature
        self.temperature_power = None if standardise else 2

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the sum over classes for every sample."""
        T = ctx.progress.at(self.temperature)
        student, teacher = student / T, teacher / T
        yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
        no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
        return (yes + no).sum(dim=1) * T**2
