"""The table a run learns from: every sample's tensors by participant, its label, and the part it stands in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kdcore.contracts.batch import Batch
from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.protocol import Split
from kdcore.data.pipeline import bare
from kdcore.errors import DataError

HELD_OUT = ("validation", "test")
"""Parts of a split that nothing learns from."""


@dataclass
class Table:
    """All rows of a run, joined by key.

    Args:
        keys: Which sample each of the N rows is.
        labels: (N,) int64, -1 where unknown; what evaluation compares with.
        taught: (N,) int64, what training is told: `labels` with the recipe's label noise, -1 where it withholds them.
        parts: Part → its rows.
        inputs: Participant → one tensor (N, …), or one per modality.
        classes: Class names.
        split: The split, with its rule.
        fingerprint: Identity of the recordings.
        notes: What was left out, and why.
    """

    keys: tuple[SampleKey, ...]
    labels: Tensor
    taught: Tensor
    parts: dict[str, Tensor]
    inputs: dict[str, tuple[Tensor, ...]]
    classes: tuple[str, ...]
    split: Split
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    def batch(self, rows: Tensor, participants: Iterable[str], labelled: bool = True) -> Batch:
        """The samples at `rows` for `participants`; labels None unless `labelled`."""
        signals = {}
        for name in participants:
            parts = tuple(_take(part, rows) for part in self.inputs[name])
            signals[name] = bare(parts)
        return Batch(rows, signals, self.taught[rows] if labelled else None, self.keys)

    def training_rows(self, part: str) -> Tensor:
        """The rows of a part, to learn from.

        Raises:
            DataError: If the part is held out, or absent.
        """
        if part in HELD_OUT:
            raise DataError(f"the {part} part is held out: nothing may learn from it")
        if part not in self.parts:
            raise DataError(f"the split has no part {part!r} (it has {', '.join(self.parts)})")
        return self.parts[part]

    def to(self, device: torch.device, limit: int) -> Table:
        """The table with its tensors on `device`; inputs only if they take no more than `limit` bytes together."""
        size = sum(part.numel() * part.element_size() for parts in self.inputs.values() for part in parts)
        inputs = (
            {name: tuple(part.to(device) for part in parts) for name, parts in self.inputs.items()}
            if size <= limit
            else self.inputs
        )
        parts = {name: rows.to(device) for name, rows in self.parts.items()}
        return replace(self, inputs=inputs, parts=parts, labels=self.labels.to(device), taught=self.taught.to(device))


def _take(part: Tensor, rows: Tensor) -> Tensor:
    """``part[rows]`` on the rows' device, wherever `part` is kept."""
    return part[rows] if part.device == rows.device else part[rows.to(part.device)].to(rows.device, non_blocking=True)


def epoch_order(count: int, seed: int) -> Tensor:
    """A permutation of ``range(count)`` that depends on `seed` alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
