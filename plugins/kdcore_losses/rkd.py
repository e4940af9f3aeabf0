"""Relational knowledge distillation: distances and angles between samples."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from kdcore.functional import angle_cosines, distances
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs


class RelationalDistillation(FeatureLoss):
    """Compare distances between samples, in units of their mean, and the angles that three samples form.

    .. math:: L = \\lambda_D\\, \\mathrm{mean}_{ij}\\,
        \\ell\\!\\left(\\tfrac{d^S_{ij}}{\\bar d^S}, \\tfrac{d^T_{ij}}{\\bar d^T}\\right)
        + \\lambda_A\\, \\mathrm{mean}_{ijk}\\, \\ell(\\cos \\angle^S_{ijk}, \\cos \\angle^T_{ijk})

    with :math:`\\ell` the Huber loss. W. Park et al., "Relational Knowledge Distillation", CVPR 2019,
    https://arxiv.org/abs/1904.05068, Eqs. (6)-(11). A batch of one has no relations: the loss is 0 there. Persons and frames
    are averaged, then each side is flattened, so shapes may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        distance: λ_D.
        angle: λ_A.
    """

    def __init__(
        self, *, pairs: Pairs = DEFAULT, distance: Annotated[float, Ge(0)] = 25.0, angle: Annotated[float, Ge(0)] = 50.0
    ):
        super().__init__(pairs)
        self.distance = distance
        self.angle = angle

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the weighted sum of both parts."""
        if len(student) < 2:
            return student.sum() * 0.0
        d_student, d_teacher = _relative(distances(student)), _relative(distances(teacher))
        a_student, a_teacher = angle_cosines(student), angle_cosines(teacher)
        return self.distance * F.smooth_l1_loss(d_student, d_teacher) + self.angle * F.smooth_l1_loss(a_student, a_teacher)


def _relative(lengths: Tensor) -> Tensor:
    """Return distances (B, B) in units of the mean distance of two samples."""
    pairs = len(lengths) * (len(lengths) - 1)
    return lengths / (lengths.sum() / pairs)
