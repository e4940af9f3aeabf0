"""Kullback-Leibler divergence between softened logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) ‖ softmax(student / T)) of every sample.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C).
        temperature: T.

    Returns:
        (B,), at least zero.
    """
    student, teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(student, teacher, log_target=True, reduction="none").sum(dim=1)
