"""How much each teacher is to be believed, sample by sample."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Literal["confidence", "select"]
Gate = Literal["none", "correct", "correct_renorm", "loss_le_kd"]


def teacher_weights(
    teachers: Tensor, student: Tensor, labels: Tensor, weights: Weights = "confidence", gate: Gate = "correct_renorm"
) -> tuple[Tensor, Tensor]:
    """Weights of the teachers, and the samples of which no teacher is to be believed.

    .. math:: w_k = \\frac{1 - \\mathrm{softmax}_k(\\mathrm{CE}(z_k, y))}{K - 1}

    for ``confidence`` (1 for a single teacher); ``select`` gives all weight to the admitted teacher with the least
    cross-entropy, the first of equals. `gate` says which teachers are admitted: all; those whose prediction is correct,
    with the other teachers' weights lost or (``correct_renorm``) shared out; or those whose cross-entropy is at most the
    student's own, which is how the condition printed in PSKD Eq. (4) is read.

    Args:
        teachers: Logits (K, B, C).
        student: Logits (B, C).
        labels: (B,).
        weights: How weights are made.
        gate: Who is admitted.

    Returns:
        Weights (K, B), and (B,) bool: no teacher is admitted or, for ``none``, none is correct.
    """
    errors = torch.stack([F.cross_entropy(logits, labels, reduction="none") for logits in teachers])
    correct = teachers.argmax(dim=2) == labels
    if gate == "loss_le_kd":
        admitted = errors <= F.cross_entropy(student, labels, reduction="none")
    else:
        admitted = torch.ones_like(correct) if gate == "none" else correct
    lost = ~(correct if gate == "none" else admitted).any(dim=0)
    if weights == "select":
        best = errors.masked_fill(~admitted, torch.inf).argmin(dim=0)
        return F.one_hot(best, len(teachers)).T.to(errors) * admitted, lost
    confidence = _confidence(errors) * admitted
    if gate == "correct_renorm":
        confidence = confidence / confidence.sum(dim=0).where(~lost, 1.0)
    return confidence, lost


def _confidence(errors: Tensor) -> Tensor:
    return (1 - errors.softmax(dim=0)) / (len(errors) - 1) if len(errors) > 1 else torch.ones_like(errors)
