"""Table of a run: every sample's tensors by participant, its label, and the split that it is in."""

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
    """All rows of a run, joined by key.

    Args:
        keys: Which sample each of the N rows is.
        labels: (N,) int64, -1 where unknown; what evaluation compares with. (N, names) float32 where the target is ``labels``
            or ``values``, in their units, and NaN where unknown.
        train_labels: What training is told: `labels` with the recipe's label noise, values normalised; and -1 or NaN where it
            withholds them and in the splits `HELD_OUT`.
        rows: Split → its rows.
        inputs: Participant → one tensor (N, …), or one per modality.
        classes: Class names.
        splits: The splits, with their rule.
        fingerprint: Identity of the recordings.
        dropped: Recordings that became no rows, and why.
        warnings: What a person should know of the splits before trusting a result.
        present: Participant → (N,) bool, the rows that have its signals; without those that have all. The inputs of other rows
            are stand-ins, which nothing may read.
        sampler: Order of an epoch's samples: ``shuffled``, or ``balanced`` over the classes that training is told.
        mix: Mixing of the samples of a batch with one another.
        target: The form of the labels; of values, with the statistics that they are normalised with.
        weights: (N,) float32, the weights of the samples; None if all weigh the same.
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
        """The rows of a split that may be learnt from; every stage of training takes its rows from here.

        Args:
            split: Its name.
            learners: Participants, one of which must have the row's signals; all rows if there are none.

        Raises:
            TrainingError: If the split is held out, or there is none of that name.
        """
        if split in HELD_OUT:
            raise TrainingError(f"training is not allowed on the {split} split")
        if split not in self.rows:
            learnt = ", ".join(sorted(set(self.rows) - set(HELD_OUT)))
            raise TrainingError(f"there is no split {split!r} to learn from; there are {learnt} ({self.splits.rule})")
        rows, learners = self.rows[split], list(learners)
        if not learners or any(name not in self.present for name in learners):
            return rows
        there = torch.stack([self.present[name][rows] for name in learners]).any(0)
        if not bool(there.any()):
            raise TrainingError(f"no sample of the {split} split has the signals of {' or '.join(learners)}")
        return rows[there]

    def labelled_rows(self, split: str) -> Tensor:
        """The rows of a split whose true label is known; none if there is no such split."""
        rows = self.rows.get(split)
        return self.labels.new_zeros(0) if rows is None else rows[known(self.labels[rows])]

    def is_partly_labelled(self, split: str) -> bool:
        """True if training is told no label for some samples of a split."""
        return not bool(known(self.train_labels[self.training_rows(split)]).all())

    def epoch_order(self, rows: Tensor, seed: int) -> Tensor:
        """`rows` in the order of an epoch, which depends on `seed`, the labels and the sampler alone."""
        labels = self.train_labels[rows].cpu()
        order = balanced(labels, seed) if self.sampler == "balanced" else shuffled(len(rows), seed)
        return rows[order.to(rows.device)]

    def class_counts(self, rows: Tensor) -> Tensor | None:
        """(classes,) int64: how many of `rows` training is told to be of each class, or to have each label.

        None if that is not known, or if there are values in place of classes.
        """
        told = self.train_labels[rows]
        told = told[known(told)]
        if self.target.kind == "labels":
            return (told == 1).sum(0)
        return torch.bincount(told, minlength=len(self.classes)) if self.target.is_classes else None

    def labelled_count(self, rows: Tensor) -> int | Tensor | None:
        """The number of `rows` that training is told a label of; None if that is not known.

        Where samples have several labels, of which some may not be known, it is (names,), the number for each.
        """
        told = self.train_labels[rows]
        if self.target.kind == "labels" and partly_known(told):
            return (told == told).sum(0)
        return int(known(told).sum())

    def complete(self, participants: Iterable[str], rows: Tensor) -> Tensor | None:
        """Mask of the `rows` that have the signals of all `participants`, (B,) bool; None if all have."""
        masks = [self.present[name][rows] for name in participants if name in self.present]
        mask = torch.stack(masks).all(0) if masks else None
        return None if mask is None or bool(mask.all()) else mask

    def batch(self, rows: Tensor, participants: Iterable[str], labelled: bool = True, stand_ins: bool = False) -> Batch:
        """The samples at `rows` for `participants`.

        Args:
            rows: (B,) int64.
            participants: Whose signals are wanted.
            labelled: Give the labels that training is told.
            stand_ins: Take rows that lack a participant's signals, too; the caller does not read them.

        Raises:
            TrainingError: If a row lacks the signals of a participant.
        """
        signals, participants = {}, list(participants)
        if self.present and not stand_ins and (mask := self.complete(participants, rows)) is not None:
            key = self.keys[int(rows[~mask][0])]
            raise TrainingError(f"{key} lacks the signals of one of {', '.join(participants)}, and would have been read")
        for name in participants:
            signals[name] = bare(tuple([_take(part, rows) for part in self.inputs[name]]))
        weights = None if self.weights is None else self.weights.index_select(0, rows)
        return Batch(rows, signals, self.train_labels.index_select(0, rows) if labelled else None, self.keys, weights)

    def read_ahead(self, batches: Sequence[Tensor], participants: Sequence[str]) -> None:
        """Have the system read the samples of later batches meanwhile; nothing for data in memory.

        Args:
            batches: The rows of each, (B,) int64.
            participants: Whose signals will be wanted.
        """
        for rows, name in product(batches, participants):
            for part in self.inputs.get(name, ()):
                read_ahead(part, rows)

    def to(self, device: torch.device, limit: int) -> Table:
        """The table with its tensors on `device`; inputs only if they take no more than `limit` bytes together."""
        size = sum(part.numel() * part.element_size() for parts in self.inputs.values() for part in parts)
        inputs = (
            {name: tuple(part.to(device) for part in parts) for name, parts in self.inputs.items()}
            if size <= limit
            else self.inputs
        )
        rows = {name: each.to(device) for name, each in self.rows.items()}
        return replace(
            self,
            inputs=inputs,
            rows=rows,
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
    here = rows.to(part.device)
    read_ahead(part, here)
    return part.index_select(0, here).to(rows.device, non_blocking=True)


def shuffled(count: int, seed: int) -> Tensor:
    """A permutation of ``range(count)`` that depends on `seed` alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def balanced(labels: Tensor, seed: int) -> Tensor:
    """Places of N samples to draw in an epoch, so that every run of consecutive draws has about as many of each class.

    Of K classes with any sample, each K consecutive draws of labelled samples have one. A class's samples come in random order,
    all of them before any comes again. Unlabelled samples come once each, at random places.

    Args:
        labels: (N,) int64, on the CPU; -1 for unlabelled samples.
        seed: Decides the order, with nothing else.

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
    found = torch.empty(len(labels), dtype=torch.int64)
    at_known = known[torch.randperm(len(labels), generator=random)]
    found[at_known] = drawn
    unlabelled = (~known).nonzero().flatten()
    found[~at_known] = unlabelled[torch.randperm(len(unlabelled), generator=random)]
    return found
