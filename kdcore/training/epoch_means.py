"""Means of the numbers that losses log, over the batches of an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


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
