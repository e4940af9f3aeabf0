"""Distillation losses: one term of the objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from torch import Tensor, nn

from kdcore.contracts.batch import LossContext, Outputs
from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.needs import Needs
from kdcore.contracts.target import TargetKind
from kdcore.functional import full_precision

Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class Example:
    """Outputs for one batch, from which a loss reads shapes in `DistillationLoss.setup`.

    Args:
        student: Outputs of the learner.
        teachers: Teacher → its outputs.
        num_classes: Number of classes.
        class_names: Class names in order; ``0``, ``1`` … by default.
        class_counts: (classes,) int64, number of labelled training samples per class, or with each label. None if unknown.
        labelled: Number of labelled training samples; for several labels per sample, (names,) int64 numbers of samples whose
            label is known. None if unknown.
        peers: Peer → its outputs.
        num_samples: Number of rows of the table, for a memory of samples: each of `Batch.rows` is smaller. 0 if unknown.
        input_shapes: Participant → shape of its network's input, without the batch axis; the learner is ``""``. See
            `input_shape`.
        keys: Sample keys of the learner's training samples, for example to count subjects; empty if unknown.
    """

    student: Outputs
    teachers: Mapping[str, Outputs] = field(default_factory=dict)
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    class_counts: Tensor | None = None
    labelled: int | Tensor | None = None
    peers: Mapping[str, Outputs] = field(default_factory=dict)
    num_samples: int = 0
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    keys: Sequence[SampleKey] = ()

    def __post_init__(self) -> None:
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, range(self.num_classes))))

    def input_shape(self, of: str = "") -> tuple[int, ...]:
        """The shape of a participant's `LossContext.input`, without the batch axis, such as (channels, time).

        Args:
            of: Name of a teacher or peer; the learner by default.

        Raises:
            ValueError: If it is unknown, as for a teacher from stored outputs and for losses outside of a recipe.
        """
        if of not in self.input_shapes:
            raise ValueError(f"the shape of the input of {repr(of) if of else 'the learner'} is unknown")
        return self.input_shapes[of]


class DistillationLoss(nn.Module):
    """Base class of losses: one named term of the objective.

    Constructor parameters are the recipe's options. Set `needs` as a class attribute, or in the constructor if it depends on
    options. Parameters, such as a regressor's, are trained with the student: create them in the constructor, or in `setup` if
    their shapes depend on the networks. They stay in float32 when the loss is cast to half precision, because
    `kdcore.functional` converts activations to float32.

    Attributes:
        needs: Inputs that the loss requires.
        temperature_power: For a loss with an option ``temperature``: the k for which scaling logits and temperature by c scales
            the loss by c^k; 2 for soft targets multiplied by T², 0 without that factor. None if undeclared; `kdcore.testing`
            checks a declared value.
        targets: Supported kinds of targets; ``classes`` only by default. Use ``kdcore.EVERY_TARGET`` for a loss that reads no
            labels and takes no softmax of logits. Other targets are refused before training.
        sample_weights: True if the loss reads labels and weights samples by `LossContext.weights`. Other losses that read
            labels are refused before training if the dataset has sample weights.
        partial_labels: True if the loss ignores unknown (NaN) entries of labels (B, names); see
            `kdcore.functional.known_mean`. Other losses that read labels are refused if labels are partly known.
    """

    needs: Needs = Needs()
    temperature_power: int | None = None
    targets: tuple[TargetKind, ...] = ("classes",)
    sample_weights: bool = False
    partial_labels: bool = False

    def setup(self, example: Example) -> None:
        """Create parameters whose shapes depend on the participants; called once, before training.

        Raises:
            ValueError: If the shapes do not match; says why.
        """

    def begin_epoch(self, samples: Iterator[LossContext]) -> None:
        """Read all training samples at the start of an epoch, for example to compute the mean of each class.

        Called before the first step of every epoch in which the term's learner is trained. Nothing is computed until `samples`
        is iterated, so a loss that needs them once iterates in epoch 0 only. Networks run in evaluation mode, on samples
        without augmentation and mixing, and without gradients. Keep results in buffers.

        Args:
            samples: What `forward` would get, for all samples in turn, in batches of which the last may be smaller.
        """

    def forward(self, ctx: LossContext) -> Tensor:
        """Compute the loss, a scalar, averaged over the batch."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast parameters and buffers, but never below float32."""

        def applied(x: Tensor) -> Tensor:
            y = fn(x)
            return x.to(y.device) if full_precision(y) is not y and y.is_floating_point() else y

        return super()._apply(applied, recurse)

    def maps(self, outputs: Outputs, role: Role, class_embeddings: Tensor | None) -> Mapping[str, Tensor]:
        """The spatial maps of a participant that the loss compares, if any; reports draw them over the inputs.

        Args:
            outputs: Outputs of the participant, with `Outputs.ablated` if `needs` declares it.
            role: ``student`` for the learner of the term, ``teacher`` for a source.
            class_embeddings: (classes, D); None unless the recipe declares them.

        Returns:
            Title → non-negative map (B, h, w), or (B, time, h, w) for clips.
        """
        return {}
