"""Training labels: label noise, withheld labels and labelled fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.protocol import HELD_OUT
from kdcore.contracts.target import known, unknown
from kdcore.errors import DataError
from kdcore.recipe.data_models import DataSpec, SomeLabels
from kdcore.suggestions import did_you_mean


def training_labels(
    labels: Tensor, rows_by_split: Mapping[str, Tensor], spec: DataSpec, num_classes: int, keys: Sequence[SampleKey]
) -> Tensor:
    """The training labels: `labels` with the recipe's noise, without withheld labels and those of held-out splits.

    Shares and noise are drawn by recording: all windows of a recording have the same training label.

    Raises:
        DataError: If the recipe lists a subject or a recording that is not in the training split.
    """
    training = labels.clone()
    for split, rows in rows_by_split.items():
        if split in HELD_OUT:
            training[rows] = unknown(labels)
            continue
        # Windows of a recording overlap, so they all keep its label, get the same wrong one, or have none.
        first, recording = recordings_of([keys[row] for row in rows.tolist()])
        noisy = labels[rows].numpy()[first]
        if noisy.ndim == 1:
            noisy = noisy_labels(noisy, spec.label_noise, num_classes, seed=spec.label_noise_seed)
        if isinstance(spec.labels, SomeLabels) and split == "train":
            noisy = _some(noisy, spec.labels, [keys[row] for row in rows[first].tolist()])
        training[rows] = torch.from_numpy(noisy[recording])
    return training


def recordings_of(keys: Sequence[SampleKey]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group samples by the recording that they are windows of.

    Args:
        keys: Keys of N samples.

    Returns:
        (R,) index of each recording's first sample, in the order of the samples; and (N,) index of each sample's recording.
    """
    if not any(key.window for key in keys):
        return np.arange(len(keys)), np.arange(len(keys))
    number: dict[SampleKey, int] = {}
    recording = np.array([number.setdefault(replace(key, window=0), len(number)) for key in keys], np.int64)
    return np.unique(recording, return_index=True)[1], recording


def label_warnings(
    labels: Tensor, training: Tensor, rows_by_split: Mapping[str, Tensor], spec: DataSpec, classes: Sequence[str]
) -> list[str]:
    """Warnings about unlabelled samples in the training split, and about those left out of the evaluation.

    Raises:
        DataError: If no sample of the training or the test split is labelled.
    """
    if spec.labels in ("given", "withheld"):
        return []
    warnings = []
    for split, rows in rows_by_split.items():
        count = int(known(training[rows] if split not in HELD_OUT else labels[rows]).sum())
        if not count and len(rows):
            raise DataError(f"no sample of the {split} split has a label")
        if split in HELD_OUT and count < len(rows):
            warnings.append(f"{len(rows) - count} of {len(rows)} {split} samples have no label and are not evaluated")
        elif count < len(rows) and not _is_share(spec.labels):  # of a share, the recipe says it
            warnings.append(f"{count} of {len(rows)} samples of the {split} split are labelled")
    if labels.ndim == 2:
        return warnings
    of_class = torch.bincount(training[training >= 0], minlength=len(classes))
    tested = torch.bincount(labels[rows_by_split["test"]].clamp_min(-1) + 1, minlength=len(classes) + 1)[1:]
    untrained = [repr(name) for name, n, m in zip(classes, of_class.tolist(), tested.tolist(), strict=True) if m and not n]
    return [*warnings, *([f"tested without a labelled training sample: {', '.join(untrained)}"] if untrained else [])]


def _is_share(labels: object) -> bool:
    return isinstance(labels, SomeLabels) and labels.share is not None


def _some(labels: np.ndarray, some: SomeLabels, keys: Sequence[SampleKey]) -> np.ndarray:
    """A copy of `labels`, (N,) or (N, names), with -1 or NaN for samples that are not chosen."""
    if some.share is not None:
        classes = labels if labels.ndim == 1 else np.where(known(labels), 0, -1)  # without classes, a share of all samples
        kept = labelled_share(classes, some.share, some.seed) >= 0
    else:
        kept = np.zeros(len(labels), dtype=bool)
        for entry in [{"subject": subject} for subject in some.subjects or []] + list(some.recordings or []):
            wanted = {str(field): str(text) for field, text in entry.items()}
            chosen = np.array([all(getattr(key, field) == text for field, text in wanted.items()) for key in keys])
            if not chosen.any():
                described = ", ".join(f"{field} {text}" for field, text in wanted.items())
                hint = next((hint for field, text in wanted.items() if (hint := _other_value(field, text, keys))), "")
                raise DataError(f"data.labels: no training sample is {described}" + (f" ({hint})" if hint else ""))
            kept |= chosen
    return np.where(kept, labels.T, unknown(labels)).T.astype(labels.dtype)


def _other_value(field: str, text: str, keys: Sequence[SampleKey]) -> str:
    """The nearest value, or all values, of a part of the keys that no key has as `text`."""
    values = {str(getattr(key, field)) for key in keys}
    if text in values:
        return ""
    order = sorted(values, key=lambda each: (not each.isdecimal(), int(each) if each.isdecimal() else 0, each))
    return did_you_mean(text, order, f"{field} is one of")


def refuse_unlabelled(labels: Tensor, rows_by_split: Mapping[str, Tensor], keys: Sequence[SampleKey]) -> None:
    """Refuse samples without a label.

    Raises:
        DataError: If there are any.
    """
    for split, rows in rows_by_split.items():
        without = rows[~known(labels[rows])]
        if len(without):
            raise DataError(
                f"the {split} split has samples without a label: {len(without)}, e.g. {keys[int(without[0])]}; "
                "with data.labels: partial, terms that read labels leave them out; with withheld, students learn without"
            )


def noisy_labels(labels: np.ndarray, fraction: float, num_classes: int, seed: int) -> np.ndarray:
    """A copy of `labels` (N,) with ``round(fraction * N)`` labels replaced by another class, drawn uniformly.

    Unlabelled samples (-1) are not counted and stay unlabelled.
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
    """A copy of `labels` (N,) that keeps a fraction of each class's labels, at least one; the others are -1."""
    generator = np.random.default_rng(seed)
    kept = np.full_like(labels, -1)
    for label in np.unique(labels[labels >= 0]):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen = rows[: max(1, round(share * len(rows)))]
        kept[chosen] = label
    return kept
