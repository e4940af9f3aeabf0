"""Means of the losses, and of the numbers that losses log, over the batches of an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

NO_SAMPLES = torch.finfo(torch.float32).max
"""Recorded in place of the value of a term that has no sample in a batch. It is finite, unlike the value of a faulty loss."""


def term_means(values: Tensor) -> list[float]:
    """Means of the columns of `values`, (batches, terms), over the batches that have samples; NaN where none has."""
    empty = values == NO_SAMPLES
    if not bool(empty.any()):
        return values.mean(0).tolist()
    return values.masked_fill(empty, torch.nan).nanmean(0).tolist()


class EpochMeans:
    """Sums up scalars by name. Nothing is copied from the device before the means are requested."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, term: str, values: Mapping[str, Tensor]) -> None:
        """Add the scalars that a term logged for a batch, by name."""
        for key, value in values.items():
            name, value = f"{term}/{key}", value.to(torch.float32 if value.device.type == "mps" else torch.float64)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """``term/name`` → mean over the batches that logged it."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

    def state(self) -> dict[str, tuple[Tensor, int]]:
        """The state as plain data for a checkpoint."""
        return {name: (total.cpu(), self._counts[name]) for name, total in self._sums.items()}

    def restore(self, state: Mapping[str, tuple[Tensor, int]], device: torch.device) -> None:
        """Restore what `state` returned; an empty mapping begins an epoch."""
        self._sums = {name: total.to(device) for name, (total, _) in state.items()}
        self._counts = {name: count for name, (_, count) in state.items()}
