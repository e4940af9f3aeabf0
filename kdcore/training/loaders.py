"""Training on the batches of a `DataLoader`, with the same engine as runs from recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcore.contracts.batch import AnonymousBatch, Batch, Outputs
from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.encoder import Participant
from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.protocol import Splits
from kdcore.contracts.target import OF_CLASSES, Target, TargetKind, known, partly_known
from kdcore.data.pipeline import Pipeline
from kdcore.data.table import Table
from kdcore.errors import DataError, RecipeError
from kdcore.recipe.graph import StagePlan
from kdcore.training.arm_setup import shape_of
from kdcore.training.assembly import Assembly
from kdcore.training.engine import Engine
from kdcore.training.evaluation import predict
from kdcore.training.stage_context import StageContext
from kdcore.training.validation import Scores

INPUT = "input"
"""Modality of all participants."""

INPUTS, LABELS = ("x", "inputs", "input"), ("labels", "label", "y", "targets", "target")
INDEX, WEIGHTS = ("index", "indices"), ("weights", "weight")
"""Keys of a batch that is a mapping, besides the names of participants."""


@dataclass(frozen=True)
class LoadedBatch:
    """One batch of a loader.

    Args:
        signals: Participant → its input: a tensor (B, …) or a tuple of tensors.
        labels: (B,) int64, or (B, names) float32 for other targets than ``classes``; None for unlabelled batches.
        index: (B,) int64, index of each sample in the dataset; None if unknown.
        weights: (B,) float32 sample weights greater than 0; None for equal weights.
    """

    signals: Mapping[str, Any]
    labels: Tensor | None = None
    index: Tensor | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        first = next(iter(self.signals.values()))
        return len(first[0] if isinstance(first, tuple) else first)


def read_batch(batch: Any, student: str, teachers: Sequence[str], target: TargetKind = "classes") -> LoadedBatch:
    """Convert a loader's batch from one of the forms that `kdcore.distil` documents.

    Args:
        batch: A batch of the loader.
        student: Name of the student.
        teachers: Names of the teachers.
        target: Kind of the labels.

    Raises:
        DataError: If the batch has another form, or an input or label is invalid.
    """
    names = (student, *teachers)
    if isinstance(batch, Mapping):
        loaded = _from_mapping(batch, names, target)
    else:
        loaded = _from_parts(tuple(batch) if isinstance(batch, tuple | list) else (batch,), student, teachers, target)
    _check(loaded, names)
    return loaded


def _from_parts(parts: tuple[Any, ...], student: str, teachers: Sequence[str], target: TargetKind) -> LoadedBatch:
    if not 1 <= len(parts) <= 3:
        raise DataError(f"a batch is (x, labels), (x, teachers' x, labels) or a dictionary, not {len(parts)} things")
    x, labels = parts[0], labels_of(parts[-1], target) if len(parts) > 1 else None
    teachers_x = parts[1] if len(parts) == 3 else dict.fromkeys(teachers, x)
    if not isinstance(teachers_x, Mapping):
        teachers_x = dict.fromkeys(teachers, teachers_x)
    if unknown := [name for name in teachers_x if name not in teachers]:
        raise DataError(f"a batch has an input for {unknown[0]!r}, but the teachers are {', '.join(teachers)}")
    inputs = {name: _input(teachers_x.get(name, x)) for name in teachers}
    return LoadedBatch({student: _input(x), **inputs}, labels)


def _from_mapping(batch: Mapping[str, Any], names: Sequence[str], target: TargetKind) -> LoadedBatch:
    known = {*names, *INPUTS, *LABELS, *INDEX, *WEIGHTS}
    if unknown := [str(key) for key in batch if key not in known]:
        raise DataError(f"a batch has the key {unknown[0]!r}; known are {', '.join(sorted(known))}; see unpack=")
    shared, labels, index, weights = (
        next((batch[key] for key in keys if key in batch), None) for keys in (INPUTS, LABELS, INDEX, WEIGHTS)
    )
    signals = {name: batch.get(name, shared) for name in names}
    if missing := [name for name, each in signals.items() if each is None]:
        raise DataError(f"a batch has no input for {missing[0]!r}: give it under that name, or under 'x' for all")
    inputs = {name: _input(each) for name, each in signals.items()}
    return LoadedBatch(inputs, labels_of(labels, target), _integers(index, "index"), _weights(weights))


def _input(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def labels_of(value: Any, target: TargetKind) -> Tensor | None:
    """Convert the labels of a batch to a tensor, as `LoadedBatch` has them.

    Raises:
        DataError: If they do not match the target.
    """
    if value is None or target == "classes":
        return _integers(value, "labels", "; for other targets set target='labels' or target='values'")
    numbers = torch.as_tensor(value).float()
    if target == "values" and numbers.ndim == 1:
        numbers = numbers[:, None]
    if numbers.ndim != 2:
        raise DataError(f"the {target} of a batch must be (samples, {target}), not of the shape {tuple(numbers.shape)}")
    wrong = numbers[~numbers.isnan() & (numbers != 0) & (numbers != 1)]
    if target == "labels" and len(wrong):
        raise DataError(f"a label must be 0 or 1, or NaN where it is not known, not {float(wrong[0]):g}")
    if bool(numbers.isinf().any()):
        raise DataError("values must be finite numbers, or NaN where they are not known")
    return numbers


def _integers(value: Any, what: str, hint: str = "") -> Tensor | None:
    """Convert to (B,) int64, refusing fractions and NaN."""
    if value is None:
        return None
    numbers = torch.as_tensor(value)
    if not numbers.ndim:
        raise DataError(f"{what} must be one whole number for each sample of a batch (for single samples, pass a DataLoader)")
    if numbers.ndim != 1:
        raise DataError(f"{what} must be one whole number for each sample, not of the shape {tuple(numbers.shape)}{hint}")
    if numbers.is_floating_point() and len(wrong := numbers[numbers != numbers.round()]):  # NaN, too
        raise DataError(f"{what} must be one whole number for each sample, not {float(wrong[0]):g}{hint}")
    return numbers.long()


def _weights(value: Any) -> Tensor | None:
    if value is None:
        return None
    weights = torch.as_tensor(value).float()
    if weights.ndim != 1 or not bool((torch.isfinite(weights) & (weights > 0)).all()):
        raise DataError("weights must be one number greater than 0 for each sample")
    return weights


def _check(batch: LoadedBatch, names: Sequence[str]) -> None:
    sizes = {}
    for name in names:
        for part in batch.signals[name] if isinstance(batch.signals[name], tuple) else (batch.signals[name],):
            if not isinstance(part, Tensor):
                raise DataError(
                    f"the input of {name} is a tensor or a tuple of tensors, not {type(part).__name__}; see unpack="
                )
            sizes[name] = len(part)
    for what, each in (("labels", batch.labels), ("index", batch.index), ("weights", batch.weights)):
        if each is not None:
            sizes[what] = len(each)
    if len(set(sizes.values())) > 1:
        raise DataError(f"the parts of a batch differ in length: {', '.join(f'{name} {size}' for name, size in sizes.items())}")
    if not len(batch):
        raise DataError("a batch is empty")


class Batches(Dataset):
    """The dataset of a recipe whose samples come from a loader: it has classes, labels or values, but no recordings.

    Args:
        outputs: Number of classes, labels or values.
        target: Kind of the labels.
        weighted: Whether batches have sample weights.
    """

    modalities: Mapping[str, Modality] = {INPUT: Modality(INPUT, ("sample",), ("sample",), "")}

    def __init__(self, outputs: int, target: Target = OF_CLASSES, weighted: bool = False):
        self.classes = [str(number) for number in range(outputs)]
        self.target, self.weighted = target, weighted

    def samples(self) -> Sequence[Sample]:
        """None: batches come from the loader."""
        return ()

    def read(self, sample: Sample, modality: str) -> Signal:
        """Nothing can be read."""
        raise DataError("the batches of a loader are no recordings")


class LoaderTable(Table):
    """A table whose rows are the samples of the loader's current batch.

    Args:
        batch: The first batch, used for setup and checks.
        device: Device to which batches are moved.
    """

    def __init__(self, batch: LoadedBatch, device: torch.device):
        self.device = device
        rows = torch.arange(len(batch), device=device)
        labels = torch.full((len(batch),), -1) if batch.labels is None else batch.labels
        labels = labels.to(device)
        keys = tuple(SampleKey("", "", str(number)) for number in range(len(batch)))
        splits = Splits({"train": ()}, "the batches of a loader")
        super().__init__(keys, labels, labels, {"train": rows}, {}, (), splits, "")
        self._rows = rows
        self.current = self._moved(batch)

    def describe(self, batches: Batches) -> None:
        """Set classes and target, once the number of outputs is known.

        Raises:
            DataError: If the number of labels or values per sample differs from the student's outputs.
        """
        self.classes, self.target = tuple(batches.classes), batches.target
        if self.labels.ndim == 2 and batches.classes and self.labels.shape[1] != len(batches.classes):
            what, outputs = batches.target.kind, len(batches.classes)
            raise DataError(f"samples have {self.labels.shape[1]} {what}, but the student outputs {outputs}")

    def _moved(self, batch: LoadedBatch) -> LoadedBatch:
        def move(value: Any) -> Any:
            return tuple(map(move, value)) if isinstance(value, tuple) else value.to(self.device, non_blocking=True)

        signals = {name: move(each) for name, each in batch.signals.items()}
        others = (None if each is None else move(each) for each in (batch.labels, batch.index, batch.weights))
        return LoadedBatch(signals, *others)

    def set_batch(self, batch: LoadedBatch) -> Tensor:
        """Make `batch` the current batch; returns its rows, 0 to B - 1."""
        self.current = self._moved(batch)
        self._rows = torch.arange(len(batch), device=self.device)
        return self._rows

    def is_partly_labelled(self, split: str) -> bool:
        """True: later batches may be partly labelled."""
        return True

    def class_counts(self, rows: Tensor) -> Tensor | None:
        """None: what later batches have is not known."""
        return None

    def labelled_count(self, rows: Tensor) -> int | None:
        """None: what later batches have is not known."""
        return None

    def batch(self, rows: Tensor, participants: Iterable[str], labelled: bool = True, stand_ins: bool = False) -> Batch:
        """Select samples of the current batch; every participant has an input for each."""
        current = self.current

        def select(value: Any) -> Any:
            if value is None or rows is self._rows:
                return value
            return tuple(map(select, value)) if isinstance(value, tuple) else value[rows]

        signals = {name: select(current.signals[name]) for name in participants}
        labels, weights = select(current.labels if labelled else None), select(current.weights)
        if current.index is None:
            return AnonymousBatch(len(rows), signals, labels, weights)
        return Batch(select(current.index), signals, labels, weights=weights)


class LoaderAssembly(Assembly):
    """Constructs participants from networks passed as Python objects, which read the loader's inputs unchanged."""

    def pipeline(self, name: str) -> Pipeline:
        """No transforms."""
        return _NoTransforms([])

    def _participant(self, name: str, table: Table, seed: int, device: torch.device, embeddings: Tensor | None) -> Participant:
        spec, path = self.specs[name], self.recipe.path_of(name)
        encoder = self.builder.encoder(path, spec, len(self.dataset.classes), ())
        try:
            return Participant(name, encoder, spec.taps, nn.Identity(), frozen=spec.freeze)
        except KeyError as error:
            raise RecipeError(self._tap_problems(encoder, spec, path)) from error

    def _wrong_logits(self, name: str, outputs: Outputs, samples: int) -> str:
        shape = shape_of(outputs.logits)
        if isinstance(shape, tuple) and len(shape) == 2 and shape[0] == samples:
            return ""  # a teacher may have other classes, where only its features are read
        return f"{name} returns {shape} where logits ({samples}, classes) are expected; wrap it in a module that returns them"


class _NoTransforms(Pipeline):
    """A pipeline without transforms."""

    @property
    def spec(self) -> Any:
        """None: the input's layout is unknown."""
        return None


class LoaderEngine(Engine):
    """Trains the learners of one stage on the batches of a loader.

    Args:
        loader: Yields the batches of one epoch each time it is iterated.
        steps: Batches per epoch.
        unpack: Converts a batch of the loader to a `LoadedBatch`.
        validation: Loader of the validation batches; None for no validation.
        options: Arguments of `Engine`; its table is a `LoaderTable`.
    """

    table: LoaderTable

    def __init__(
        self,
        *options: Any,
        loader: Iterable[Any],
        steps: int,
        unpack: Callable[[Any], LoadedBatch],
        validation: Iterable[Any] | None = None,
        **others: Any,
    ):
        super().__init__(*options, **others)
        self.loader, self.steps, self.unpack, self.validation = loader, steps, unpack, validation
        self.weighted = self.table.current.weights is not None

    def _rows(self, stage: StagePlan) -> tuple[Tensor, int]:
        return torch.arange(self.steps), 1

    def _batches(self, context: StageContext) -> Iterator[Tensor]:
        """Yield the rows of each batch of an epoch."""
        count, labelled = 0, False
        for index, loaded in enumerate(self.loader):
            if index == self.steps:
                break
            batch, count = self.unpack(loaded), index + 1
            if (batch.weights is not None) != self.weighted:
                raise DataError("some batches have weights and others have none; give every batch weights")
            self._refuse_partial(context, batch)
            labelled = labelled or (batch.labels is not None and bool(known(batch.labels).any()))
            yield self.table.set_batch(batch)
        reading = [term.spec.id for term in context.step.terms if term.loss.needs.labelled]
        if reading and not labelled:
            raise DataError(
                f"the loader gave no labelled sample in epoch {context.epoch + 1}, but the loss {reading[0]!r} reads labels"
            )
        if count < self.steps:
            raise DataError(
                f"the loader gave {count} batches in epoch {context.epoch + 1}, but {self.steps} were expected; give steps="
            )

    @staticmethod
    def _refuse_partial(context: StageContext, batch: LoadedBatch) -> None:
        """Refuse partly known labels if a term needs all labels of a sample."""
        for term in context.step.terms:
            needs_all = term.loss.needs.labelled and not term.loss.partial_labels
            if needs_all and batch.labels is not None and partly_known(batch.labels):
                what = context.step.table.target.kind
                raise DataError(f"the loss {term.spec.id!r} needs all {what} of a sample, but some are not known (NaN)")

    def _scores(self, stage: StagePlan) -> dict[str, Scores]:
        """Scores of each learner on the labelled samples of the validation loader."""
        if self.validation is None:
            return {}
        predictions: dict[str, list[np.ndarray]] = {name: [] for name in stage.learners}
        labels: list[np.ndarray] = []
        for loaded in self.validation:
            batch = self.unpack(loaded)
            if batch.labels is None:
                raise DataError("the batches of the validation loader have no labels")
            rows, batch_labels = self.table.set_batch(batch), batch.labels.cpu().numpy()
            labelled = known(batch_labels)
            for name, each in predict(self.distiller, stage.learners, rows, self.table, len(batch), self.fabric).items():
                predictions[name].append(each[labelled])
            labels.append(batch_labels[labelled])
        if not sum(map(len, labels)):
            raise DataError("the validation loader gave no labelled samples")
        every, target = np.concatenate(labels), self.table.target
        return {name: Scores.of(np.concatenate(each), every, target) for name, each in predictions.items()}
