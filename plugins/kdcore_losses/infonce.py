"""Contrastive distillation within the batch."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Example
from kdcore.functional import mean_over_positions
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs


class InfoNCE(FeatureLoss):
    """Identify each sample among the batch's samples in the other modality; reads no labels.

    .. math:: L = -\\frac1{2B} \\sum_i \\left(\\log \\frac{e^{s_{ii} / \\tau}}{\\sum_j e^{s_{ij} / \\tau}}
        + \\log \\frac{e^{s_{ii} / \\tau}}{\\sum_j e^{s_{ji} / \\tau}}\\right), \\quad
        s_{ij} = \\cos(W_S\\, a^S_i,\\, W_T\\, a^T_j)

    with linear heads W per teacher and pair, both learnt. Y. Tian, D. Krishnan, P. Isola, "Contrastive Multiview Coding", ECCV
    2020, https://arxiv.org/abs/1906.05849, with the batch's other samples as negatives; A. van den Oord, Y. Li, O. Vinyals,
    "Representation Learning with Contrastive Predictive Coding", 2018, https://arxiv.org/abs/1807.03748. A batch of one has no
    negatives: the loss is 0 there. To match shapes, persons, frames and positions are averaged; numbers of channels may
    differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        temperature: τ.
        size: Length of the embeddings that are compared.
    """

    def __init__(
        self,
        *,
        pairs: Pairs = DEFAULT,
        temperature: Annotated[float, Gt(0)] = 0.07,
        size: Annotated[int, Ge(1)] = 128,
    ):
        super().__init__(pairs)
        self.temperature = temperature
        self.size = size
        self.heads = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create both heads for every teacher and pair."""
        for key, student, teacher in self.examples(example):
            self.heads[key] = nn.ModuleList(nn.Linear(x.shape[1], self.size).to(x.device) for x in (student, teacher))

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over samples and both directions."""
        with torch.autocast(student.device.type, enabled=False):
            own, theirs = (embedding(head, x) for head, x in zip(self.heads[key], (student, teacher), strict=True))  # type: ignore[arg-type]
            scores = own @ theirs.T / self.temperature
            same = torch.arange(len(scores), device=scores.device)
            return (F.cross_entropy(scores, same) + F.cross_entropy(scores.T, same)) / 2


def embedding(head: nn.Module, x: Tensor) -> Tensor:
    """Return unit-length embeddings of activations (B, C, …), which are averaged over positions and passed to `head`."""
    return F.normalize(head(mean_over_positions(x)), dim=1)
