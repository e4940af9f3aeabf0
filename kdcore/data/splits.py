"""Splits: samples that lack a modality, checks before training, label noise."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from kdcore.contracts.dataset import Sample
from kdcore.contracts.protocol import Split
from kdcore.data.leakage import audit
from kdcore.errors import DataError


def complete_samples(samples: Sequence[Sample], modalities: Collection[str], missing: str) -> tuple[list[Sample], list[str]]:
    """The samples that have every one of `modalities`, and a line for each that has not.

    Raises:
        DataError: If one is incomplete and `missing` is ``error``, or if none is complete.
    """
    kept, left_out = [], []
    for sample in samples:
        absent = [modality for modality in modalities if modality not in sample.sources]
        if absent:
            left_out.append(f"{sample.key}: no {', '.join(absent)}")
        else:
            kept.append(sample)
    if left_out and missing == "error":
        raise DataError(
            "samples lack a modality that the recipe uses (data.missing: drop leaves them out):\n  "
            + "\n  ".join(left_out[:20])
        )
    if not kept:
        counts = {modality: sum(modality in sample.sources for sample in samples) for modality in sorted(modalities)}
        having = ", ".join(f"{modality} ({count} of {len(samples)} have it)" for modality, count in counts.items())
        raise DataError(f"no sample has all of: {having}")
    return kept, left_out


def checked_split(split: Split, num_classes: int, labelled: bool) -> Split:
    """`split` itself, once it is fit to train on.

    Raises:
        DataError: If it leaks, has no training or test samples, or trains on fewer than two classes.
    """
    if leaks := audit(split):
        raise DataError("the split leaks:\n  " + "\n  ".join(leaks))
    for part in ("train", "test"):
        if not split.parts.get(part):
            raise DataError(f"the split has no {part} samples ({split.rule})")
    classes = {sample.label for sample in split.parts["train"] if sample.label is not None}
    if num_classes < 2 or (labelled and len(classes) < 2):
        raise DataError(f"classification needs at least two classes, the training part has {len(classes)} of {num_classes}")
    return split


def noisy_labels(labels: np.ndarray, fraction: float, num_classes: int, seed: int) -> np.ndarray:
    """A copy of `labels` (N,) in which ``round(fraction * N)`` are replaced by another class, drawn uniformly."""
    if fraction == 0:
        return labels
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(labels))[: round(fraction * len(labels))]
    shift = generator.integers(1, num_classes, len(chosen))
    noisy = labels.copy()
    noisy[chosen] = (noisy[chosen] + shift) % num_classes
    return noisy


def labelled_share(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A copy of `labels` (N,) that keeps a share of each class's labels, at least one, and has -1 for the others."""
    generator = np.random.default_rng(seed)
    kept = np.full_like(labels, -1)
    for label in np.unique(labels[labels >= 0]):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen = rows[: max(1, round(share * len(rows)))]
        kept[chosen] = label
    return kept
