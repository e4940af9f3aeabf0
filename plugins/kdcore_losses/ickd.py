"""Inter-channel correlation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdcore import Example
from kdcore.functional import full_precision
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs, require_positions
from kdcore_losses.matrix_products import squared_distance
from kdcore_losses.regressor import Regressor


class InterChannelCorrelation(FeatureLoss):
    """Compare the correlation of channels, which reflects how diverse they are.

    .. math:: L = \\frac1{C^2} \\|\\tilde G_S - \\tilde G_T\\|_F^2, \\quad G = F F^\\top

    averaged over the batch, with F (C, positions) and :math:`\\tilde G` the matrix with rows of length one, as in the authors'
    code. L. Liu et al., "Exploring Inter-Channel Correlation for Diversity-Preserved Knowledge Distillation", ICCV 2021,
    https://arxiv.org/abs/2202.03680. To match shapes, persons and frames are averaged, and a regressor translates where the
    numbers of channels differ; positions need not agree, but each side needs two.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
    """

    def __init__(self, *, pairs: Pairs = DEFAULT):
        super().__init__(pairs)
        self.regressors = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create a regressor for every teacher and pair whose channels differ.

        Raises:
            ValueError: If an activation has at most one position.
        """
        for key, student, teacher in self.examples(example):
            require_positions("ickd", student, teacher)
            if student.shape[1] != teacher.shape[1]:
                self.regressors[key] = Regressor(student.shape[1], teacher.shape[1]).to(student)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples and pairs of channels."""
        student = self.regressors[key](student) if key in self.regressors else student
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = full_precision(student).flatten(2), full_precision(teacher).flatten(2)
            distances = squared_distance(_scaled(student), student, _scaled(teacher), teacher)
            return distances.mean() / student.shape[1] ** 2


def _scaled(x: Tensor) -> Tensor:
    """(B, C, P) rows divided by the length of their row of G, so that the product with `x` has rows of length one."""
    squared = ((x @ (x.mT @ x)) * x).sum(dim=2, keepdim=True)
    return x / squared.clamp_min(1e-24).sqrt()  # bounded before the root, whose gradient at 0 is infinite: channels may be dead
