"""Losses with a memory of samples, and with labels of some samples."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, mse_loss

from kdcore import DistillationLoss, Needs


class SizedMemory(DistillationLoss):
    """Squared difference between the sample's logits and the last ones."""

    def setup(self, example):
        self.register_buffer("memory", torch.zeros(example.num_samples, example.num_classes))

    def forward(self, ctx):
        last = self.memory[ctx.batch.rows].to(ctx.student.logits)
        self.memory[ctx.batch.rows] = ctx.student.logits.detach().to(self.memory)
        return mse_loss(ctx.student.logits, last)


class UnknownLabels(DistillationLoss):
    """Cross-entropy of all samples, which fails for those of unknown class."""

    needs = Needs(labels="optional")

    def forward(self, ctx):
        return cross_entropy(ctx.student.logits, ctx.labels)
