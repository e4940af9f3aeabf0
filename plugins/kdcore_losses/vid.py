"""Variational information distillation."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Example
from kdcore.functional import same_positions
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs
from kdcore_losses.regressor import Regressor

SMALLEST = 1e-5


class VariationalInformation(FeatureLoss):
    """Likelihood of a teacher's activations under a Gaussian whose mean the student predicts: a bound on mutual information.

    .. math:: L = \\mathrm{mean}\\; \\frac12 \\left(\\log \\sigma_c^2 + \\frac{(t - \\mu(s))^2}{\\sigma_c^2}\\right), \\quad
        \\sigma_c^2 = \\log(1 + e^{\\alpha_c}) + 10^{-5}

    with μ three 1×1 convolutions and a learnt variance per channel c. S. Ahn et al., "Variational Information Distillation
    for Knowledge Transfer", CVPR 2019, https://arxiv.org/abs/1904.05835, without the constant and with the factor ½ of the
    Gaussian. To match shapes, persons and frames are averaged, surplus position axes are averaged, and each axis is
    average-pooled to the shorter side's length; numbers of channels may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        variance: σ² before the first step.
    """

    def __init__(self, *, pairs: Pairs = DEFAULT, variance: Annotated[float, Gt(SMALLEST)] = 5.0):
        super().__init__(pairs)
        self.variance = variance
        self.means = nn.ModuleDict()
        self.scales = nn.ParameterDict()

    def setup(self, example: Example) -> None:
        """Create the mean and the variance for every teacher and pair."""
        for key, student, teacher in self.examples(example):
            width = teacher.shape[1]
            layers = [Regressor(student.shape[1], width), nn.ReLU(), Regressor(width, width), nn.ReLU()]
            self.means[key] = nn.Sequential(*layers, Regressor(width, width)).to(student.device)
            start = math.log(math.expm1(self.variance - SMALLEST))
            self.scales[key] = nn.Parameter(torch.full((width,), start, device=student.device))

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples, channels and positions."""
        student, teacher = same_positions(student, teacher)
        with torch.autocast(student.device.type, enabled=False):
            variance = F.softplus(self.scales[key]) + SMALLEST
            variance = variance.view(-1, *(1,) * (teacher.ndim - 2))
            return 0.5 * ((self.means[key](student) - teacher).square() / variance + variance.log()).mean()
