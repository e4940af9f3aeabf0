"""The base class of losses on inner activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from kdcore import EVERY_TARGET, DistillationLoss, Example, LossContext, Needs, Outputs
from kdcore.functional import per_sample, same_positions

Pairs = Sequence[tuple[str, str]]
"""Pairs of (teacher's tap, student's tap)."""

DEFAULT: Pairs = (("features", "features"),)

Comparison = tuple[str, Tensor, Tensor]
"""A name for teacher and pair, the student's and the teacher's activation."""


class FeatureLoss(DistillationLoss):
    """Base class of losses that compare activations at pairs of taps; the mean over teachers and pairs.

    Subclasses implement one comparison in `compare`. Persons or frames folded into the batch are averaged first.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).

    Raises:
        ValueError: If there is no pair.
    """

    targets = EVERY_TARGET

    def __init__(self, pairs: Pairs = DEFAULT):
        super().__init__()
        if not pairs:
            raise ValueError("give at least one pair of taps")
        self.pairs = [(teacher, student) for teacher, student in pairs]
        self.needs = Needs(
            teachers=1,
            student_taps=tuple(dict.fromkeys(student for _, student in self.pairs)),
            teacher_taps=tuple(dict.fromkeys(teacher for teacher, _ in self.pairs)),
        )

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """One comparison of activations (B, C, …), a scalar; `key` names teacher and pair, in setup as in training."""
        raise NotImplementedError

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers and pairs."""
        found = self.activations(ctx.student, ctx.teachers, batch=len(ctx.batch))
        return torch.stack([self.compare(key, student, teacher) for key, student, teacher in found]).mean()

    def activations(self, student: Outputs, teachers: Mapping[str, Outputs], batch: int) -> Iterator[Comparison]:
        """Every pair of activations to compare, with one row for each sample."""
        for name, teacher in teachers.items():
            for number, (of_teacher, of_student) in enumerate(self.pairs):
                key = f"{name}_{number}".replace(".", "_")
                yield key, per_sample(student.features[of_student], batch), per_sample(teacher.features[of_teacher], batch)

    def examples(self, example: Example) -> Iterator[Comparison]:
        """Return the same for the outputs that `setup` is shown."""
        return self.activations(example.student, example.teachers, batch=len(example.student.logits))


def require_positions(loss: str, student: Tensor, teacher: Tensor) -> None:
    """Check that activations share at least two positions.

    Raises:
        ValueError: If they do, naming the `loss`.
    """
    if same_positions(student, teacher)[0][:1, :1].numel() < 2:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(f"{loss} compares positions, but {shapes} share fewer than two")
