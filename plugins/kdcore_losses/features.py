"""The base class of losses on inner activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from kdcore import DistillationLoss, Example, LossContext, Needs, Outputs
from kdcore.functional import full_precision, per_sample

Pairs = Sequence[tuple[str, str]]
"""Pairs of (teacher's tap, student's tap)."""

DEFAULT: Pairs = (("features", "features"),)

Comparison = tuple[str, Tensor, Tensor]
"""A name for teacher and pair, the student's and the teacher's activation."""


class FeatureLoss(DistillationLoss):
    """Compares activations at pairs of taps with every teacher; the mean over teachers and pairs.

    A subclass says what one comparison is. Persons or frames folded into the batch are averaged before it.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).

    Raises:
        ValueError: If there is no pair.
    """

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast parameters, but keep them in float32 at least, as the activations that they meet."""

        def applied(x: Tensor) -> Tensor:
            found = fn(x)
            return x.to(found.device) if full_precision(found) is not found else found

        return super()._apply(applied, recurse)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """One comparison of activations (B, C, …), a scalar; `key` names teacher and pair, in setup as in training."""
        raise NotImplementedError

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over teachers and pairs."""
        found = self.activations(ctx.student, ctx.teachers, batch=len(ctx.batch))
        return torch.stack([self.compare(key, student, teacher) for key, student, teacher in found]).mean()

    def activations(self, student: Outputs, teachers: Mapping[str, Outputs], batch: int) -> Iterator[Comparison]:
        """Every comparison to be made, one row a sample."""
        for name, teacher in teachers.items():
            for number, (of_teacher, of_student) in enumerate(self.pairs):
                key = f"{name}_{number}".replace(".", "_")
                yield key, per_sample(student.features[of_student], batch), per_sample(teacher.features[of_teacher], batch)

    def examples(self, example: Example) -> Iterator[Comparison]:
        """The same for the outputs that `setup` is shown."""
        return self.activations(example.student, example.teachers, batch=len(example.student.logits))
