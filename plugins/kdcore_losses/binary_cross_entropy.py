"""Binary cross-entropy with labels that may be true together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, LossContext, Needs
from kdcore.functional import full_precision, known_mean
from kdcore_losses.label_loss import ClassWeights, named_weights


class BinaryCrossEntropy(DistillationLoss):
    """Binary cross-entropy of the learner's logits with the labels of samples that may have several.

    .. math:: L = -\\frac{1}{C \\sum_b w_b} \\sum_b w_b \\sum_c
        \\left( p_c\\, y_{bc} \\log \\sigma(z_{bc}) + (1 - y_{bc}) \\log (1 - \\sigma(z_{bc})) \\right)

    with sample weights w, 1 unless the dataset defines them, and weights p of positive samples, as in
    `torch.nn.functional.binary_cross_entropy_with_logits` (``pos_weight``). If some labels are unknown, the mean is over the
    known ones (`kdcore.functional.known_mean`).

    Args:
        positive_weights: Weights of positive samples by label, 1 for other labels; ``balanced`` gives label c the weight
            :math:`(N_c - n_c) / n_c`, with :math:`n_c` of the :math:`N_c` training samples of which the label is known; None
            for 1.
    """

    needs = Needs(labels=True)
    targets = ("labels",)
    sample_weights = True
    partial_labels = True
    positive: Tensor | None

    def __init__(self, *, positive_weights: ClassWeights | None = None):
        super().__init__()
        self.positive_weights = positive_weights
        self.register_buffer("positive", None, persistent=False)

    def setup(self, example: Example) -> None:
        """Find the weight of each label's positive samples.

        Raises:
            ValueError: If a name is no label, or ``balanced`` is set but the training samples were not counted.
        """
        if self.positive_weights is None:
            return
        if isinstance(self.positive_weights, dict):
            weights = torch.tensor(named_weights(self.positive_weights, example.class_names, "positive_weights", "label"))
        elif example.class_counts is None or example.labelled is None:
            raise ValueError("positive_weights: balanced needs the training samples of each label, which are unknown here")
        else:
            counts = example.class_counts.double()
            balanced = (example.labelled - counts) / counts.clamp_min(1)
            weights = torch.where((counts > 0) & (balanced > 0), balanced, 1.0).float()
        self.positive = full_precision(weights).to(example.student.logits.device)

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over labels, and the weighted mean over the batch."""
        logits = full_precision(ctx.student.logits)
        positive = None if self.positive is None else self.positive.to(logits)

        def losses(labels: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(logits, labels, reduction="none", pos_weight=positive)

        return known_mean(losses, ctx.labels.to(logits), ctx.weights)
