"""Soft targets of standardised logits."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from kdcore import LossContext, Ramp
from kdcore.functional import softened_kl
from kdcore_losses.logit_loss import LogitLoss


class LogitStandardisation(LogitLoss):
    """Soft targets of standardised logits, so that the student need not match the teachers' range.

    .. math:: L = \\frac1K \\sum_k T^2\\, \\mathrm{KL}\\!\\left(\\mathrm{softmax}(\\tilde z_k / T) \\,\\|\\,
        \\mathrm{softmax}(\\tilde z_S / T)\\right), \\quad \\tilde z = \\frac{z - \\mathrm{mean}(z)}{\\mathrm{std}(z)}

    The value does not change when logits are shifted or scaled. It is ``soft-target`` with the option ``standardise``, which
    other losses on logits have too, and the paper's temperature. The paper weights it by 9. S. Sun et al., "Logit
    Standardization in Knowledge Distillation", CVPR 2024, https://arxiv.org/abs/2403.01427.

    Args:
        temperature: T, a number or a ramp over epochs.
    """

    def __init__(self, *, temperature: Annotated[float, Gt(0)] | Ramp = 2.0):
        super().__init__(standardise=True)
        self.temperature = temperature

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the divergence of every sample."""
        T = ctx.progress.at(self.temperature)
        return softened_kl(student, teacher, T) * T**2
