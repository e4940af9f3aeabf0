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
    """One batch's outputs, from which a loss can read shapes before training.

    Args:
        student: The learner's outputs.
        teachers: Teachers' outputs by name.
        num_classes: Number of classes.
        class_names: Their names, in order; ``0``, ``1`` … if they have none.
        class_counts: (classes,) int64, training samples whose label is told, by class; of several labels a sample, those that
            have each label. None if nobody counted them.
        labelled: Training samples whose label is told; (names,) int64 where samples have several labels, of which some may not
            be known. None if nobody counted them.
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
    """One named term of the objective; all that the author of a loss writes.

    Constructor parameters are the recipe's options. `needs` is a class attribute, or set by the constructor where it depends
    on options. Parameters (a regressor, say) are trained with the student: create them in the constructor, or in
    `setup` where their shapes depend on the participants. They stay in float32 at least when the loss is cast to half
    precision, because `kdcore.functional` converts activations to float32.

    Attributes:
        needs: What it must be given.
        temperature_power: For a loss with an option ``temperature``: k, if logits and temperature c times as large make
            its value c^k times as large, which is 2 for soft targets multiplied by T² and 0 for others. None says nothing;
            a declared one is checked by `kdcore.testing`.
        targets: Kinds of targets that it is for: ``classes`` alone, unless it says otherwise. A loss that reads no labels and
            takes no softmax of logits is for ``kdcore.EVERY_TARGET``. Others are refused before training.
        sample_weights: True if it reads labels and weighs samples by `LossContext.weights`. A loss that reads labels and does
            not is refused before training where the dataset gives weights.
        partial_labels: True if it reads several labels or values of a sample and leaves out those that are NaN, which are
            not known; see `kdcore.functional.known_mean`. A loss that reads labels and does not is refused
            before training where some labels of a sample are known and others are not.
    """

    needs: Needs = Needs()
    temperature_power: int | None = None
    targets: tuple[TargetKind, ...] = ("classes",)
    sample_weights: bool = False
    partial_labels: bool = False

    def setup(self, example: Example) -> None:
        """Create parameters whose shapes depend on the participants; called once, before training.

        Raises:
            ValueError: If these shapes cannot meet, saying why.
        """

    def forward(self, ctx: LossContext) -> Tensor:
        """The term's value, a scalar, averaged over the batch."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast parameters and buffers, but keep them in float32 at least."""

        def applied(x: Tensor) -> Tensor:
            found = fn(x)
            return x.to(found.device) if full_precision(found) is not found and found.is_floating_point() else found

        return super()._apply(applied, recurse)

    def maps(self, outputs: Outputs, role: Role, class_embeddings: Tensor | None) -> Mapping[str, Tensor]:
        """The maps that it compares of a participant, if they have height and width; drawn over its inputs in a run's report.

        Args:
            outputs: The participant's, with the answers to an all-zero input where `needs` says so.
            role: Whether it learns by this term or is learnt from.
            class_embeddings: (classes, D), None unless the recipe declares them.

        Returns:
            Title → (B, h, w), or (B, time, h, w) for clips, at least 0.
        """
        return {}
