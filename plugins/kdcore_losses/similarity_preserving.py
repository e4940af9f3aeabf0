"""Similarity-preserving distillation: similarities between the samples of a batch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdcore.functional import gram_similarities
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs


class SimilarityPreserving(FeatureLoss):
    """Compare similarity matrices of the batch.

    .. math:: L = \\frac1{B^2} \\|\\tilde G_S - \\tilde G_T\\|_F^2, \\quad G = A A^\\top

    with :math:`A` (B, all features of a sample) and :math:`\\tilde G` the matrix with rows of length one. F. Tung, G. Mori,
    "Similarity-Preserving Knowledge Distillation", ICCV 2019, https://arxiv.org/abs/1907.09682, Eq. (4). Persons and frames
    are averaged, then each side is flattened, so shapes may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
    """

    def __init__(self, *, pairs: Pairs = DEFAULT):
        super().__init__(pairs)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over pairs of samples."""
        return F.mse_loss(gram_similarities(student), gram_similarities(teacher))
