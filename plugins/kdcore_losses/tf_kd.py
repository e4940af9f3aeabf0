"""Teacher-free distillation from a virtual teacher."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from kdcore import DistillationLoss, LossContext, Needs, Ramp
from kdcore.functional import full_precision, softened_kl


class TeacherFree(DistillationLoss):
    """Soft targets of a virtual teacher that is always correct, with equal probability for all other classes.

    .. math:: L = \\mathrm{KL}(p^d_T \\| p^S_T), \\quad p^d(c) = \\begin{cases} a & c = y \\\\ (1 - a) / (C - 1) & c \\ne y
        \\end{cases}

    averaged over the batch, with :math:`p_T` softened by temperature T; the virtual teacher's logits are :math:`\\log p^d`.
    At T = 1 this is label smoothing. It has no teacher, so the baseline keeps the term. L. Yuan et al., "Revisiting Knowledge
    Distillation via Label Smoothing Regularization", CVPR 2020, https://arxiv.org/abs/1909.11723. The authors' code differs
    from these equations: it divides the probabilities :math:`p^d` themselves by T and does not soften the student. The
    paper's other method, learning from a copy of the student, is ``soft-target`` with that copy as the teacher.

    Args:
        correct: a, the probability of the true class.
        temperature: T, a number or a ramp over epochs.
        squared: Multiply by T², which keeps the gradient's size independent of T.
    """

    needs = Needs(labels=True, baseline=False)

    def __init__(
        self,
        *,
        correct: Annotated[float, Gt(0), Lt(1)] = 0.99,
        temperature: Annotated[float, Gt(0)] | Ramp = 20.0,
        squared: bool = False,
    ):
        super().__init__()
        self.correct = correct
        self.temperature = temperature
        self.squared = squared

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over the batch."""
        T, student = ctx.progress.at(self.temperature), full_precision(ctx.student.logits)
        wrong = (1 - self.correct) / max(1, student.shape[1] - 1)
        virtual = torch.full_like(student, wrong).scatter(1, ctx.labels[:, None], self.correct).log()
        return softened_kl(student, virtual, T).mean() * (T**2 if self.squared else 1.0)
