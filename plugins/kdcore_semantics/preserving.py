"""The semantic-preserving loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, LossContext, Needs
from kdcore_semantics.features import embedding_at


class SemanticPreserving(DistillationLoss):
    r"""Draws a learner's features to the embedding of the class name.

    .. math:: L = \mathrm{mean}\, (H - E_y)^2

    over samples and entries, H the tapped features and :math:`E_y` the label's class embedding. As one of the
    ``teacher_losses`` it is the second term of SAKDN's teacher objective.

    Source: Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021), Eqs. (19)-(20).

    Args:
        tap: The learner's tap; as many units as a class embedding has numbers.
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
