"""Losses whose cases set `warmup_steps` or `random_per_sample`, rightly and wrongly."""

from __future__ import annotations

import torch
from faults import caught_by, sound
from faulty_losses import Plain, differences
from torch import Tensor, nn

from kdcore import LossContext
from kdcore.testing import Case


@sound("loss", case=Case(warmup_steps=1))
@caught_by("loss", "student_gets_gradient")
class Gated(Plain):
    """Is scaled by a parameter that starts at zero."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, ctx: LossContext) -> Tensor:
        return self.gate * super().forward(ctx)


@sound("loss", case=Case(warmup_steps=3))
@caught_by("loss", "student_gets_gradient", case=Case(warmup_steps=2))
class Late(Plain):
    """Begins in epoch 3."""

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) * float(ctx.progress.epoch >= 3)


@sound("loss", case=Case(warmup_steps=2))
@caught_by("loss", "student_gets_gradient", "parameters_trained")
class LateScale(Plain):
    """Is scaled by a parameter, and begins in epoch 2."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, ctx: LossContext) -> Tensor:
        return self.scale * super().forward(ctx) * float(ctx.progress.epoch >= 2)


@caught_by("loss", "student_gets_gradient", case=Case(warmup_steps=1))
class Early(Plain):
    """Has a gradient at once, though its case says otherwise."""


@caught_by("loss", "precisions_agree", case=Case(warmup_steps=1))
class LateInSinglePrecision(Gated):
    """Computes in single precision what only training makes visible."""

    def forward(self, ctx: LossContext) -> Tensor:
        if ctx.student.logits.dtype == torch.float64:
            return self.gate * differences(ctx).mean() * 1.1
        return super().forward(ctx)


@sound("loss", case=Case(random_per_sample=True))
@caught_by("loss", "permutation_invariant", "weights_count_samples")
class Masked(Plain):
    """Leaves out half of the samples, at random."""

    sample_weights = True

    def forward(self, ctx: LossContext) -> Tensor:
        each = differences(ctx)
        weights = torch.ones_like(each) if ctx.weights is None else ctx.weights.to(each)
        kept = torch.rand(len(each), device=each.device).to(each) < 0.5
        return (kept * weights * each).sum() / weights.sum()


@caught_by("loss", "permutation_invariant", "weights_count_samples", case=Case(random_per_sample=True))
class MaskedInOrder(Masked):
    """Leaves out half of the samples, counts the first ones more, and ignores weights."""

    def forward(self, ctx: LossContext) -> Tensor:
        each = differences(ctx)
        kept = torch.rand(len(each), device=each.device).to(each) < 0.5
        return (kept * each / torch.arange(1, len(each) + 1, device=each.device) ** 2).mean()


@caught_by("loss", "permutation_invariant", case=Case(random_per_sample=True))
class NeverRandom(Plain):
    """Draws nothing, though its case says otherwise."""
