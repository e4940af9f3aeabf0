"""Activation boundaries."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Example
from kdcore.functional import full_precision, same_positions
from kdcore_losses.connectors import Connector
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs


class ActivationBoundaries(FeatureLoss):
    """Margin loss on the sign of activations: whether each neuron is active, regardless of how strongly.

    .. math:: L = \\mathrm{mean} \\left([t > 0]\\, \\max(0, \\mu - r(s))^2 + [t \\le 0]\\, \\max(0, \\mu + r(s))^2\\right)

    with r a 1×1 convolution and batch normalisation per teacher and pair. Tap activations before the ReLU. The paper
    trains with this term alone first, and then with the labels. B. Heo et al., "Knowledge Transfer via Distillation of
    Activation Boundaries Formed by Hidden Neurons", AAAI 2019, https://arxiv.org/abs/1811.03233, which sums where this
    averages. To match shapes, persons and frames are averaged, surplus position axes are averaged, and each axis is
    average-pooled to the shorter side's length; numbers of channels may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        margin: μ.
    """

    def __init__(self, *, pairs: Pairs = DEFAULT, margin: Annotated[float, Gt(0)] = 1.0):
        super().__init__(pairs)
        self.margin = margin
        self.connectors = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create a connector for every teacher and pair."""
        for key, student, teacher in self.examples(example):
            self.connectors[key] = Connector(student.shape[1], teacher.shape[1]).to(student)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples, channels and positions."""
        student, teacher = same_positions(student, teacher)
        towards = torch.where(teacher > 0, 1.0, -1.0)
        return F.relu(self.margin - towards * full_precision(self.connectors[key](student))).square().mean()
