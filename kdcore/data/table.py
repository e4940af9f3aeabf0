"""The table of a run: prepared samples by participant, with labels and splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor

from kdcore.contracts.batch import Batch
from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.protocol import HELD_OUT, Splits
from kdcore.contracts.target import OF_CLASSES, Target, known, partly_known
from kdcore.data.dropped import DropReport
from kdcore.data.mapped import read_ahead
from kdcore.data.pipeline import bare
from kdcore.errors import TrainingError
from kdcore.recipe.data_models import MixSpec


@dataclass
class Table:
    """The prepared samples of a run, one per row, joined by key.

    Args:
        keys: Keys of the N rows.
        labels: Labels for evaluation: (N,) int64, -1 if unknown; (N, names) float32 for the targets ``labels`` and ``values``
            (in their units), NaN if unknown.
        train_labels: Labels for training: `labels` with the recipe's label noise and with values normalised. They are -1 or NaN
            where the recipe withholds labels, and in the splits `HELD_OUT`.
        rows: Split → (n,) int64, its rows.
        inputs: Participant → one tensor (N, …), or one per modality.
        classes: Class names.
        splits: The splits, with their rule.
        fingerprint: Hash of the recordings.
        dropped: Recordings without a row, and why.
        warnings: Warnings about the splits.
        present: Participant → (N,) bool, the rows that have its signals; without participants that have all. Inputs of other
            rows are placeholders, which must not be read.
        sampler: Order of the samples in an epoch: ``shuffled``, or ``balanced`` over the classes of `train_labels`.
        mix: Options of mixup or cutmix; None for neither.
        target: Kind of the labels; for values, with the mean and standard deviation of their normalisation.
        weights: (N,) float32 sample weights; None for equal weights.
    """

    keys: tuple[SampleKey, ...]
    labels: Tensor
    train_labels: Tensor
    rows: dict[str, Tensor]
    inputs: dict[str, tuple[Tensor, ...]]
    classes: tuple[str, ...]
    splits: Splits
    fingerprint: str
    dropped: DropReport = field(default_factory=DropReport)
    warnings: tuple[str, ...] = ()
    present: dict[str, Tensor] = field(default_factory=dict)
    sampler: str = "shuffled"
    mix: MixSpec | None = None
    target: Target = OF_CLASSES
    weights: Tensor | None = None

    def training_rows(self, split: str, learners: Iterable[str] = ()) -> Tensor:
        """The rows of a training split. All training stages get their rows here, so that held-out splits are never trained on.

        Args:
            split: Name of the split.
            learners: Keep rows that have the signals of at least one of these participants; all rows if empty.

        Raises:
            TrainingError: If the split is held out or does not exist.
        """
        if split in HELD_OUT:
            raise TrainingError(f"training is not allowed on the {split} split")
        if split not in self.rows:
            names = ", ".join(sorted(set(self.rows) - set(HELD_OUT)))
            raise TrainingError(f"there is no split {split!r} to train on (available: {names}; {self.splits.rule})")
        rows, learners = self.rows[split], list(learners)
        if not learners or any(name not in self.present for name in learners):
            return rows
        usable = torch.stack([self.present[name][rows] for name in learners]).any(0)
        if not bool(usable.any()):
            raise TrainingError(f"no sample of the {split} split has the signals of {' or '.join(learners)}")
        return rows[usable]

    def labelled_rows(self, split: str) -> Tensor:
        """The labelled rows of a split; none if the split does not exist."""
        rows = self.rows.get(split)
        return self.labels.new_zeros(0) if rows is None else rows[known(self.labels[rows])]

    def held_out_keys(self) -> dict[str, list[SampleKey]]:
        """Held-out split → keys of its samples."""
        return {split: [self.keys[row] for row in self.rows[split].tolist()] for split in HELD_OUT if split in self.rows}

    def is_partly_labelled(self, split: str) -> bool:
        """True if some samples of a split have no training label."""
        return not bool(known(self.train_labels[self.training_rows(split)]).all())

    def epoch_order(self, rows: Tensor, seed: int) -> Tensor:
        """`rows` in the order of an epoch, which depends only on `seed`, the labels and the sampler."""
        labels = self.train_labels[rows].cpu()
        order = balanced(labels, seed) if self.sampler == "balanced" else shuffled(len(rows), seed)
        return rows[order.to(rows.device)]

    def class_counts(self, rows: Tensor) -> Tensor | None:
        """(classes,) int64: number of `rows` with each class or label in `train_labels`.

        None if that is unknown, or for the target ``values``.
        """
        labels = self.train_labels[rows]
        labels = labels[known(labels)]
        if self.target.kind == "labels":
            return (labels == 1).sum(0)
        return torch.bincount(labels, minlength=len(self.classes)) if self.target.is_classes else None

    def labelled_count(self, rows: Tensor) -> int | Tensor | None:
        """Number of `rows` with a training label; None if unknown.

        For several labels per sample, (names,) int64: the number of rows for which each label is known.
        """
        labels = self.train_labels[rows]
        if self.target.kind == "labels" and partly_known(labels):
            return (labels == labels).sum(0)
        return int(known(labels).sum())

    def complete(self, participants: Iterable[str], rows: Tensor) -> Tensor | None:
        """(B,) bool mask of the `rows` that have the signals of all `participants`; None if all rows have them."""
        masks = [self.present[name][rows] for name in participants if name in self.present]
        mask = torch.stack(masks).all(0) if masks else None
        return None if mask is None or bool(mask.all()) else mask

    def complete_rows(self, participants: Iterable[str], rows: Tensor) -> Tensor:
        """The `rows` that have the signals of all `participants`."""
        mask = self.complete(participants, rows)
        return rows if mask is None else rows[mask]

    def unknown_labels(self, count: int) -> Tensor:
        """Return labels of `count` samples without known labels: -1 (count,) for classes, else NaN (count, names)."""
        if self.target.kind == "classes":
            return torch.full((count,), -1, device=self.labels.device)
        return torch.full((count, len(self.classes)), torch.nan, device=self.labels.device)

    def batch(self, rows: Tensor, participants: Iterable[str], labelled: bool = True, stand_ins: bool = False) -> Batch:
        """Look up a batch.

        Args:
            rows: (B,) int64.
            participants: Participants whose signals to include.
            labelled: Include the training labels.
            stand_ins: Allow rows without a participant's signals; the caller must not read their placeholders.

        Raises:
            TrainingError: If a row lacks the signals of a participant.
        """
        participants = list(participants)
        if self.present and not stand_ins and (mask := self.complete(participants, rows)) is not None:
            key = self.keys[int(rows[~mask][0])]
            raise TrainingError(f"{key} lacks the signals of one of {', '.join(participants)}, and would have been read")
        signals = {name: bare(tuple([_take(part, rows) for part in self.inputs[name]])) for name in participants}
        weights = None if self.weights is None else self.weights.index_select(0, rows)
        return Batch(rows, signals, self.train_labels.index_select(0, rows) if labelled else None, self.keys, weights)

    def read_ahead(self, batches: Sequence[Tensor], participants: Sequence[str]) -> None:
        """Prefetch the samples of later batches from disk; does nothing for data in memory.

        Args:
            batches: Rows of each batch, (B,) int64.
            participants: Participants whose signals will be read.
        """
        for rows, name in product(batches, participants):
            for part in self.inputs.get(name, ()):
                read_ahead(part, rows)

    def to(self, device: torch.device, limit: int) -> Table:
        """Copy with tensors on `device`; inputs are moved only if they take at most `limit` bytes in total."""
        size = sum(part.numel() * part.element_size() for parts in self.inputs.values() for part in parts)
        inputs = self.inputs
        if size <= limit:
            inputs = {name: tuple(part.to(device) for part in parts) for name, parts in inputs.items()}
        return replace(
            self,
            inputs=inputs,
            rows={name: each.to(device) for name, each in self.rows.items()},
            labels=self.labels.to(device),
            train_labels=self.train_labels.to(device),
            present={name: mask.to(device) for name, mask in self.present.items()},
            weights=None if self.weights is None else self.weights.to(device),
        )


def _take(part: Tensor, rows: Tensor) -> Tensor:
    """``part[rows]`` on the rows' device, wherever `part` is kept."""
    if part.device == rows.device:
        read_ahead(part, rows)
        return part.index_select(0, rows)
    moved = rows.to(part.device)
    read_ahead(part, moved)
    return part.index_select(0, moved).to(rows.device, non_blocking=True)


def shuffled(count: int, seed: int) -> Tensor:
    """A permutation of ``range(count)`` that depends only on `seed`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def balanced(labels: Tensor, seed: int) -> Tensor:
    """Draw N sample indices for an epoch, balanced over classes.

    With K non-empty classes, every K consecutive draws of labelled samples contain one of each. Samples of a class are drawn
    in random order without replacement, and again once all were drawn. Each unlabelled sample is drawn once, anywhere.

    Args:
        labels: (N,) int64, on the CPU; -1 for unlabelled samples.
        seed: Random seed; the order depends on nothing else.

    Returns:
        (N,) int64, with repetitions.
    """
    random = torch.Generator().manual_seed(seed)
    known = labels >= 0
    classes, draws = labels[known].unique(), int(known.sum())
    if not draws:
        return torch.randperm(len(labels), generator=random)
    rounds = -(-draws // len(classes))
    sequence = torch.cat([classes[torch.randperm(len(classes), generator=random)] for _ in range(rounds)])[:draws]
    drawn = torch.empty(draws, dtype=torch.int64)
    for each in classes.tolist():
        members, wanted = (labels == each).nonzero().flatten(), sequence == each
        count = int(wanted.sum())
        orders = [members[torch.randperm(len(members), generator=random)] for _ in range(-(-count // len(members)))]
        drawn[wanted] = torch.cat([*orders, members[:0]])[:count]
    order = torch.empty(len(labels), dtype=torch.int64)
    at_known = known[torch.randperm(len(labels), generator=random)]
    order[at_known] = drawn
    unlabelled = (~known).nonzero().flatten()
    order[~at_known] = unlabelled[torch.randperm(len(unlabelled), generator=random)]
    return order
