"""The flow of the solution procedure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from kdcore import Example, LossContext
from kdcore.functional import same_positions
from kdcore_losses.features import Comparison, FeatureLoss, Pairs
from kdcore_losses.matrix_products import squared_distance


class SolutionFlow(FeatureLoss):
    """Compare the change of activations from one tap to the next, as the correlation of their channels.

    .. math:: L = \\frac1{K (n-1)} \\sum_k \\sum_{l=1}^{n-1} \\frac1B \\sum_b \\|G^S_l - G^k_l\\|_F^2, \\quad
        G_l = \\frac1P \\sum_p A_{l,p}\\, A_{l+1,p}^\\top

    with A the channels at position p of P, for the n taps in the order given. J. Yim et al., "A Gift from Knowledge
    Distillation: Fast Optimization, Network Minimization and Transfer Learning", CVPR 2017,
    https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html. To match shapes, persons and
    frames are averaged; of two taps of one network, surplus position axes are averaged and each axis is average-pooled to the
    shorter length, where the paper takes the maximum. Positions of student and teacher may differ; their numbers of channels
    must be equal.

    Args:
        pairs: At least two pairs of (teacher's tap, student's tap), from input to output.

    Raises:
        ValueError: If there are fewer than two pairs.
    """

    def __init__(self, *, pairs: Pairs):
        super().__init__(pairs)
        if len(self.pairs) < 2:
            raise ValueError("fsp compares consecutive taps: give at least two pairs")

    def setup(self, example: Example) -> None:
        """Check the numbers of channels.

        Raises:
            ValueError: If student and teacher differ in them.
        """
        for _, student, teacher in self.examples(example):
            if student.shape[1] != teacher.shape[1]:
                shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
                raise ValueError(f"fsp needs as many channels of the student as of the teacher; {shapes} differ")

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers, flows and batch."""
        found = self.activations(ctx.student, ctx.teachers, batch=len(ctx.batch))
        return torch.stack([_distance(*flow) for flow in self._flows(found)]).mean()

    def _flows(self, found: Iterator[Comparison]) -> list[tuple[Comparison, Comparison]]:
        comparisons, n = list(found), len(self.pairs)
        return [(a, b) for at, (a, b) in enumerate(pairwise(comparisons), 1) if at % n]


def _distance(start: Comparison, stop: Comparison) -> Tensor:
    with torch.autocast(start[1].device.type, enabled=False):
        student, teacher = _positions(start[1], stop[1]), _positions(start[2], stop[2])
        return squared_distance(*student, *teacher).mean()


def _positions(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, P) and (B, C', P) activations, the first divided by P, so that their product is G."""
    start, stop = (x.flatten(2) if x.ndim > 2 else x[:, :, None] for x in same_positions(start, stop))
    return start / start.shape[2], stop
