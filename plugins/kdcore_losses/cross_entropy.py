"""Cross-entropy with the labels."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor
from torch.nn import functional as F

from kdcore import LossContext
from kdcore.functional import full_precision
from kdcore_losses.label_loss import ClassWeights, LabelLoss


class CrossEntropy(LabelLoss):
    """Cross-entropy of the learner's logits with the labels; the usual term for teachers.

    .. math:: L = -\\frac{1}{\\sum_b v_b w_{y_b}} \\sum_b v_b \\sum_c w_c\\, q_{bc} \\log \\mathrm{softmax}(z_b)_c

    with :math:`q_b` one-hot, or :math:`(1 - \\varepsilon)` one-hot :math:`+\\ \\varepsilon / C` where smoothed, and class
    weights w, as in `torch.nn.functional.cross_entropy`. Sample weights v are 1 unless the dataset defines them.

    Args:
        label_smoothing: Share :math:`\\varepsilon` of the target spread evenly over the C classes.
        class_weights: Weights by class name, 1 for other classes; ``balanced`` gives class c the weight
            :math:`N / (K n_c)`, with :math:`n_c` of the N labelled training samples and K classes that have any; None for 1.
    """

    def __init__(self, *, label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0, class_weights: ClassWeights | None = None):
        super().__init__(class_weights)
        self.label_smoothing = label_smoothing

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the weighted mean over the batch."""
        logits = full_precision(ctx.student.logits)
        weights = self.weights_for(logits)
        if ctx.weights is None:
            return F.cross_entropy(logits, ctx.labels, weights, label_smoothing=self.label_smoothing)
        losses = F.cross_entropy(logits, ctx.labels, weights, reduction="none", label_smoothing=self.label_smoothing)
        return self.mean(losses, ctx)
