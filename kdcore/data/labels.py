"""Labels of a table's rows, and those that training is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.protocol import Splits
from kdcore.data.table import HELD_OUT
from kdcore.data.windows import recorded
from kdcore.errors import DataError
from kdcore.recipe.data_models import DataSpec, LabelledShare


def labels_of(keys: Sequence[SampleKey], splits: Splits) -> Tensor:
    """(N,) int64: the labels of rows with these keys, -1 for None."""
    label_of = {sample.key: sample.label for members in splits.samples.values() for sample in members}
    found = [label_of[recorded(key)] for key in keys]
    return torch.tensor([-1 if label is None else label for label in found], dtype=torch.int64)


def told_labels(labels: Tensor, rows_by_split: Mapping[str, Tensor], spec: DataSpec, num_classes: int) -> Tensor:
    """`labels` with the recipe's noise, -1 where it withholds them, and none in the splits that nothing learns from."""
    told = labels.clone()
    for split, rows in rows_by_split.items():
        if split in HELD_OUT:
            told[rows] = -1
            continue
        noisy = noisy_labels(labels[rows].numpy(), spec.label_noise, num_classes, seed=spec.label_noise_seed)
        if isinstance(spec.labels, LabelledShare) and split == "train":
            noisy = labelled_share(noisy, spec.labels.share, spec.labels.seed)
        told[rows] = torch.from_numpy(noisy)
    return told


def refuse_unlabelled(labels: Tensor, rows_by_split: Mapping[str, Tensor], keys: Sequence[SampleKey]) -> None:
    """Refuse samples without a label.

    Raises:
        DataError: If there are any.
    """
    for split, rows in rows_by_split.items():
        without = rows[labels[rows] < 0]
        if len(without):
            raise DataError(
                f"{len(without)} samples of the {split} split have no label, e.g. {keys[int(without[0])]}; "
                f"with data.labels: withheld, students learn without"
            )


def noisy_labels(labels: np.ndarray, fraction: float, num_classes: int, seed: int) -> np.ndarray:
    """A copy of `labels` (N,) in which ``round(fraction * N)`` are replaced by another class, drawn uniformly.

    Unlabelled samples, -1, do not count and stay unlabelled.
    """
    if fraction == 0:
        return labels
    generator, known = np.random.default_rng(seed), np.flatnonzero(labels >= 0)
    chosen = known[generator.permutation(len(known))[: round(fraction * len(known))]]
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
