"""The base class of losses that compare logits with labels, each class with a weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from kdcore import DistillationLoss, Example, LossContext, Needs
from kdcore.functional import full_precision
from kdcore.suggestions import did_you_mean

ClassWeights = Literal["balanced"] | dict[str, Annotated[float, Gt(0)]]
"""Weights by class name, or ``balanced``."""


class LabelLoss(DistillationLoss):
    """Base class of losses on logits and labels, with a weight for each class and for each sample.

    Args:
        class_weights: Weights by class name, 1 for other classes; ``balanced`` gives class c the weight
            :math:`N / (K n_c)`, with :math:`n_c` of the N labelled training samples and K classes that have any; None for 1.
    """

    needs = Needs(labels=True)
    sample_weights = True
    weights: Tensor | None

    def __init__(self, class_weights: ClassWeights | None = None):
        super().__init__()
        self.class_weights = class_weights
        self.register_buffer("weights", None, persistent=False)

    def setup(self, example: Example) -> None:
        """Find the weight of each class.

        Raises:
            ValueError: If a name is not a class, or for ``balanced`` if the training samples were not counted.
        """
        if self.class_weights is None:
            return
        if isinstance(self.class_weights, dict):
            weights = torch.tensor(named_weights(self.class_weights, example.class_names))
        elif example.class_counts is None:
            raise ValueError("class_weights: balanced needs the number of training samples per class, which is unknown here")
        else:
            weights = balanced_weights(example.class_counts)
        self.weights = full_precision(weights).to(example.student.logits.device)

    def mean(self, losses: Tensor, ctx: LossContext) -> Tensor:
        """Return the weighted mean of sample losses (B,), which are already multiplied by their class weights.

        .. math:: \\frac{\\sum_b v_b\\, \\ell_b}{\\sum_b v_b\\, w_{y_b}}

        with v the samples' weights and w those of classes.
        """
        of_class, of_sample = self.weights_for(losses), ctx.weights
        if of_sample is None:
            return losses.mean() if of_class is None else losses.sum() / of_class[ctx.labels].sum()
        of_sample = of_sample.to(losses)
        total = of_sample if of_class is None else of_sample * of_class[ctx.labels]
        return (of_sample * losses).sum() / total.sum()

    def weights_for(self, logits: Tensor) -> Tensor | None:
        """Return weights (C,) on the device and in the precision of `logits`; None if all classes weigh the same."""
        if self.weights is None and self.class_weights is not None:
            raise RuntimeError("setup must be called first; it finds the weight of each class")
        return None if self.weights is None else self.weights.to(logits)


def balanced_weights(counts: Tensor) -> Tensor:
    """Return weights (C,) inversely proportional to sample `counts` (C,), with mean 1 over all samples; 1 for empty classes."""
    counts = counts.double()
    weights = counts.sum() / (counts > 0).sum() / counts.clamp_min(1)
    return torch.where(counts > 0, weights, 1.0).float()


def named_weights(
    weights: Mapping[str, float], classes: tuple[str, ...], option: str = "class_weights", what: str = "class"
) -> list[float]:
    """Weight of each of `classes`; 1 if it is not named.

    Raises:
        ValueError: If a weight is given to something else; `option` and `what` name both.
    """
    for name in weights:
        if name not in classes:
            raise ValueError(f"{option}: there is no {what} {name!r} ({did_you_mean(name, classes)})")
    return [weights.get(name, 1.0) for name in classes]
