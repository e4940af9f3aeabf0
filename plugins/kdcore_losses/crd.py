"""Contrastive representation distillation."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from kdcore import Example, LossContext
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs
from kdcore_losses.infonce import embedding
from kdcore_losses.memory_bank import MemoryBank

SMALLEST = 1e-7


class ContrastiveRepresentation(FeatureLoss):
    """Distinguish each sample's pair of embeddings from pairs with other samples, kept in a memory bank.

    .. math:: L = \\frac1B \\sum_b \\sum_{d \\in \\{S, T\\}} \\left(-\\log h(q^d_{bb})
        - \\sum_{j \\in N_b} \\log(1 - h(q^d_{bj}))\\right), \\quad h(q) = \\frac{q}{q + |N_b| / M},
        \\quad q^S_{bj} = \\frac{e^{x^S_b \\cdot m^T_j / \\tau}}{Z_S},
        q^T_{bj} = \\frac{e^{x^T_b \\cdot m^S_j / \\tau}}{Z_T}

    with embeddings x of unit length from learnt linear heads, m those in the bank, N_b the negatives of sample b, M the
    number of training samples, and Z set once, so that the first batch's q average 1/M. After each batch :math:`m \\leftarrow
    \\mu m + (1 - \\mu) x`, scaled to length one. Y. Tian, D. Krishnan, P. Isola, "Contrastive Representation Distillation",
    ICLR 2020, https://arxiv.org/abs/1910.10699, with Z as in the authors' code. Their bank starts with random numbers; here a
    sample takes part from the first batch that it is in. Where a batch may choose among no more than `negatives`, it takes
    all. The bank is saved in checkpoints, so that a resumed run continues exactly; memory grows with batch size times
    M. It is reset if the number of training samples changes. To match shapes, persons, frames and positions are averaged;
    numbers of channels may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        negatives: Number of negatives of each sample, at most.
        by: What a negative must differ in: its ``class``, which reads labels, or as a ``sample`` only.
        temperature: τ.
        momentum: μ.
        size: Length of the embeddings.
    """

    def __init__(
        self,
        *,
        pairs: Pairs = DEFAULT,
        negatives: Annotated[int, Ge(1)] = 16384,
        by: Literal["class", "sample"] = "class",
        temperature: Annotated[float, Gt(0)] = 0.07,
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.5,
        size: Annotated[int, Ge(1)] = 128,
    ):
        super().__init__(pairs)
        self.negatives = negatives
        self.by = by
        self.temperature = temperature
        self.momentum = momentum
        self.size = size
        self.heads = nn.ModuleDict()
        self.banks = nn.ModuleDict()
        self.needs = replace(self.needs, labels=by == "class")
        if by == "class":
            self.targets = ("classes",)

    def setup(self, example: Example) -> None:
        """Create heads and an empty bank for every teacher and pair."""
        for key, student, teacher in self.examples(example):
            self.heads[key] = nn.ModuleList(nn.Linear(x.shape[1], self.size).to(x.device) for x in (student, teacher))
            self.banks[key] = MemoryBank(self.size).to(student.device)

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers and pairs."""
        found = self.activations(ctx.student, ctx.teachers, batch=len(ctx.batch))
        return torch.stack([self._contrast(ctx, *comparison) for comparison in found]).mean()

    def _contrast(self, ctx: LossContext, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        bank, rows = self._bank(key, ctx), ctx.batch.rows.to(student.device)
        labels = ctx.labels if self.by == "class" else None
        with torch.autocast(student.device.type, enabled=False):
            embed_student, embed_teacher = self.heads[key]  # type: ignore[misc]
            own, theirs = embedding(embed_student, student), embedding(embed_teacher, teacher)
            new = ~bank.seen[rows]
            bank.update(rows[new], own[new], theirs[new], None if labels is None else labels[new], 0.0)
            chosen = self._choose(bank, rows, labels)
            value = self._anchored(bank, 0, own @ bank.teacher.T.to(own), rows, chosen)
            value = value + self._anchored(bank, 1, theirs @ bank.student.T.to(own), rows, chosen)
            bank.update(rows, own, theirs, labels, self.momentum)
        return value

    def _bank(self, key: str, ctx: LossContext) -> MemoryBank:
        bank: MemoryBank = self.banks[key]  # type: ignore[assignment]
        if not ctx.batch.table:
            bank.extend(int(ctx.batch.rows.max()) + 1)
        elif len(bank) != len(ctx.batch.table):
            bank.resize(len(ctx.batch.table))
        return bank

    def _choose(self, bank: MemoryBank, rows: Tensor, labels: Tensor | None) -> Tensor:
        """Return a mask of each sample's negatives, (B, M) bool."""
        if labels is None:
            allowed = bank.seen & (torch.arange(len(bank), device=rows.device) != rows[:, None])
        else:
            allowed = bank.seen & (bank.classes != labels[:, None])
        if self.negatives >= len(bank) or self.negatives >= int(allowed.sum(dim=1).max()):
            return allowed
        drawn = torch.rand(allowed.shape, device=rows.device).masked_fill(~allowed, -1.0).topk(self.negatives, dim=1).indices
        return allowed & torch.zeros_like(allowed).scatter(1, drawn, True)

    def _anchored(self, bank: MemoryBank, side: int, scores: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        """Return the mean over samples of one side's terms, from its scores with everything in the bank (B, M)."""
        raised = (scores / self.temperature).exp()
        positive = raised.gather(1, rows[:, None])[:, 0]
        if not bank.scales[side]:
            total = positive.detach().sum() + (raised.detach() * chosen).sum()
            scales = bank.scales.clone()
            scales[side] = total / (len(rows) + chosen.sum()) * len(bank)
            bank.scales = scales
        noise = chosen.sum(dim=1) / len(bank)
        positive, raised = positive / bank.scales[side].to(raised), raised / bank.scales[side].to(raised)
        right = -(positive / (positive + noise + SMALLEST)).log()
        wrong = -(noise[:, None] / (raised + noise[:, None] + SMALLEST)).clamp_min(SMALLEST).log() * chosen
        return (right + wrong.sum(dim=1)).mean()
