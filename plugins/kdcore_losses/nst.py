"""Neuron selectivity transfer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import Example
from kdcore.functional import same_positions
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs, require_positions


class NeuronSelectivity(FeatureLoss):
    """Maximum mean discrepancy between the distributions of the channels' activation patterns.

    .. math:: L = \\frac1{C_T^2} \\sum_{ij} k(f^T_i, f^T_j) + \\frac1{C_S^2} \\sum_{ij} k(f^S_i, f^S_j)
        - \\frac2{C_T C_S} \\sum_{ij} k(f^T_i, f^S_j)

    averaged over the batch, with :math:`f_i` the activations of channel i over all positions, scaled to length one, and k one
    of

    - ``linear``: :math:`x \\cdot y`,
    - ``polynomial``: :math:`(x \\cdot y)^2`,
    - ``gaussian``: :math:`\\exp(-\\|x - y\\|^2 / 2\\sigma^2)` with σ² the mean squared distance between the teacher's channels.

    Z. Huang, N. Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017,
    https://arxiv.org/abs/1707.01219; weighted there by half of 50. To match shapes, persons and frames are averaged, surplus
    position axes are averaged, and each axis is average-pooled to the shorter side's length; numbers of channels may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        kernel: k.
    """

    def __init__(self, *, pairs: Pairs = DEFAULT, kernel: Literal["linear", "polynomial", "gaussian"] = "polynomial"):
        super().__init__(pairs)
        self.kernel = kernel

    def setup(self, example: Example) -> None:
        """Check that there are positions.

        Raises:
            ValueError: If an activation has at most one position.
        """
        for _, student, teacher in self.examples(example):
            require_positions("nst", student, teacher)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples."""
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = same_positions(student, teacher)
            student, teacher = F.normalize(student.flatten(2), dim=2), F.normalize(teacher.flatten(2), dim=2)
            width = _width(teacher) if self.kernel == "gaussian" else None
            own, theirs, both = (
                self._similarity(x, y, width) for x, y in ((student, student), (teacher, teacher), (teacher, student))
            )
            return (own + theirs - 2 * both).mean()

    def _similarity(self, x: Tensor, y: Tensor, width: Tensor | None) -> Tensor:
        """(B,) means of k over all pairs of channels of (B, C, P) and (B, C', P) patterns."""
        if width is not None:
            return torch.exp(-_squared_distances(x, y) / (2 * width)).mean(dim=(1, 2))
        if self.kernel == "linear":
            return (x.mean(dim=1) * y.mean(dim=1)).sum(dim=1)
        if x.shape[2] > min(x.shape[1], y.shape[1]):
            return (x @ y.mT).square().mean(dim=(1, 2))
        # the same sum of squares, over pairs of positions, which are fewer
        return ((x.mT @ x) * (y.mT @ y)).sum(dim=(1, 2)) / (x.shape[1] * y.shape[1])


def _width(teacher: Tensor) -> Tensor:
    """(B, 1, 1) mean squared distances between a sample's channels."""
    return _squared_distances(teacher, teacher).mean(dim=(1, 2), keepdim=True).clamp_min(1e-6)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return x.square().sum(dim=2)[:, :, None] + y.square().sum(dim=2)[:, None] - 2 * x @ y.mT
