"""Adaptive confidence: follow the teachers that are right, or else the label."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, LossContext, Needs
from kdcore_acs.weights import Gate, Weights, teacher_weights


class AdaptiveConfidence(DistillationLoss):
    """Cross-entropy with the teachers' class probabilities, each teacher weighted per sample by how right it is.

    .. math:: L_{MK} = \\frac1B \\sum_b \\sum_k w_{bk}\\, H(\\mathrm{softmax}(z_{bk}), \\mathrm{softmax}(z_{Sb}))

    Where no teacher is right, the sample's term is the cross-entropy with its label instead. J. Ni, A. H. H. Ngu, Y. Yan,
    "Progressive Cross-modal Knowledge Distillation for Human Action Recognition", ACM MM 2022, Eqs. (3)-(5); weights as in
    CA-MKD (Zhang et al., ICASSP 2022), for those printed would favour the worse teacher.

    Args:
        weights: ``confidence`` shares by cross-entropy with the label; ``select`` follows the surer teacher alone.
        gate: Which teachers count: ``none`` of them is refused; only ``correct`` ones; the same with weights summing to
            one (``correct_renorm``); or those no worse than the student, as printed (``loss_le_kd``).
    """

    needs = Needs(labels=True, teachers=1)

    def __init__(self, *, weights: Weights = "confidence", gate: Gate = "correct_renorm"):
        super().__init__()
        self.weights: Weights = weights
        self.gate: Gate = gate

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over the batch."""
        student = ctx.student.logits
        teachers = torch.stack([teacher.logits for teacher in ctx.teachers.values()])
        with torch.no_grad():
            weights, lost = teacher_weights(teachers, student, ctx.labels, self.weights, self.gate)
        soft = -(teachers.softmax(dim=2) * F.log_softmax(student, dim=1)).sum(dim=2)
        return torch.where(lost, F.cross_entropy(student, ctx.labels, reduction="none"), (weights * soft).sum(dim=0)).mean()
