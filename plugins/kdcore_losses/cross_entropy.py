"""Cross-entropy with the labels."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, LossContext, Needs
from kdcore.functional import full_precision


class CrossEntropy(DistillationLoss):
    """Cross-entropy of the learner's logits with the labels; the one term that teachers usually learn with.

    .. math:: L = -\\frac1B \\sum_b \\sum_c q_{bc} \\log \\mathrm{softmax}(z_b)_c

    with :math:`q_b` one-hot, or :math:`(1 - \\varepsilon)` one-hot :math:`+\\ \\varepsilon / C` where smoothed.

    Args:
        label_smoothing: Share :math:`\\varepsilon` of the target spread evenly over the C classes.
    """

    needs = Needs(labels=True)

    def __init__(self, *, label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over the batch."""
        return F.cross_entropy(full_precision(ctx.student.logits), ctx.labels, label_smoothing=self.label_smoothing)
