"""Class attention transfer."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from kdcore import EVERY_TARGET, Classifier, DistillationLoss, Example, LossContext, Needs, Outputs
from kdcore.functional import adaptive_mean, full_precision, in_full_precision, mean_over_positions, per_sample

TOLERANCE = 0.01
"""Share of the largest logit by which a network's logits may differ from those computed here, because of rounding."""


class ClassAttention(DistillationLoss):
    """Compare class activation maps: the evidence for each class at each position.

    .. math:: A_k(p) = \\sum_c W_{kc} F_c(p), \\qquad L = \\frac1{K P} \\sum_{k=1}^K \\sum_{p=1}^P
        \\left(\\phi(A_k^T)_p - \\phi(A_k^S)_p\\right)^2

    averaged over the batch, with :math:`W` the classifier's weights (K classes, C channels), :math:`F` the activation whose
    mean over positions the classifier reads, and :math:`\\phi` average pooling to P positions. With `normalise`, each pooled
    map has length one. Z. Guo, H. Yan, H. Li, X. Lin, "Class Attention Transfer Based Knowledge Distillation", CVPR 2023,
    https://arxiv.org/abs/2304.12777, section 3; the mean over positions, and maps that are not normalised where a cross-entropy
    is added, as in the authors' code. Its weights: 15 for ResNet32x4 and ResNet8x4 on CIFAR-100, 0.5 on ImageNet.

    Numbers of channels need not agree. To match shapes, persons, frames and surplus position axes are averaged. The term also
    trains the student's classifier.

    Args:
        teacher_tap: The teacher's activation before global average pooling and the classifier.
        student_tap: The student's.
        size: Length to which each axis is pooled.
        normalise: Divide each pooled map by its L2 norm, as the authors do if no other term is used.
    """

    targets = EVERY_TARGET

    def __init__(
        self,
        *,
        teacher_tap: str = "features",
        student_tap: str = "features",
        size: Annotated[int, Ge(1)] = 2,
        normalise: bool = False,
    ):
        super().__init__()
        self.teacher_tap, self.student_tap = teacher_tap, student_tap
        self.size, self.normalise = size, normalise
        self.needs = Needs(teachers=1, classifiers=True, student_taps=(student_tap,), teacher_taps=(teacher_tap,))

    def setup(self, example: Example) -> None:
        """Check that the classifiers read the means of the taps.

        Raises:
            ValueError: If one does not, an activation has no positions, or a teacher has other classes.
        """
        named = {"the student": (self.student_tap, example.student)}
        for name, (tap, outputs) in (named | {n: (self.teacher_tap, each) for n, each in example.teachers.items()}).items():
            features = per_sample(outputs.features[tap], len(outputs.logits))
            if features.ndim < 3:
                shape = tuple(features.shape)
                raise ValueError(f"cat-kd compares positions, but the tap {tap!r} of {name}, {shape}, has none; tap a map")
            if not _comes_from(outputs, features):
                raise ValueError(
                    f"the logits of {name} are not those of its classifier for the mean of the tap {tap!r}, "
                    f"{tuple(features.shape)}; tap the activation right before global average pooling"
                )

            if outputs.logits.shape[1] != example.student.logits.shape[1]:
                own, other = example.student.logits.shape[1], outputs.logits.shape[1]
                raise ValueError(
                    f"cat-kd compares the maps of each class, but the student has {own} classes and {name} {other}"
                )

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers, samples, classes and positions."""
        own = per_sample(ctx.student.features[self.student_tap], len(ctx.batch))
        found = []
        for outputs in ctx.teachers.values():
            teacher_features = per_sample(outputs.features[self.teacher_tap], len(ctx.batch))
            axes = min(own.ndim, teacher_features.ndim)
            student = activation_maps(own, _of(ctx.student).weight, axes, self.size)
            teacher = activation_maps(teacher_features, _of(outputs).weight, axes, self.size)
            if self.normalise:
                student, teacher = F.normalize(student, dim=2), F.normalize(teacher, dim=2)
            found.append(F.mse_loss(student, teacher))
        return torch.stack(found).mean()


@in_full_precision
def activation_maps(x: Tensor, weight: Tensor, axes: int, size: int) -> Tensor:
    """Return pooled class activation maps; pooling before the linear classifier is equivalent.

    Args:
        x: Features (B, C, …).
        weight: Of the classifier, (K, C).
        axes: Axes of `x` to keep, those of samples and channels among them.
        size: Length to which each other axis is pooled.

    Returns:
        (B, K, P)
    """
    x = x.flatten(axes).mean(dim=-1) if x.ndim > axes else x
    for axis in range(2, axes):
        x = adaptive_mean(x, axis, size)
    return weight @ x.flatten(2)


def _of(outputs: Outputs) -> Classifier:
    if outputs.classifier is None:
        raise ValueError("cat-kd reads classifiers: kdcore.Outputs(…, classifier=kdcore.Classifier(weight, bias))")
    return outputs.classifier


def _comes_from(outputs: Outputs, features: Tensor) -> bool:
    """True if the logits are those of the classifier for the means of `features` (B, C, …)."""
    classifier = _of(outputs)
    if features.shape[1] != classifier.weight.shape[1]:
        return False
    wanted = mean_over_positions(features) @ full_precision(classifier.weight).T
    found = full_precision(outputs.logits) - full_precision(classifier.bias)
    return bool((found - wanted).abs().max() <= TOLERANCE * found.abs().max())
