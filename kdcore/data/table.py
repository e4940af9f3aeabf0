"""Table of a run: every sample's tensors by participant, its label, and the split that it is in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kdcore.contracts.batch import Batch
from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.protocol import Splits
from kdcore.data.dropped import DropReport
from kdcore.data.pipeline import bare
from kdcore.errors import TrainingError

HELD_OUT = ("validation", "test")
"""Splits that nothing learns from, whatever a schedule or a plugin asks: one chooses epochs, the other gives results."""


@dataclass
class Table:
    """All rows of a run, joined by key.

    Args:
        keys: Which sample each of the N rows is.
        labels: (N,) int64, -1 where unknown; what evaluation compares with.
        train_labels: (N,) int64, what training is told: `labels` with the recipe's label noise, and -1 where it withholds
            them and in the splits `HELD_OUT`.
        rows: Split → its rows.
        inputs: Participant → one tensor (N, …), or one per modality.
        classes: Class names.
        splits: The splits, with their rule.
        fingerprint: Identity of the recordings.
        dropped: Recordings that became no rows, and why.
        warnings: What a person should know of the splits before trusting a result.
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

    def training_rows(self, split: str) -> Tensor:
        """The rows of a split that may be learnt from; every stage of training takes its rows from here.

        Raises:
            TrainingError: If the split is held out, or there is none of that name.
        """
        if split in HELD_OUT:
            raise TrainingError(f"training is not allowed on the {split} split")
        if split not in self.rows:
            learnt = ", ".join(sorted(set(self.rows) - set(HELD_OUT)))
            raise TrainingError(f"there is no split {split!r} to learn from; there are {learnt} ({self.splits.rule})")
        return self.rows[split]

    def batch(self, rows: Tensor, participants: Iterable[str], labelled: bool = True) -> Batch:
        """The samples at `rows` for `participants`; labels (those that training is told) None unless `labelled`."""
        signals = {}
        for name in participants:
            parts = tuple(_take(part, rows) for part in self.inputs[name])
            signals[name] = bare(parts)
        return Batch(rows, signals, self.train_labels[rows] if labelled else None, self.keys)

    def to(self, device: torch.device, limit: int) -> Table:
        """The table with its tensors on `device`; inputs only if they take no more than `limit` bytes together."""
        size = sum(part.numel() * part.element_size() for parts in self.inputs.values() for part in parts)
        inputs = (
            {name: tuple(part.to(device) for part in parts) for name, parts in self.inputs.items()}
            if size <= limit
            else self.inputs
        )
        rows = {name: rows.to(device) for name, rows in self.rows.items()}
        return replace(self, inputs=inputs, rows=rows, labels=self.labels.to(device), train_labels=self.train_labels.to(device))


def _take(part: Tensor, rows: Tensor) -> Tensor:
    """``part[rows]`` on the rows' device, wherever `part` is kept."""
    return part[rows] if part.device == rows.device else part[rows.to(part.device)].to(rows.device, non_blocking=True)


def epoch_order(count: int, seed: int) -> Tensor:
    """A permutation of ``range(count)`` that depends on `seed` alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
