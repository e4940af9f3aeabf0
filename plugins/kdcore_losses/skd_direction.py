"""The direction-wise term of streamlined knowledge distillation."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from kdcore import LossContext
from kdcore.functional import cosine_similarities
from kdcore_losses.logit_loss import LogitLoss


class DirectionTerm(LogitLoss):
    """Mahalanobis distance between the directions of logits within a batch.

    .. math:: L = \\frac1B \\sum_i \\sqrt{D_i^\\top (\\Sigma + \\lambda I)^{-1} D_i}, \\quad D = G_S - G_T

    with :math:`G` (B, B) the cosines between the logits of two samples, :math:`D_i` a row of their difference and
    :math:`\\Sigma` the covariance of these rows. A batch of one has no other direction: the loss is 0 there. H.-J. Jeong,
    H.-J. Lee, S.-H. Choi, "Streamlined Knowledge Distillation", CVPR 2026,
    https://openaccess.thecvf.com/content/CVPR2026/papers/Jeong_Streamlined_Knowledge_Distillation_CVPR_2026_paper.pdf; the
    authors' code divides G by the number of classes and masks classes; this follows the equations. The method's instance-wise
    term is ``soft-target``.

    Args:
        ridge: λ, which keeps the covariance invertible.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    def __init__(self, *, ridge: Annotated[float, Gt(0)] = 0.1, standardise: bool = False):
        super().__init__(standardise)
        self.ridge = ridge

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the distance of each sample, (B,)."""
        if len(student) < 2:
            return student.sum(dim=1) * 0.0
        difference = cosine_similarities(student) - cosine_similarities(teacher)
        covariance = torch.cov(difference.T) + self.ridge * torch.eye(len(student), dtype=student.dtype, device=student.device)
        factor = torch.linalg.cholesky(covariance)
        return torch.linalg.solve_triangular(factor, difference.T, upper=False).norm(dim=0)
