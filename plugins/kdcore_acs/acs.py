"""Adaptive-confidence semantic distillation."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, LossContext, Needs, Ramp
from kdcore.functional import confidence_weights, full_precision, label_losses, per_sample, softened_kl

Weights = Literal["confidence", "select"]
Gate = Literal["none", "correct", "correct_renorm", "loss_le_kd"]


def teacher_weights(
    teachers: Tensor, student: Tensor, labels: Tensor, weights: Weights = "confidence", gate: Gate = "correct_renorm"
) -> tuple[Tensor, Tensor]:
    """Weights of the teachers, and the samples of which no teacher is to be believed.

    .. math:: w_k = \\frac{1 - \\mathrm{softmax}_k(\\mathrm{CE}(z_k, y))}{K - 1}

    for ``confidence`` (1 for a single teacher); ``select`` gives all weight to the admitted teacher with the least
    cross-entropy, the first of equals. `gate` says which teachers are admitted: all; those whose prediction is correct,
    with the other teachers' weights lost or (``correct_renorm``) shared out; or those whose cross-entropy is at most the
    student's own, which is how the condition printed in PSKD Eq. (4) is read.

    Args:
        teachers: Logits (K, B, C).
        student: Logits (B, C).
        labels: (B,).
        weights: How weights are made.
        gate: Who is admitted.

    Returns:
        Weights (K, B), and (B,) bool: no teacher is admitted or, for ``none``, none is correct.
    """
    errors = label_losses(teachers, labels)
    correct = teachers.argmax(dim=2) == labels
    if gate == "loss_le_kd":
        admitted = errors <= F.cross_entropy(student, labels, reduction="none")
    else:
        admitted = torch.ones_like(correct) if gate == "none" else correct
    lost = ~(correct if gate == "none" else admitted).any(dim=0)
    if weights == "select":
        best = errors.masked_fill(~admitted, torch.inf).argmin(dim=0)
        return F.one_hot(best, len(teachers)).T.to(errors) * admitted, lost
    confidence = confidence_weights(errors) * admitted
    if gate == "correct_renorm":
        confidence = confidence / confidence.sum(dim=0).where(~lost, 1.0)
    return confidence, lost


class AdaptiveConfidence(DistillationLoss):
    """Cross-entropy with the teachers' class probabilities, each teacher weighted per sample by how well it predicts the label.

    .. math:: L_{MK} = \\frac1B \\sum_b \\sum_k w_{bk}\\, H(\\mathrm{softmax}(z_{bk}), \\mathrm{softmax}(z_{Sb}))

    If no teacher is correct, the sample's term is the cross-entropy with its label instead. J. Ni, A. H. H. Ngu, Y. Yan,
    "Progressive Cross-modal Knowledge Distillation for Human Action Recognition", ACM MM 2022,
    https://doi.org/10.1145/3503161.3548238, Eqs. (3)-(5); weights as in CA-MKD (Zhang et al., ICASSP 2022,
    https://arxiv.org/abs/2201.00007), because the printed ones would favour the worse teacher.

    Args:
        weights: ``confidence`` shares by cross-entropy with the label; ``select`` uses only the more confident teacher.
        gate: Which teachers count: ``none`` of them is refused; only ``correct`` ones; the same with weights summing to
            one (``correct_renorm``); or those no worse than the student, as printed (``loss_le_kd``).
    """

    needs = Needs(labels=True, teachers=1)

    def __init__(self, *, weights: Weights = "confidence", gate: Gate = "correct_renorm"):
        super().__init__()
        self.weights: Weights = weights
        self.gate: Gate = gate

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over the batch."""
        student = full_precision(ctx.student.logits)
        teachers = torch.stack([full_precision(teacher.logits) for teacher in ctx.teachers.values()])
        with torch.no_grad():
            weights, lost = teacher_weights(teachers, student, ctx.labels, self.weights, self.gate)
        soft = -(teachers.softmax(dim=2) * F.log_softmax(student, dim=1)).sum(dim=2)
        return torch.where(lost, F.cross_entropy(student, ctx.labels, reduction="none"), (weights * soft).sum(dim=0)).mean()


class AdaptiveConfidenceSemantic(DistillationLoss):
    """Weighted sum of cross-entropy, soft targets, adaptive confidence and semantics (PSKD).

    .. math:: L = \\mathrm{CE}(z_S, y) + \\alpha L_K + \\beta L_{MK} + \\gamma L_S

    with :math:`L_K = \\frac1K \\sum_k T^2\\, \\mathrm{KL}(\\mathrm{softmax}(z_k/T) \\| \\mathrm{softmax}(z_S/T))`,
    :math:`L_{MK}` the loss ``adaptive-confidence`` and, between embeddings of one width,
    :math:`L_S = \\frac1K \\sum_k \\mathrm{MSE}(H_S, H_k)`. J. Ni, A. H. H. Ngu, Y. Yan, "Progressive Cross-modal Knowledge
    Distillation for Human Action Recognition", ACM MM 2022, https://doi.org/10.1145/3503161.3548238, Eqs. (1)-(7). The paper
    finds the weights by grid search and does not give them.

    Args:
        alpha: Weight of soft targets.
        beta: Weight of adaptive confidence.
        gamma: Weight of semantics; the taps are needed where it is above 0.
        temperature: T, a number or a ramp over epochs.
        squared: Multiply L_K by T².
        weights: See ``adaptive-confidence``.
        gate: See ``adaptive-confidence``.
        student_tap: Where H_S is, (B, D).
        teacher_tap: Where H_k is, (B, D).
        include_ce: Whether CE(z_S, y) is part of this term. Better have ``cross-entropy`` as a term of its own, which is
            logged by itself and which a student without teachers learns with too.
    """

    def __init__(
        self,
        *,
        alpha: Annotated[float, Ge(0)] = 1.0,
        beta: Annotated[float, Ge(0)] = 1.0,
        gamma: Annotated[float, Ge(0)] = 1.0,
        temperature: Annotated[float, Gt(0)] | Ramp = 4.0,
        squared: bool = True,
        weights: Weights = "confidence",
        gate: Gate = "correct_renorm",
        student_tap: str = "fc0",
        teacher_tap: str = "fc0",
        include_ce: bool = False,
    ):
        super().__init__()
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.temperature = temperature
        self.squared = squared
        self.adaptive_confidence = AdaptiveConfidence(weights=weights, gate=gate)
        self.student_tap, self.teacher_tap = student_tap, teacher_tap
        self.include_ce = include_ce
        self.needs = Needs(labels=True, teachers=1)
        if gamma:
            self.needs = replace(self.needs, student_taps=(student_tap,), teacher_taps=(teacher_tap,))

    def setup(self, example: Example) -> None:
        """Check that embeddings have one width.

        Raises:
            ValueError: If they do not.
        """
        if not self.gamma:
            return
        own = example.student.features[self.student_tap].shape[1:]
        for name, teacher in example.teachers.items():
            if (theirs := teacher.features[self.teacher_tap].shape[1:]) != own:
                raise ValueError(
                    f"acs compares embeddings of one width, but the student's is {tuple(own)}, {name}'s {tuple(theirs)}"
                )

    def forward(self, ctx: LossContext) -> Tensor:
        """The sum of all parts."""
        loss = self.alpha * self._soft_targets(ctx) + self.beta * self.adaptive_confidence(ctx)
        if self.gamma:
            loss = loss + self.gamma * self._semantics(ctx)
        return loss + F.cross_entropy(full_precision(ctx.student.logits), ctx.labels) if self.include_ce else loss

    def _soft_targets(self, ctx: LossContext) -> Tensor:
        T = ctx.progress.at(self.temperature)
        teachers = torch.stack([teacher.logits for teacher in ctx.teachers.values()])
        divergences = softened_kl(ctx.student.logits, teachers, T).mean(dim=1)
        return divergences.mean() * (T**2 if self.squared else 1.0)

    def _semantics(self, ctx: LossContext) -> Tensor:
        own, *theirs = (per_sample(x, len(ctx.batch)) for x in self._embeddings(ctx))
        return torch.stack([F.mse_loss(own, each) for each in theirs]).mean()

    def _embeddings(self, ctx: LossContext) -> list[Tensor]:
        """H_S and every H_k."""
        return [ctx.student.features[self.student_tap], *(each.features[self.teacher_tap] for each in ctx.teachers.values())]
