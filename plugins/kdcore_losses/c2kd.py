"""On-the-fly selection of the samples that modalities agree on."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.nn import functional as F

from kdcore import LossContext, Needs, Ramp
from kdcore.functional import softened_kl
from kdcore_losses.logit_loss import LogitLoss, other_logits


class SelectiveDistillation(LogitLoss):
    """Soft targets over the classes other than the true one, for samples on which both modalities rank the classes similarly.

    .. math:: L = \\frac{T^2}B \\sum_b [\\tau_b > \\omega]\\, \\mathrm{KL}(\\hat p^k_b \\| \\hat p^S_b)

    with :math:`\\hat p` the softmax at temperature T over the classes other than the true one, and :math:`\\tau_b` Kendall's
    rank correlation of all logits of a sample. This is the selective term of C²KD, in which both modalities learn from each
    other: as peers, or from a frozen teacher. Its proxies, extra heads on both networks' features, are left out, and the true
    class is left out where the authors' code sets its logit to 0. Where no sample is selected the value is 0. F. Huo et al.,
    "C2KD: Bridging the Modality Gap for Cross-Modal Knowledge Distillation", CVPR 2024, https://github.com/huofushuo/C2KD.

    Args:
        of: Learn from ``teachers`` or from ``peers``, with their current outputs.
        threshold: ω, the rank correlation above which a sample is learnt from.
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    def __init__(
        self,
        *,
        of: Literal["teachers", "peers"] = "teachers",
        threshold: Annotated[float, Ge(-1), Lt(1)] = 0.0,
        temperature: Annotated[float, Gt(0)] | Ramp = 1.0,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.of = of
        self.needs = Needs(labels=True, teachers=1) if of == "teachers" else Needs(labels=True, peers=1)
        self.threshold = threshold
        self.temperature = temperature
        self.temperature_power = None if standardise else 2

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers or peers, and over the batch."""
        peers = {name: each.detach() for name, each in ctx.peers.items()}
        return super().forward(replace(ctx, teachers=peers) if self.of == "peers" else ctx)

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the divergence of every sample, 0 for those not selected."""
        T = ctx.progress.at(self.temperature)
        selected = rank_correlation(student.detach(), teacher) > self.threshold
        divergence = softened_kl(other_logits(student, ctx.labels), other_logits(teacher, ctx.labels), T)
        return divergence * selected * T**2


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Kendall's tau-b of the rows of two matrices (B, C): (B,), 0 for a constant row.

    Pairs are counted by sorting, so that time grows with C log² C and memory with C.
    """
    for key in (1, 0):  # by a, and by b where a is equal
        order = (a, b)[key].argsort(dim=1, stable=True)
        a, b = a.gather(1, order), b.gather(1, order)
    new = (a[:, 1:] != a[:, :-1]) | (b[:, 1:] != b[:, :-1])
    tied_a, tied_b, tied_both = _ties(a), _ties(b.sort(dim=1).values), _ties(F.pad(new.long().cumsum(dim=1), (1, 0)))
    pairs = a.shape[1] * (a.shape[1] - 1) // 2
    agreement = pairs - tied_a - tied_b + tied_both - 2 * _inversions(b)
    return agreement / ((pairs - tied_a).double() * (pairs - tied_b)).sqrt().clamp_min(1.0)


def _ties(x: Tensor) -> Tensor:
    """Return the number of pairs of equal values in sorted rows."""
    return (torch.arange(x.shape[1], device=x.device) - torch.searchsorted(x.contiguous(), x.contiguous())).sum(dim=1)


def _inversions(x: Tensor) -> Tensor:
    """Return the number of inversions of each row, counted during a merge sort."""
    size, width = 1 << max(0, x.shape[1] - 1).bit_length(), 1
    x, found = F.pad(x, (0, size - x.shape[1]), value=torch.inf), torch.zeros(len(x), dtype=torch.int64, device=x.device)
    while width < size:
        halves = x.view(len(x), -1, 2, width)
        smaller = torch.searchsorted(halves[:, :, 0].contiguous(), halves[:, :, 1].contiguous(), right=True)
        found = found + (width - smaller).sum(dim=(1, 2))
        width *= 2
        x = halves.reshape(len(x), -1, width).sort(dim=2).values.view(len(x), -1)
    return found
