"""Several teachers, weighted by their confidence."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from kdcore import LossContext, Needs, Ramp
from kdcore.functional import confidence_weights, softened_kl
from kdcore_losses.logit_loss import LogitLoss


class EntropyBased(LogitLoss):
    """Soft targets of several teachers, each weighted per sample by the entropy of its prediction; reads no labels.

    .. math:: L = \\frac1B \\sum_b \\sum_k w_{bk}\\, T^2\\, \\mathrm{KL}(p^T_{bk} \\| p^T_{bS}), \\quad
        w_{bk} = \\frac{1 - \\mathrm{softmax}_k(H(p_{bk}))}{K - 1}

    with :math:`p^T` the softmax at temperature T and H the entropy of the plain softmax p. K. Kwon et al., "Adaptive
    Knowledge Distillation Based on Entropy", ICASSP 2020, https://doi.org/10.1109/ICASSP40776.2020.9054698, for the idea that
    a teacher of lower entropy counts more; the weights have the form of H. Zhang et al., "Confidence-Aware Multi-Teacher
    Knowledge Distillation", ICASSP 2022, https://arxiv.org/abs/2201.00007, with the entropy in place of the cross-entropy.

    Args:
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does; then entropies are those of standardised logits.
    """

    needs = Needs(teachers=2)

    def __init__(self, *, temperature: Annotated[float, Gt(0)] | Ramp = 4.0, standardise: bool = False):
        super().__init__(standardise)
        self.temperature = temperature

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the weighted sum over teachers, averaged over the batch."""
        T, student = ctx.progress.at(self.temperature), self.prepare(ctx.student.logits)
        teachers = [self.prepare(each.logits) for each in ctx.teachers.values()]
        terms = torch.stack([softened_kl(student, each, T) for each in teachers])
        return (entropy_weights(torch.stack(teachers)) * terms).sum(dim=0).mean() * T**2


def entropy_weights(teachers: Tensor) -> Tensor:
    """Return weights (K, B) of at least two teachers from their logits (K, B, C): they sum to one over the teachers."""
    logs = teachers.log_softmax(dim=2)
    entropy = -(logs.exp() * logs).sum(dim=2)
    return confidence_weights(entropy)
