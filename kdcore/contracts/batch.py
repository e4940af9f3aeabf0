"""Batches, outputs and loss contexts: the data of a training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.progress import Progress
from kdcore.errors import DataError


@dataclass(frozen=True)
class Batch:
    """The same B samples for every participant, joined by key.

    Args:
        rows: (B,) int64, rows of `table`.
        signals: Participant → its input, (B, …); a tuple where several modalities are joined later.
        labels: (B,) int64 class indices; (B, names) floats where the dataset's target is ``labels`` (0 or 1) or ``values``
            (normalised by the training samples). None where withheld.
        table: Keys of all rows of the table.
        weights: (B,) floats, weights of the samples; None where all weigh the same.
    """

    rows: Tensor
    signals: Mapping[str, Tensor | tuple[Tensor, ...]]
    labels: Tensor | None
    table: Sequence[SampleKey] = field(default=(), repr=False)
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def keys(self) -> tuple[SampleKey, ...]:
        """Identities of the samples, in order."""
        return tuple(self.table[row] for row in self.rows.tolist())

    def with_labels(self, labels: Tensor | None) -> Batch:
        """The same samples with other labels."""
        return replace(self, labels=labels)

    def with_weights(self, weights: Tensor | None) -> Batch:
        """The same samples with other weights."""
        return replace(self, weights=weights)

    def select(self, index: Tensor) -> Batch:
        """Some samples of the batch.

        Args:
            index: (b,) int64, places in the batch.
        """
        signals = {
            name: tuple(part[index] for part in signal) if isinstance(signal, tuple) else signal[index]
            for name, signal in self.signals.items()
        }
        labels, weights = (None if each is None else each[index] for each in (self.labels, self.weights))
        return Batch(self.rows[index], signals, labels, self.table, weights)


class AnonymousBatch(Batch):
    """A batch of samples without identities, such as those of a loader that gives no indices.

    Args:
        size: B.
        signals: Participant → its input.
        labels: As of any batch, None where there are none.
        weights: (B,) floats, weights of the samples; None where all weigh the same.
    """

    why = "they have no numbers: give each batch an 'index', (B,) of whole numbers"

    def __init__(
        self,
        size: int,
        signals: Mapping[str, Tensor | tuple[Tensor, ...]],
        labels: Tensor | None,
        weights: Tensor | None = None,
    ):
        told = {"_size": size, "signals": signals, "labels": labels, "table": (), "weights": weights}
        for name, value in told.items():
            object.__setattr__(self, name, value)

    @property
    def rows(self) -> Tensor:  # type: ignore[override]
        """Not available: a loss with a memory of samples cannot be used.

        Raises:
            DataError: Always; the message says how to provide indices.
        """
        raise DataError(f"this loss remembers samples, and {self.why}")

    def __len__(self) -> int:
        return self._size  # type: ignore[attr-defined]

    def with_labels(self, labels: Tensor | None) -> AnonymousBatch:
        """The same samples with other labels."""
        return type(self)(len(self), self.signals, labels, self.weights)

    def with_weights(self, weights: Tensor | None) -> AnonymousBatch:
        """The same samples with other weights."""
        return type(self)(len(self), self.signals, self.labels, weights)

    def select(self, index: Tensor) -> AnonymousBatch:
        """Some samples of the batch."""
        signals = {
            name: tuple(part[index] for part in signal) if isinstance(signal, tuple) else signal[index]
            for name, signal in self.signals.items()
        }
        labels, weights = (None if each is None else each[index] for each in (self.labels, self.weights))
        return type(self)(len(index), signals, labels, weights)


class MixedBatch(AnonymousBatch):
    """Mixtures of two samples each. A term that reads labels is computed for both samples' labels."""

    why = "mixed ones are none: leave out data.mix, or this loss"


@dataclass(frozen=True)
class Classifier:
    r"""The linear layer whose outputs are a participant's logits.

    .. math:: z = W f + b

    Args:
        weight: W, (classes, C).
        bias: b, (classes,); zeros where the layer has none.
    """

    weight: Tensor
    bias: Tensor

    def of_classes(self, classes: Tensor) -> Classifier:
        """Select the rows of some classes.

        Args:
            classes: (k,) int64, classes of the run.
        """
        return Classifier(self.weight[classes], self.bias[classes])

    def detach(self) -> Classifier:
        """The same numbers without a graph."""
        return Classifier(self.weight.detach(), self.bias.detach())


@dataclass(frozen=True)
class Outputs:
    """The outputs of a participant.

    Args:
        logits: (B, classes).
        features: Tap name → activation, (B, …).
        ablated: Outputs for an all-zero input if the loss declares that it reads them, else None. Their batch size is 1,
            since all zero inputs are equal, or B if the loss declares ``mixed``.
        classifier: The linear layer before the logits if the loss declares that it reads it, else None.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    ablated: Outputs | None = None
    classifier: Classifier | None = None

    def select(self, index: Tensor) -> Outputs:
        """The outputs of some samples of the batch.

        Args:
            index: (b,) int64, places in the batch.
        """
        count = len(self.logits)

        def chosen(value: Tensor) -> Tensor:
            if len(value) in (1, count):
                return value if len(value) == 1 != count else value[index]
            return value.unflatten(0, (count, -1))[index].flatten(0, 1)  # several rows of an activation belong to one sample

        features = {tap: chosen(value) for tap, value in self.features.items()}
        ablated = self.ablated
        if ablated is not None and len(ablated.logits) == count:
            ablated = ablated.select(index)
        return Outputs(self.logits[index], features, ablated, self.classifier)

    def of_classes(self, classes: Tensor) -> Outputs:
        """Select the logits of some classes.

        Args:
            classes: (k,) int64, classes of the run.
        """
        return Outputs(
            self.logits[:, classes],
            self.features,
            self.ablated and self.ablated.of_classes(classes),
            self.classifier and self.classifier.of_classes(classes),
        )

    def detach(self) -> Outputs:
        """The same numbers without a graph."""
        return Outputs(
            self.logits.detach(),
            {tap: value.detach() for tap, value in self.features.items()},
            self.ablated.detach() if self.ablated else None,
            self.classifier.detach() if self.classifier else None,
        )


@dataclass(frozen=True)
class LossContext:
    """The inputs of a loss.

    Args:
        student: The learner's outputs; the only ones that carry a graph.
        teachers: Teachers by name, without a graph.
        peers: The other students by name, without a graph.
        batch: Keys, labels (None where withheld) and inputs.
        class_embeddings: (classes, D), None unless the recipe declares them.
        progress: Stage, epoch and step.
    """

    student: Outputs
    teachers: Mapping[str, Outputs]
    batch: Batch
    peers: Mapping[str, Outputs] = field(default_factory=dict)
    class_embeddings: Tensor | None = None
    progress: Progress = field(default_factory=Progress)

    def select(self, index: Tensor) -> LossContext:
        """The context of some samples of the batch.

        Args:
            index: (b,) int64, places in the batch.
        """
        return LossContext(
            self.student.select(index),
            {name: outputs.select(index) for name, outputs in self.teachers.items()},
            self.batch.select(index),
            {name: outputs.select(index) for name, outputs in self.peers.items()},
            self.class_embeddings,
            self.progress,
        )

    def of_classes(self, classes: Tensor) -> LossContext:
        """Restrict logits, labels and class embeddings to `classes`, in that order.

        Samples of other classes stay, with the label -1; samples with several labels keep those of `classes`.

        Args:
            classes: (k,) int64, classes of the run.
        """
        batch, embeddings = self.batch, self.class_embeddings
        if batch.labels is not None and batch.labels.ndim == 2:
            batch = batch.with_labels(batch.labels[:, classes])
        elif batch.labels is not None:
            count = self.student.logits.shape[1]
            place = torch.full((count + 1,), -1, dtype=batch.labels.dtype, device=batch.labels.device)  # the last is for -1
            place[classes] = torch.arange(len(classes), dtype=place.dtype, device=place.device)
            batch = batch.with_labels(place[batch.labels])
        return replace(
            self,
            student=self.student.of_classes(classes),
            teachers={name: outputs.of_classes(classes) for name, outputs in self.teachers.items()},
            peers={name: outputs.of_classes(classes) for name, outputs in self.peers.items()},
            batch=batch,
            class_embeddings=None if embeddings is None else embeddings[classes],
        )

    @property
    def weights(self) -> Tensor | None:
        """(B,) positive floats, the weights of the samples; None for equal weights.

        A loss that reads labels and uses the weights sets `DistillationLoss.sample_weights`.
        """
        return self.batch.weights

    @property
    def labels(self) -> Tensor:
        """(B,) int64 class indices; (B, names) floats where the dataset's target is ``labels`` or ``values``.

        A label that is not known is NaN; a loss that leaves it out sets `DistillationLoss.partial_labels`.

        Raises:
            ValueError: Where labels are withheld; a loss that reads them must declare ``Needs(labels=True)``.
        """
        if self.batch.labels is None:
            raise ValueError("labels are withheld in this run; declare Needs(labels=True) to find this before training")
        return self.batch.labels
