"""Batches, outputs and loss contexts: the data of a training step."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.progress import Progress
from kdcore.errors import DataError


@dataclass(frozen=True)
class Batch:
    """A batch of B samples, the same for every participant.

    Args:
        rows: (B,) int64, row of each sample in the table.
        signals: Participant → its input (B, …), or a tuple of inputs that the participant joins.
        labels: (B,) int64 class indices; (B, names) float32 for the targets ``labels`` (0 or 1) and ``values`` (normalised with
            the training split's mean and standard deviation). None if withheld.
        table: Keys of all rows of the table.
        weights: (B,) float32 sample weights; None for equal weights.
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
        """Keys of the samples, in order."""
        return tuple(self.table[row] for row in self.rows.tolist())

    def with_labels(self, labels: Tensor | None) -> Self:
        """The same samples with other labels."""
        return self._changed(labels=labels)

    def with_weights(self, weights: Tensor | None) -> Self:
        """The same samples with other weights."""
        return self._changed(weights=weights)

    def select(self, index: Tensor) -> Self:
        """Select samples of the batch.

        Args:
            index: (b,) int64, indices in the batch.
        """
        signals = {
            name: tuple(part[index] for part in signal) if isinstance(signal, tuple) else signal[index]
            for name, signal in self.signals.items()
        }
        labels, weights = (None if each is None else each[index] for each in (self.labels, self.weights))
        return self._changed(signals=signals, labels=labels, weights=weights, **self._identity_of(index))

    def _identity_of(self, index: Tensor) -> dict[str, Any]:
        """The attributes that identify the samples at `index`."""
        return {"rows": self.rows[index]}

    def _changed(self, **attributes: Any) -> Self:
        batch = copy(self)
        batch.__dict__.update(attributes)  # frozen for everyone else
        return batch


class AnonymousBatch(Batch):
    """A batch whose samples have no identity across epochs, such as one of a loader that yields no indices.

    Args:
        size: Batch size B.
        signals: Participant → its input.
        labels: Labels as in `Batch`; None if there are none.
        weights: (B,) float32 sample weights; None for equal weights.
    """

    why = "they have no numbers: give each batch an 'index', (B,) of whole numbers"

    def __init__(
        self,
        size: int,
        signals: Mapping[str, Tensor | tuple[Tensor, ...]],
        labels: Tensor | None,
        weights: Tensor | None = None,
    ):
        self.__dict__.update(_size=size, signals=signals, labels=labels, table=(), weights=weights)

    @property
    def rows(self) -> Tensor:  # type: ignore[override]
        """Not available: losses with a memory of samples cannot be used.

        Raises:
            DataError: Always; it says how to provide indices.
        """
        raise DataError(f"this loss remembers samples, and {self.why}")

    def __len__(self) -> int:
        return self.__dict__["_size"]

    def _identity_of(self, index: Tensor) -> dict[str, Any]:
        return {"_size": len(index)}


class MixedBatch(AnonymousBatch):
    """A batch after mixup or cutmix. A term that reads labels is computed once for each of the two label sets."""

    why = "mixed ones are none: leave out data.mix, or this loss"


@dataclass(frozen=True)
class Classifier:
    r"""The linear layer that computes a participant's logits.

    .. math:: z = W f + b

    Args:
        weight: W, (classes, C).
        bias: b, (classes,); zeros if the layer has no bias.
    """

    weight: Tensor
    bias: Tensor

    def of_classes(self, classes: Tensor) -> Classifier:
        """Select the rows of `classes`.

        Args:
            classes: (k,) int64 class indices.
        """
        return Classifier(self.weight[classes], self.bias[classes])

    def detach(self) -> Classifier:
        """The same numbers without a graph."""
        return Classifier(self.weight.detach(), self.bias.detach())


@dataclass(frozen=True)
class Outputs:
    """The outputs of a participant for a batch.

    Args:
        logits: (B, classes).
        features: Tap → activation, (B, …).
        ablated: Outputs for all-zero inputs, if a loss declares ``Needs(ablated=...)``: of batch size 1 for ``single``, because
            all zero inputs are equal, and B for ``mixed``.
        classifier: The layer that computes the logits, if a loss declares ``Needs(classifiers=True)``.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    ablated: Outputs | None = None
    classifier: Classifier | None = None

    def select(self, index: Tensor) -> Outputs:
        """Select the outputs of some samples.

        Args:
            index: (b,) int64, indices in the batch.
        """
        count = len(self.logits)

        def selected(value: Tensor) -> Tensor:
            if len(value) == count:
                return value[index]
            if len(value) == 1:
                return value
            return value.unflatten(0, (count, -1))[index].flatten(0, 1)  # (B·S, …): S rows per sample, such as a clip's frames

        features = {tap: selected(value) for tap, value in self.features.items()}
        ablated = self.ablated
        if ablated is not None and len(ablated.logits) == count:
            ablated = ablated.select(index)
        return Outputs(self.logits[index], features, ablated, self.classifier)

    def of_classes(self, classes: Tensor) -> Outputs:
        """Select the logits of `classes`.

        Args:
            classes: (k,) int64 class indices.
        """
        return replace(
            self,
            logits=self.logits[:, classes],
            ablated=self.ablated and self.ablated.of_classes(classes),
            classifier=self.classifier and self.classifier.of_classes(classes),
        )

    def detach(self) -> Outputs:
        """The same numbers without a graph."""
        return Outputs(
            self.logits.detach(),
            {tap: value.detach() for tap, value in self.features.items()},
            self.ablated and self.ablated.detach(),
            self.classifier and self.classifier.detach(),
        )


class Networks(Protocol):
    """The networks of a term, by participant; see `LossContext.forward`. An empty name means the learner."""

    def input(self, name: str, batch: Batch) -> Tensor:
        """Compute a participant's input for a batch."""
        ...

    def axes(self, name: str) -> tuple[str, ...]:
        """Axis names of a participant's input."""
        ...

    def parameters(self, name: str) -> dict[str, Tensor]:
        """Parameters of a participant's network, by name."""
        ...

    def forward(self, name: str, x: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Outputs:
        """Run a participant on `x`, with other `parameters` if given."""
        ...

    def of_classes(self, classes: Tensor) -> Networks:
        """The same networks with outputs for `classes` only."""
        ...


@dataclass(frozen=True)
class LossContext:
    """The input of a loss.

    Args:
        student: Outputs of the learner, the only ones with gradients.
        teachers: Teacher → its detached outputs.
        peers: Peer → its detached outputs.
        batch: Keys, labels (None if withheld) and inputs.
        class_embeddings: (classes, D) float32; None unless the recipe declares them.
        progress: Current stage, epoch and step.
        networks: The networks, if the loss declares ``Needs(forward_passes=...)``.
        logged: Values that the loss logged, by name; see `log`.
    """

    student: Outputs
    teachers: Mapping[str, Outputs]
    batch: Batch
    peers: Mapping[str, Outputs] = field(default_factory=dict)
    class_embeddings: Tensor | None = None
    progress: Progress = field(default_factory=Progress)
    networks: Networks | None = field(default=None, repr=False)
    logged: MutableMapping[str, Tensor] = field(default_factory=dict, repr=False)

    def log(self, name: str, value: Tensor | float) -> None:
        """Log a number of the loss, such as a learned temperature.

        It is tracked as ``train/<learner>/<term>/<name>``, once per epoch: the mean over the batches that log it.

        Args:
            name: Name of letters, digits, ``_``, ``-`` and ``.``.
            value: A scalar.

        Raises:
            ValueError: If the name has other characters, or the value is not a scalar.
        """
        number = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float32).detach().clone()
        if number.numel() != 1:
            raise ValueError(f"log({name!r}, …) requires a scalar, not a tensor of shape {tuple(number.shape)}")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ValueError(f"log({name!r}, …): a name has letters, digits, '_', '-' and '.' only")
        self.logged[name] = number.reshape(())

    def input(self, of: str = "") -> Tensor:
        """The input of a participant's network for the batch, (B, …), without augmentation.

        Args:
            of: Name of a teacher or peer; the learner by default.

        Raises:
            ValueError: If the loss does not declare ``Needs(forward_passes=...)``, or no participant has that name.
        """
        return self._networks.input(of, self.batch)

    def axes(self, of: str = "") -> tuple[str, ...]:
        """Axis names of `input` without the batch axis, such as ``("channel", "time")``; empty if unknown.

        Args:
            of: Name of a teacher or peer; the learner by default.

        Raises:
            ValueError: As for `input`.
        """
        return self._networks.axes(of)

    def parameters(self, of: str = "") -> dict[str, Tensor]:
        """The parameters of a participant's network by name, as a basis for those passed to `forward`.

        Those of the learner are the parameters that are trained. Those of teachers and peers are copies that require a
        gradient, so that none reaches the teacher or peer itself.

        Args:
            of: Name of a teacher or peer; the learner by default.

        Raises:
            ValueError: As for `input`.
        """
        return self._networks.parameters(of)

    def forward(self, x: Tensor, of: str = "", parameters: Mapping[str, Tensor] | None = None) -> Outputs:
        """Run a participant's network on inputs of the loss's own, such as transformed or mixed copies of `input`.

        The learner runs in its current mode: in training, the pass updates running statistics, and its outputs have gradients.
        Teachers and peers run in evaluation mode. Their weights get no gradient, but `x` and `parameters` do if they require
        one.

        Args:
            x: (b, …), inputs of any batch size, with the axes of `input`.
            of: Name of a teacher or peer; the learner by default.
            parameters: Name → tensor that replaces a parameter of the network in this pass, such as one after a gradient step.
                Names and shapes are those of the method `parameters`; the others stay.

        Raises:
            ValueError: As for `input`; if `x` requires a gradient that the network cannot compute; and if the network has no
                parameter of that name and shape.
        """
        return self._networks.forward(of, x, parameters)

    @property
    def _networks(self) -> Networks:
        if self.networks is None:
            raise ValueError("the loss cannot run networks; declare Needs(forward_passes=...)")
        return self.networks

    def select(self, index: Tensor) -> LossContext:
        """Select samples of the batch.

        Args:
            index: (b,) int64, indices in the batch.
        """
        return replace(
            self,
            student=self.student.select(index),
            teachers={name: outputs.select(index) for name, outputs in self.teachers.items()},
            peers={name: outputs.select(index) for name, outputs in self.peers.items()},
            batch=self.batch.select(index),
        )

    def of_classes(self, classes: Tensor) -> LossContext:
        """Restrict logits, labels and class embeddings to `classes`, in that order.

        Samples of other classes stay, with the label -1. Labels (B, names) keep the columns of `classes`.

        Args:
            classes: (k,) int64 class indices.
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
            networks=self.networks and self.networks.of_classes(classes),
        )

    @property
    def weights(self) -> Tensor | None:
        """(B,) float32 sample weights greater than 0; None for equal weights.

        A loss that reads labels and applies the weights sets `DistillationLoss.sample_weights`.
        """
        return self.batch.weights

    @property
    def labels(self) -> Tensor:
        """(B,) int64 class indices; (B, names) float32 for the targets ``labels`` and ``values``.

        Unknown entries of (B, names) are NaN; a loss that ignores them sets `DistillationLoss.partial_labels`.

        Raises:
            ValueError: If labels are withheld; a loss that reads them must declare ``Needs(labels=True)``.
        """
        if self.batch.labels is None:
            raise ValueError("labels are withheld in this run; declare Needs(labels=True) to find this before training")
        return self.batch.labels
