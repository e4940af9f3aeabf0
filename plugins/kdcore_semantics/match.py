"""The loss that matches a student's embedding to its teachers'."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, LossContext, Needs
from kdcore_semantics.features import embedding_at


class SemanticMatch(DistillationLoss):
    r"""Draws the student's features to those of every teacher.

    .. math:: L = \frac1m \sum_k \mathrm{mean}\, (H_S - H_k)^2

    over samples and entries. With teachers that were trained with ``semantic-preserving`` it hands the class semantics on.

    Source: :math:`L_{SP}` of Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021), Eq. (24); L_S of Ni et
    al., Progressive Cross-modal Knowledge Distillation (ACM MM 2022), Eq. (6).

    Args:
        student_tap: The student's tap.
        teacher_tap: Every teacher's tap, of the same width.
    """

    def __init__(self, *, student_tap: str = "fc0", teacher_tap: str = "fc2"):
        super().__init__()
        self.student_tap, self.teacher_tap = student_tap, teacher_tap
        self.needs = Needs(teachers=1, student_taps=(student_tap,), teacher_taps=(teacher_tap,))

    def setup(self, example: Example) -> None:
        """Check that the taps are equally wide.

        Raises:
            ValueError: If they are not, naming teacher and widths.
        """
        width = embedding_at(example.student, self.student_tap).shape[1]
        for name, teacher in example.teachers.items():
            found = embedding_at(teacher, self.teacher_tap).shape[1]
            if found != width:
                raise ValueError(
                    f"semantic-match: tap {self.student_tap!r} of the student has {width} units, "
                    f"tap {self.teacher_tap!r} of teacher {name!r} has {found}"
                )

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over teachers."""
        own = embedding_at(ctx.student, self.student_tap)
        terms = [F.mse_loss(own, embedding_at(teacher, self.teacher_tap)) for teacher in ctx.teachers.values()]
        return torch.stack(terms).mean()
