"""Distillation losses: one term of the objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from torch import Tensor, nn

from kdcore.contracts.batch import LossContext, Outputs
from kdcore.contracts.needs import Needs
from kdcore.contracts.target import TargetKind
from kdcore.functional import full_precision

Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class Example:
    """Outputs for one batch, from which a loss reads shapes before training.

    Args:
        student: The learner's outputs.
        teachers: Teachers' outputs by name.
        num_classes: Number of classes.
        class_names: Their names, in order; ``0``, ``1`` … if they have none.
        class_counts: (classes,) int64, labelled training samples of each class, or with each label. None if unknown.
        labelled: Number of labelled training samples; (names,) int64 if samples have several labels, some of which may be
            unknown. None if unknown.
    """

    student: Outputs
    teachers: Mapping[str, Outputs] = field(default_factory=dict)
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    class_counts: Tensor | None = None
    labelled: int | Tensor | None = None

    def __post_init__(self) -> None:
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, range(self.num_classes))))


class DistillationLoss(nn.Module):
    """Base class of distillation losses: one named term of the objective.

    Constructor parameters are the recipe's options. `needs` is a class attribute, or set by the constructor where it depends
    on options. Parameters (a regressor, say) are trained with the student: create them in the constructor, or in
    `setup` where their shapes depend on the participants. They stay in float32 at least when the loss is cast to half
    precision, because `kdcore.functional` converts activations to float32.

    Attributes:
        needs: The inputs that the loss requires.
        temperature_power: For a loss with an option ``temperature``: k, if scaling logits and temperature by c scales the
            value by c^k; 2 for soft targets multiplied by T², 0 for others. `kdcore.testing` checks it; None declares
            nothing.
        targets: Supported kinds of targets, ``("classes",)`` by default. A loss that reads no labels and takes no softmax of
            logits sets ``kdcore.EVERY_TARGET``. Recipes with other targets are refused.
        sample_weights: True if the loss reads labels and uses `LossContext.weights`. A loss that reads labels and ignores the
            weights is refused if the dataset has weights.
        partial_labels: True if the loss reads several labels or values per sample and ignores NaN, which marks unknown ones;
            see `kdcore.functional.known_mean`. Other losses that read labels are refused if labels are partly
            known.
    """

    needs: Needs = Needs()
    temperature_power: int | None = None
    targets: tuple[TargetKind, ...] = ("classes",)
    sample_weights: bool = False
    partial_labels: bool = False

    def setup(self, example: Example) -> None:
        """Create parameters whose shapes depend on the participants; called once, before training.

        Raises:
            ValueError: If the shapes do not fit; the message gives the reason.
        """

    def forward(self, ctx: LossContext) -> Tensor:
        """Compute the value of the term: a scalar, averaged over the batch."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast parameters and buffers, but keep them in float32 at least."""

        def applied(x: Tensor) -> Tensor:
            found = fn(x)
            return x.to(found.device) if full_precision(found) is not found and found.is_floating_point() else found

        return super()._apply(applied, recurse)

    def maps(self, outputs: Outputs, role: Role, class_embeddings: Tensor | None) -> Mapping[str, Tensor]:
        """Return the spatial maps that the loss compares, for the report, which draws them over the inputs.

        Args:
            outputs: Outputs of a participant, with those for an all-zero input if `needs` declares them.
            role: Role of the participant in this term.
            class_embeddings: (classes, D), None unless the recipe declares them.

        Returns:
            Title → (B, h, w), or (B, time, h, w) for clips, at least 0.
        """
        return {}
