"""Cache of frozen teachers' outputs: computed once per sample, looked up in every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdcore.contracts.batch import Outputs
from kdcore.contracts.encoder import Participant
from kdcore.data.table import Table

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from kdcore.training.participants import Distiller


ROUNDING = 1e-2
"""Difference of outputs, relative to the largest, that other orders of summation may explain, in half precision too."""


class CachedOutputs:
    """A teacher's outputs, indexed by row of the table.

    Args:
        position: (N,) int64, index of each row of the table in the tensors below, -1 for rows without outputs.
        logits: (n, classes) logits.
        features: Tap → (n, …), or (n, S, …) for activations with S rows per sample, such as the frames of a clip.
        folded: Taps with S rows per sample; they are returned as (B·S, …).
    """

    def __init__(self, position: Tensor, logits: Tensor, features: Mapping[str, Tensor], folded: Sequence[str] = ()):
        self.position, self.logits, self.features, self.folded = position, logits, dict(features), frozenset(folded)

    @classmethod
    def of_batches(cls, rows: Tensor, outputs: Sequence[Outputs], sizes: Sequence[int], count: int) -> CachedOutputs:
        """Concatenate batches of outputs.

        Args:
            rows: (n,) int64, the table's rows in the order of the batches.
            outputs: Outputs of each batch.
            sizes: Number of samples in each batch.
            count: Number of rows of the table, N.
        """
        position = torch.full((count,), -1, dtype=torch.long, device=rows.device)
        position[rows] = torch.arange(len(rows), device=rows.device)
        features = {
            tap: torch.cat([unfolded(each.features[tap], n) for each, n in zip(outputs, sizes, strict=True)])
            for tap in outputs[0].features
        }
        folded = [tap for tap, value in outputs[0].features.items() if len(value) != sizes[0]]
        return cls(position, torch.cat([each.logits for each in outputs]), features, folded)

    def covers(self, rows: Tensor) -> Tensor:
        """(B,) bool mask of the `rows` that have outputs."""
        return self.position[rows] >= 0

    def at(self, rows: Tensor) -> Outputs:
        """Look up the outputs for `rows`, (B,) int64."""
        index = self.position[rows]
        features = {tap: value[index] for tap, value in self.features.items()}
        features |= {tap: features[tap].flatten(0, 1) for tap in self.folded}
        return Outputs(self.logits[index], features)

    def to(self, device: torch.device) -> CachedOutputs:
        """Copy to a device."""
        features = {tap: value.to(device) for tap, value in self.features.items()}
        return CachedOutputs(self.position.to(device), self.logits.to(device), features, tuple(self.folded))


def unfolded(value: Tensor, count: int) -> Tensor:
    """Reshape (B·S, …) to (B, S, …) for `count` samples, if an activation has several rows per sample."""
    return value if len(value) == count else value.unflatten(0, (count, -1))


@torch.no_grad()
def cache_teachers(
    distiller: Distiller, names: Sequence[str], rows: Tensor, table: Table, batch_size: int, limit: int, fabric: Fabric
) -> dict[str, CachedOutputs]:
    """Compute the outputs of frozen participants for all `rows`; empty if they would exceed `limit` bytes."""
    outputs, sizes, total = [], [], 0
    for piece in rows.split(batch_size) if names else ():
        with fabric.autocast():
            outputs.append(distiller.run_teachers(names, table.batch(piece, names, labelled=False)))
        sizes.append(len(piece))
        tensors = [tensor for each in outputs[-1].values() for tensor in (each.logits, *each.features.values())]
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if total / sum(sizes) * len(rows) > limit:  # extrapolated, so the first batch usually decides
            return {}
    return {name: CachedOutputs.of_batches(rows, [each[name] for each in outputs], sizes, len(table.keys)) for name in names}


def repeatable(distiller: Distiller, sources: Iterable[str]) -> list[str]:
    """The `sources` whose outputs for a sample never change in a stage, so that they can be cached."""
    frozen = [name for name in sources if name not in distiller.stored and name not in distiller.averages]
    random = [name for name in frozen if is_random(distiller.participant(name))]
    fused = [name for name in frozen if name in distiller.fused]
    if fused and (distiller.fusion.batch_dependent or set(random) & set(fused)):
        random += fused
    return [name for name in frozen if name not in random]


def is_random(participant: Participant) -> bool:
    """True if a frozen participant's outputs for a sample change: its inputs are augmented, or its network varies."""
    return participant.varies or (
        participant.augment_frozen
        and any(getattr(module, "augmentation", False) for module in participant.batch_transforms.modules())
    )


@torch.no_grad()
def outputs_vary(participant: Participant, signal: Tensor | tuple[Tensor, ...]) -> bool:
    """True if the outputs for a sample change from pass to pass, or with the other samples of its batch.

    Args:
        participant: In evaluation mode.
        signal: Its entry of a batch.
    """
    x = participant.input(signal)
    with torch.random.fork_rng():
        state = torch.get_rng_state()
        first = participant.collect(participant.encoder(x))
        if not torch.equal(state, torch.get_rng_state()):
            return True
        count = len(first.logits)
        few = max(2, count // 2) if count > 2 else count
        again = participant.collect(participant.encoder(_first(x, few)))
    return _differ(first, again, few)


def _first(x: Tensor | tuple[Any, ...], count: int) -> Tensor | tuple[Any, ...]:
    """The first `count` samples of an input, which may have several parts."""
    return tuple(_first(part, count) for part in x) if isinstance(x, tuple) else x[:count]


def _differ(one: Outputs, other: Outputs, count: int) -> bool:
    """True if the outputs for the first `count` samples differ by more than rounding."""
    size = len(one.logits)
    pairs = [(one.logits, other.logits), *((value, other.features[tap]) for tap, value in one.features.items())]
    for first, second in pairs:
        if not first.is_floating_point() or len(first) % size or len(second) % count:
            continue
        first, second = unfolded(first, size)[:count].float(), unfolded(second, count).float()
        known = first.isfinite() & second.isfinite()  # logits of classes that the network does not know are infinite
        scale = first[known].abs().max() if bool(known.any()) else torch.zeros(())
        if bool(((first - second)[known].abs() > ROUNDING * scale).any()):
            return True
    return False
