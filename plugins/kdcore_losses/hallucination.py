"""Modality hallucination."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Example
from kdcore.functional import full_precision, same_positions
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs
from kdcore_losses.regressor import Regressor


class Hallucination(FeatureLoss):
    """Mean squared error between activations after a sigmoid: a stream on one modality imitates a teacher on another.

    .. math:: L = \\mathrm{mean} \\left(\\sigma(A_S) - \\sigma(A_T)\\right)^2

    with σ the sigmoid, which weakens the pull of large activations. Tap activations before the ReLU. J. Hoffman, S.
    Gupta, T. Darrell, "Learning with Side Information through Modality Hallucination", CVPR 2016, which sums where this
    averages, https://openaccess.thecvf.com/content_cvpr_2016/html/Hoffman_Learning_With_Side_CVPR_2016_paper.html. Different
    shapes are handled as in ``fitnet``, with a regressor where the numbers of channels differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
    """

    def __init__(self, *, pairs: Pairs = DEFAULT):
        super().__init__(pairs)
        self.regressors = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create a regressor for every teacher and pair whose channels differ."""
        for key, student, teacher in self.examples(example):
            if student.shape[1] != teacher.shape[1]:
                self.regressors[key] = Regressor(student.shape[1], teacher.shape[1]).to(student)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples, channels and positions."""
        student, teacher = same_positions(student, teacher)
        student = self.regressors[key](student) if key in self.regressors else student
        return F.mse_loss(full_precision(student).sigmoid(), full_precision(teacher).sigmoid())
