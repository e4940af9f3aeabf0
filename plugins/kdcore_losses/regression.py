"""Regression of values, alone and bounded by a teacher."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, LossContext, Needs
from kdcore.functional import full_precision, known_mean, weighted_mean


class Regression(DistillationLoss):
    """Error between the learner's outputs and the values, both normalised over the training samples.

    .. math:: L = \\frac{1}{V \\sum_b w_b} \\sum_b w_b \\sum_v \\ell(z_{bv} - y_{bv}), \\quad
        \\ell(d) = d^2, \\quad |d|, \\quad
        \\begin{cases} d^2 / 2 & |d| < \\delta \\\\ \\delta (|d| - \\delta / 2) & \\text{otherwise} \\end{cases}

    for ``squared``, ``absolute`` and ``huber``, with sample weights w, 1 unless the dataset defines them. If some values are
    unknown, the mean is over the known ones (`kdcore.functional.known_mean`).

    Args:
        error: ℓ, one of ``squared``, ``absolute`` and ``huber``.
        delta: δ of ``huber``, in standard deviations of a value.
    """

    needs = Needs(labels=True)
    targets = ("values",)
    sample_weights = True
    partial_labels = True

    def __init__(self, *, error: Literal["squared", "absolute", "huber"] = "squared", delta: Annotated[float, Gt(0)] = 1.0):
        super().__init__()
        self.error, self.delta = error, delta

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over values, and the weighted mean over the batch."""
        outputs = full_precision(ctx.student.logits)

        def losses(values: Tensor) -> Tensor:
            if self.error == "squared":
                return F.mse_loss(outputs, values, reduction="none")
            if self.error == "absolute":
                return F.l1_loss(outputs, values, reduction="none")
            return F.huber_loss(outputs, values, reduction="none", delta=self.delta)

        return known_mean(losses, ctx.labels.to(outputs), ctx.weights)


class BoundedRegression(DistillationLoss):
    """Squared error of the samples on which the student is not better than a teacher by a margin.

    .. math:: L = \\frac{1}{K \\sum_b w_b} \\sum_k \\sum_b w_b
        \\begin{cases} e^S_b & e^S_b + m > e^k_b \\\\ 0 & \\text{otherwise} \\end{cases}, \\quad
        e_b = \\frac1V \\|z_b - y_b\\|_2^2

    with sample weights w, 1 unless the dataset defines them; outputs and values are normalised by the training samples. Where
    some values of a sample are not known, e is the mean over those that are. G. Chen
    et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NIPS 2017,
    https://papers.nips.cc/paper/2017/hash/e1e32e235eee1f970470a3a6658dfdd5-Abstract.html.

    Args:
        margin: m, in variances of a value.
    """

    needs = Needs(labels=True, teachers=1)
    targets = ("values",)
    sample_weights = True
    partial_labels = True

    def __init__(self, *, margin: Annotated[float, Ge(0)] = 0.0):
        super().__init__()
        self.margin = margin

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers, and the weighted mean over the batch."""
        outputs = full_precision(ctx.student.logits)
        values = ctx.labels.to(outputs)
        own = _squared_error(outputs, values)
        errors = [_squared_error(full_precision(each.logits), values) for each in ctx.teachers.values()]
        bounded = torch.stack([torch.where(own + self.margin > each, own, 0.0) for each in errors], dim=1)
        return weighted_mean(bounded, ctx.weights)


def _squared_error(outputs: Tensor, values: Tensor) -> Tensor:
    """(B,) mean squared error of the values (B, V) of each sample that are known, not NaN; at least one is."""
    known = values == values
    squares = (outputs - torch.where(known, values, outputs.detach())) ** 2
    return squares.sum(dim=1) / known.sum(dim=1)
