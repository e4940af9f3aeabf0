"""Confidence-aware multi-teacher distillation."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kdcore import Example, LossContext, Needs, Ramp
from kdcore.functional import confidence_weights, label_losses, same_positions, softened_kl
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs
from kdcore_losses.logit_loss import standardised
from kdcore_losses.regressor import Regressor


class ConfidenceAware(FeatureLoss):
    """Several teachers, each weighted per sample by how well it predicts that sample's label.

    .. math:: L = \\frac1B \\sum_b \\sum_k w_{bk} \\left(\\lambda_z\\, T^2\\, \\mathrm{KL}(p_k \\| p_S)
        + \\frac{\\lambda_f}{K}\\, \\mathrm{mean}(R_k A_S - A_k)^2\\right), \\quad
        w_{bk} = \\frac{1 - \\mathrm{softmax}_k(\\mathrm{CE}(z_{bk}, y_b))}{K - 1}

    and :math:`w = 1` for a single teacher. H. Zhang, D. Chen, C. Wang, "Confidence-Aware Multi-Teacher Knowledge
    Distillation", ICASSP 2022, https://arxiv.org/abs/2201.00007, Eqs. (2)-(6), with the 1/K of the authors' code. Different
    shapes are handled as in ``fitnet``, with a regressor where the numbers of channels differ.

    Args:
        temperature: T, a number or a ramp over epochs.
        logits: λ_z.
        features: λ_f; taps are needed where it is above 0.
        pairs: Pairs of (teacher's tap, student's tap).
        standardise: Standardise the logits that are compared first, as ``logit-std`` does; w is computed from the original
            logits.
    """

    targets = ("classes",)

    def __init__(
        self,
        *,
        temperature: Annotated[float, Gt(0)] | Ramp = 4.0,
        logits: Annotated[float, Ge(0)] = 1.0,
        features: Annotated[float, Ge(0)] = 0.0,
        pairs: Pairs = DEFAULT,
        standardise: bool = False,
    ):
        super().__init__(pairs)
        self.standardise = standardise
        self.temperature = temperature
        self.logits = logits
        self.features = features
        self.regressors = nn.ModuleDict()
        self.needs = replace(self.needs, labels=True) if features else Needs(labels=True, teachers=1)

    def setup(self, example: Example) -> None:
        """Create a regressor for every teacher and pair whose channels differ."""
        for key, student, teacher in self.examples(example) if self.features else ():
            if student.shape[1] != teacher.shape[1]:
                self.regressors[key] = Regressor(student.shape[1], teacher.shape[1]).to(student)

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the weighted sum over teachers, averaged over the batch."""
        weights = confidence_weights(label_losses(torch.stack([each.logits for each in ctx.teachers.values()]), ctx.labels))
        T = ctx.progress.at(self.temperature)
        logits = [each.logits for each in (ctx.student, *ctx.teachers.values())]
        student, *teachers = [standardised(each) for each in logits] if self.standardise else logits
        terms = torch.stack([softened_kl(student, each, T) for each in teachers])
        terms = self.logits * T**2 * terms
        if self.features:
            found = self.activations(ctx.student, ctx.teachers, batch=len(ctx.batch))
            errors = torch.stack([self._errors(key, student, teacher) for key, student, teacher in found])
            terms = terms + self.features / len(weights) * errors.unflatten(0, (len(weights), -1)).mean(dim=1)
        return (weights * terms).sum(dim=0).mean()

    def _errors(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = same_positions(student, teacher)
        translated = self.regressors[key](student) if key in self.regressors else student
        return (translated - teacher).square().flatten(1).mean(dim=1)
