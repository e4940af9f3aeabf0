"""Losses that draw features to class embeddings, or to other features trained so."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import EVERY_TARGET, DistillationLoss, Example, LossContext, Needs, Outputs
from kdcore.functional import mean_over_frames


def embedding_at(outputs: Outputs, tap: str) -> Tensor:
    """The activation (B, n) at `tap`; features of frames, (B, S, n) or (B·S, n), are averaged over them.

    Raises:
        ValueError: If it has another shape, such as a map's.
    """
    value, batch = outputs.features[tap], len(outputs.logits)
    try:
        return mean_over_frames(value, batch)
    except ValueError as error:
        raise ValueError(f"tap {tap!r} gives {tuple(value.shape)}; an embedding has the shape (batch, width)") from error


class SemanticPreserving(DistillationLoss):
    r"""Mean squared error between a learner's features and the embedding of the class name.

    .. math:: L = \mathrm{mean}\, (H - E_y)^2

    over samples and entries, H the tapped features and :math:`E_y` the label's class embedding. As one of the
    ``teacher_losses`` it is the second term of SAKDN's teacher objective.

    Source: Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021, https://arxiv.org/abs/2009.00210), Eqs.
    (19)-(20).

    Args:
        tap: The learner's tap, with as many units as a class embedding.
    """

    def __init__(self, *, tap: str = "fc2"):
        super().__init__()
        self.tap = tap
        self.needs = Needs(labels=True, class_embeddings=True, student_taps=(tap,))

    def setup(self, example: Example) -> None:
        """Check the tap's shape.

        Raises:
            ValueError: If it is not one vector per sample.
        """
        embedding_at(example.student, self.tap)

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean squared error.

        Raises:
            ValueError: If the tap's width is not that of the class embeddings.
        """
        table = ctx.class_embeddings
        if table is None:
            raise ValueError("semantic-preserving needs class embeddings")
        features = embedding_at(ctx.student, self.tap)
        if features.shape[1] != table.shape[1]:
            raise ValueError(
                f"semantic-preserving: tap {self.tap!r} has {features.shape[1]} units, "
                f"class embeddings {table.shape[1]} numbers"
            )
        return F.mse_loss(features, table[ctx.labels].to(features.dtype))


class SemanticMatch(DistillationLoss):
    r"""Mean squared error between the student's features and those of every teacher.

    .. math:: L = \frac1m \sum_k \mathrm{mean}\, (H_S - H_k)^2

    over samples and entries. If the teachers were trained with ``semantic-preserving``, it transfers their class semantics.

    Source: :math:`L_{SP}` of Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021,
    https://arxiv.org/abs/2009.00210), Eq. (24); L_S of Ni et al., Progressive Cross-modal Knowledge Distillation (ACM MM 2022,
    https://doi.org/10.1145/3503161.3548238), Eq. (6).

    Args:
        student_tap: The student's tap.
        teacher_tap: Every teacher's tap, of the same width.
    """

    targets = EVERY_TARGET

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
