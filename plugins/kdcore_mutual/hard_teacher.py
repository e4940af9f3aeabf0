"""Hard supervision by a teacher of another modality."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, LossContext, Needs


class HardTeacher(DistillationLoss):
    """Cross-entropy with the class that a teacher finds likeliest; reads no labels.

    .. math:: L = \\frac1K \\sum_k \\mathrm{CE}(z_S, \\arg\\max_c z_{kc})

    F. M. Thoker, J. Gall, "Cross-Modal Knowledge Distillation for Action Recognition", ICIP 2019, Eq. (3).
    """

    needs = Needs(teachers=1)

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over teachers and batch."""
        terms = [F.cross_entropy(ctx.student.logits, teacher.logits.argmax(dim=1)) for teacher in ctx.teachers.values()]
        return torch.stack(terms).mean()
