"""Soft targets over the teacher's most probable classes."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import Example, LossContext, Ramp
from kdcore_losses.logit_loss import LogitLoss


class TopK(LogitLoss):
    """Soft targets over a teacher's k most probable classes; stored outputs may contain only these.

    .. math:: L = \\frac1K \\sum_k T^2\\, \\mathrm{KL}(\\hat p_k \\| \\hat p_S)

    averaged over the batch, with :math:`\\hat p_k` the softmax at temperature T over the teacher's k most probable classes,
    and :math:`\\hat p_S` the student's over the same classes, or over all of them, which takes probability from the other
    classes. X. Tan et al., "Multilingual Neural Machine Translation with Knowledge Distillation", ICLR 2019,
    https://arxiv.org/abs/1902.10461, normalises the student over ``all``.

    Args:
        k: Number of classes.
        student: What the student's probabilities are normalised over: the same ``likeliest`` classes, or ``all``.
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does; this reads all of a teacher's logits.
    """

    temperature_power = 2

    def __init__(
        self,
        *,
        k: Annotated[int, Ge(2)] = 8,
        student: Literal["likeliest", "all"] = "likeliest",
        temperature: Annotated[float, Gt(0)] | Ramp = 4.0,
        standardise: bool = False,
    ):
        super().__init__(standardise)
        self.k = k
        self.over_all = student == "all"
        self.temperature = temperature
        self.temperature_power = None if standardise else 2

    def setup(self, example: Example) -> None:
        """Check that there are more than k classes.

        Raises:
            ValueError: If there are not; use ``soft-target`` instead.
        """
        if example.num_classes <= self.k:
            raise ValueError(f"k is {self.k}, but there are only {example.num_classes} classes: use a smaller k or soft-target")

    def compare(self, student: Tensor, teacher: Tensor, ctx: LossContext) -> Tensor:
        """Return the divergence of every sample."""
        T = ctx.progress.at(self.temperature)
        likeliest, classes = teacher.topk(self.k, dim=1)
        target = F.log_softmax(likeliest / T, dim=1)
        if self.over_all:
            given = F.log_softmax(student / T, dim=1).gather(1, classes)
        else:
            given = F.log_softmax(student.gather(1, classes) / T, dim=1)
        return F.kl_div(given, target, log_target=True, reduction="none").sum(dim=1) * T**2
