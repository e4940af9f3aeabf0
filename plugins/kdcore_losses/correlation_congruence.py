"""Correlation congruence: a kernel between the samples of a batch."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore.functional import cosine_similarities
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs


class CorrelationCongruence(FeatureLoss):
    """Compare kernel matrices of the batch.

    .. math:: L = \\frac1{B^2} \\|C_S - C_T\\|_F^2, \\quad
        C_{ij} = \\sum_{p=0}^{P} e^{-2\\gamma} \\frac{(2\\gamma)^p}{p!} (a_i \\cdot a_j)^p

    with :math:`a_i` the features of sample i scaled to length one: the Taylor series of the Gaussian kernel
    :math:`\\exp(-\\gamma \\|a_i - a_j\\|^2)`. B. Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019,
    https://arxiv.org/abs/1904.01802, Eqs. (6) and (10). Persons and frames are averaged, then each side is flattened, so
    shapes may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        gamma: γ.
        order: P.
    """

    def __init__(self, *, pairs: Pairs = DEFAULT, gamma: Annotated[float, Gt(0)] = 0.4, order: Annotated[int, Ge(1)] = 2):
        super().__init__(pairs)
        self.gamma = gamma
        self.order = order

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over pairs of samples."""
        return F.mse_loss(self._kernel(student), self._kernel(teacher))

    def _kernel(self, x: Tensor) -> Tensor:
        cosine = cosine_similarities(x)
        terms = [(2 * self.gamma) ** p / math.factorial(p) * cosine**p for p in range(self.order + 1)]
        return math.exp(-2 * self.gamma) * torch.stack(terms).sum(dim=0)
