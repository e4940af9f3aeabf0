"""Probabilistic knowledge transfer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore.functional import cosine_similarities
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs

SMALLEST = 1e-7


class ProbabilisticTransfer(FeatureLoss):
    """Compare each sample's probabilities of picking each other sample of the batch as its neighbour.

    .. math:: L = \\frac1B \\sum_i \\sum_{j \\ne i} p^T_{j|i} \\log \\frac{p^T_{j|i}}{p^S_{j|i}}, \\quad
        p_{j|i} = \\frac{\\kappa(a_i, a_j)}{\\sum_{l \\ne i} \\kappa(a_i, a_l)},
        \\quad \\kappa(a, b) = \\tfrac12 (\\cos(a, b) + 1)

    with :math:`a_i` the features of sample i. N. Passalis, A. Tefas, "Learning Deep Representations with Probabilistic
    Knowledge Transfer", ECCV 2018, https://arxiv.org/abs/1803.10837; the authors' code also counts j = i and averages over
    pairs. A batch of one or two has no choice of neighbours: the loss is 0 there. Persons and frames are averaged, then each
    side is flattened, so shapes may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
    """

    def __init__(self, *, pairs: Pairs = DEFAULT):
        super().__init__(pairs)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples."""
        if len(student) < 3:
            return student.sum() * 0.0
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = _neighbours(student), _neighbours(teacher)
            return F.kl_div(student.log(), teacher.log(), log_target=True, reduction="sum") / len(student)


def _neighbours(x: Tensor) -> Tensor:
    """Return probabilities of the other samples, (B, B - 1)."""
    others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    similar = ((cosine_similarities(x) + 1) / 2).clamp_min(SMALLEST)[others].view(len(x), -1)
    return similar / similar.sum(dim=1, keepdim=True)
