"""Prime-aware adaptive distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdcore import Example
from kdcore.functional import full_precision, same_positions
from kdcore_losses.connectors import Connector
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs
from kdcore_losses.regressor import Regressor

SMALLEST = 1e-6


class PrimeAware(FeatureLoss):
    """Regression onto a teacher's activation, weighted less where the student predicts a large error.

    .. math:: L = \\mathrm{mean} \\left(\\frac{(t - s)^2}{\\sigma^2(s) + 10^{-6}} + \\log \\sigma^2(s)\\right)

    with :math:`\\log \\sigma^2` a 1×1 convolution with batch normalisation of the student's activation, learnt per teacher and
    pair. Y. Zhang et al., "Prime-Aware Adaptive Distillation", ECCV 2020, https://arxiv.org/abs/2008.01458. Different shapes
    are handled as in ``fitnet``, with a regressor where the numbers of channels differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
    """

    def __init__(self, *, pairs: Pairs = DEFAULT):
        super().__init__(pairs)
        self.variances = nn.ModuleDict()
        self.regressors = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create the variance for every teacher and pair, and a regressor where channels differ."""
        for key, student, teacher in self.examples(example):
            self.variances[key] = Connector(student.shape[1], teacher.shape[1]).to(student)
            if student.shape[1] != teacher.shape[1]:
                self.regressors[key] = Regressor(student.shape[1], teacher.shape[1]).to(student)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples, channels and positions."""
        student, teacher = same_positions(student, teacher)
        logs = full_precision(self.variances[key](student))
        student = self.regressors[key](student) if key in self.regressors else student
        errors = (full_precision(teacher) - full_precision(student)).square()
        return (errors / (torch.exp(logs) + SMALLEST) + logs).mean()
