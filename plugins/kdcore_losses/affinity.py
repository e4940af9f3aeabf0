"""Affinity between positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import Example
from kdcore.functional import same_positions
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs, require_positions


class Affinity(FeatureLoss):
    """Compare the similarity of a sample's positions: pixels of a map, or time steps of a sequence.

    .. math:: L = \\frac1{P^2} \\sum_{ij} \\left(\\cos(y^S_i, y^S_j) - \\cos(y^T_i, y^T_j)\\right)^2

    averaged over the batch, with :math:`y_i` the channels at position i of P. T. He et al., "Knowledge Adaptation for
    Efficient Semantic Segmentation", CVPR 2019, https://arxiv.org/abs/1903.04688, the affinity term; its other term compares
    features after an autoencoder, as ``factor-transfer`` does. Memory grows with P². To match shapes, persons and frames are
    averaged, surplus position axes are averaged, and each axis is average-pooled to the shorter side's length; numbers of
    channels may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
    """

    def __init__(self, *, pairs: Pairs = DEFAULT):
        super().__init__(pairs)

    def setup(self, example: Example) -> None:
        """Check that there are positions.

        Raises:
            ValueError: If an activation has at most one position.
        """
        for _, student, teacher in self.examples(example):
            require_positions("affinity", student, teacher)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples and pairs of positions."""
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = same_positions(student, teacher)
            return F.mse_loss(_affinity(student), _affinity(teacher))


def _affinity(x: Tensor) -> Tensor:
    x = F.normalize(x.flatten(2), dim=1)
    return x.mT @ x
