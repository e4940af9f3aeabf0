"""The base class of losses on logits, and the logits without that of the true class."""

from __future__ import annotations

import torch
from torch import Tensor

from kdcore import DistillationLoss, LossContext, Needs
from kdcore.functional import full_precision, in_full_precision

EPSILON = 1e-7
"""Added to a standard deviation, as in the code of Sun et al."""


class LogitLoss(DistillationLoss):
    """Base class of losses that compare the student's logits with each teacher's; the mean over teachers and batch.

    Subclasses implement one comparison in `compare`. Half-precision logits are compared in single precision.

    Args:
        standardise: Bring each sample's logits to mean 0 and standard deviation 1 first, the student's and the teachers'.
    """

    needs = Needs(teachers=1)

    def __init__(self, standardise: bool = False):
        super().__init__()
        self.standardise = standardise

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """One comparison of logits (B, C): a scalar, or (B,)."""
        raise NotImplementedError

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers and batch."""
        student = self.prepare(ctx.student.logits)
        with torch.autocast(student.device.type, enabled=False):
            terms = [self.compare(student, self.prepare(each.logits), ctx).mean() for each in ctx.teachers.values()]
            return torch.stack(terms).mean()

    def prepare(self, logits: Tensor) -> Tensor:
        """Return logits as they are compared."""
        logits = full_precision(logits)
        return standardised(logits) if self.standardise else logits


@in_full_precision
def standardised(logits: Tensor) -> Tensor:
    """Return logits (B, C), shifted and scaled to mean 0 and standard deviation 1 per sample.

    S. Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, https://arxiv.org/abs/2403.01427.
    """
    return (logits - logits.mean(dim=1, keepdim=True)) / (logits.std(dim=1, keepdim=True) + EPSILON)


def other_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits, (B, C - 1), of the classes other than each sample's label (B,), in order."""
    classes = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, classes + (classes >= labels[:, None]).long())
