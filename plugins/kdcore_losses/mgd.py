"""Masked generative distillation."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Example
from kdcore.functional import full_precision, same_positions
from kdcore_losses.connectors import convolution
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs
from kdcore_losses.regressor import Regressor


class MaskedGenerative(FeatureLoss):
    """Reconstruct a teacher's activation from a randomly masked activation of the student.

    .. math:: L = \\mathrm{mean} \\left(A_T - G(M \\odot R A_S)\\right)^2

    with M a new random mask of every sample, 0 with probability λ, R a regressor where the numbers of channels differ and G
    two convolutions of width 3, learnt per teacher and pair. Z. Yang et al., "Masked Generative Distillation", ECCV 2022,
    https://arxiv.org/abs/2205.01529, which sums where this averages. For classification the authors mask channels with λ =
    0.15, for detection positions with λ = 0.65. To match shapes, persons and frames are averaged, surplus position axes are
    averaged, and each axis is average-pooled to the shorter side's length.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        mask: What is masked: whole channels, or positions in all channels.
        share: λ.
    """

    def __init__(
        self,
        *,
        pairs: Pairs = DEFAULT,
        mask: Literal["channels", "positions"] = "channels",
        share: Annotated[float, Ge(0), Lt(1)] = 0.15,
    ):
        super().__init__(pairs)
        self.mask = mask
        self.share = share
        self.regressors = nn.ModuleDict()
        self.generators = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create a generator for every teacher and pair, and a regressor where channels differ.

        Raises:
            ValueError: If positions are to be masked and there are none, or if there are more than three position axes.
        """
        for key, student, teacher in self.examples(example):
            width, axes = teacher.shape[1], min(student.ndim, teacher.ndim) - 2
            if self.mask == "positions" and axes == 0:
                shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
                raise ValueError(f"mgd cannot mask positions, since {shapes} share none; set mask: channels")
            if student.shape[1] != width:
                self.regressors[key] = Regressor(student.shape[1], width).to(student)
            layers = convolution(width, width, axes), nn.ReLU(), convolution(width, width, axes)
            self.generators[key] = nn.Sequential(*layers).to(student)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples, channels and positions."""
        student, teacher = same_positions(student, teacher)
        student = self.regressors[key](student) if key in self.regressors else student
        shape = (
            (*student.shape[:2], *(1,) * (student.ndim - 2))
            if self.mask == "channels"
            else (len(student), 1, *student.shape[2:])
        )
        kept = torch.rand(shape, device=student.device, dtype=torch.float32) >= self.share
        return F.mse_loss(full_precision(self.generators[key](student * kept)), full_precision(teacher))
