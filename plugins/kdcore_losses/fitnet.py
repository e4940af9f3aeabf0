"""Hints: regression onto a teacher's activations."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Example
from kdcore.functional import same_positions
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs
from kdcore_losses.regressor import Regressor


class FitNet(FeatureLoss):
    """Mean squared error between a teacher's activation and the student's after a learnt regressor.

    .. math:: L = \\mathrm{mean}\\, (R\\, A_S - A_T)^2

    with :math:`R` a 1×1 convolution without bias (a linear map for vectors) per teacher and pair. A. Romero et al., "FitNets:
    Hints for Thin Deep Nets", ICLR 2015, https://arxiv.org/abs/1412.6550, Eq. (3). To match shapes, persons and frames are
    averaged, surplus position axes are averaged, and each axis is average-pooled to the shorter side's length.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        regressor: Translate ``always``, only where ``needed`` because the numbers of channels differ, or ``never``, for a
            student whose activation itself has to be the teacher's, as in SimKD.
    """

    def __init__(self, *, pairs: Pairs = DEFAULT, regressor: Literal["always", "needed", "never"] = "always"):
        super().__init__(pairs)
        self.regressor = regressor
        self.regressors = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create a regressor for every teacher and pair.

        Raises:
            ValueError: If numbers of channels differ that nothing may translate.
        """
        for key, student, teacher in self.examples(example):
            own, target = student.shape[1], teacher.shape[1]
            if self.regressor == "never":
                if own != target:
                    raise ValueError(
                        f"without a regressor, fitnet compares equally many channels, but the student has {own} and the "
                        f"teacher {target}; give the student a layer of {target}, such as an encoder's option 'projector'"
                    )
            elif self.regressor == "always" or own != target:
                self.regressors[key] = Regressor(own, target).to(student)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples, channels and positions."""
        student, teacher = same_positions(student, teacher)
        return F.mse_loss(self.regressors[key](student) if key in self.regressors else student, teacher)
