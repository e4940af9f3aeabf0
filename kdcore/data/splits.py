"""Splits: samples that lack a modality, checks before training, label noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.protocol import Split
from kdcore.data.dropped import Dropped, listed
from kdcore.data.leakage import audit, similar_names
from kdcore.errors import DataError


def complete_samples(
    samples: Sequence[Sample], modalities: Collection[str], missing: str, required: Collection[str] | None = None
) -> tuple[list[Sample], dict[SampleKey, Dropped]]:
    """The samples that have every one of `modalities`, and what the others lack.

    Args:
        samples: All there are.
        modalities: All that the recipe uses.
        missing: The recipe's treatment of incomplete samples; ``mask`` drops only those that lack one of `required`.
        required: Modalities of the students; all of `modalities` by default.

    Raises:
        DataError: If one is incomplete and `missing` is ``error``, or if none is complete.
    """
    if missing == "mask" and required is not None:
        modalities = required
    kept, lacking = [], {}
    for sample in samples:
        absent = sorted(modality for modality in modalities if modality not in sample.sources)
        if absent:
            reason = f"no {', no '.join(absent)}"
            lacking[sample.key] = Dropped(str(sample.key), sample.key.subject, reason, reason)
        else:
            kept.append(sample)
    if lacking and missing == "error":
        what = "samples lack a modality that the recipe uses (data.missing: drop leaves them out)"
        raise DataError(listed(what, [str(each) for each in lacking.values()]))
    if not kept:
        counts = {modality: sum(modality in sample.sources for sample in samples) for modality in sorted(modalities)}
        having = ", ".join(f"{modality} ({count} of {len(samples)} have it)" for modality, count in counts.items())
        raise DataError(f"no sample has all of: {having}")
    return kept, lacking


def left_out(
    split: Split, shares: Mapping[str, float], seed: int, held_out: Collection[str]
) -> dict[SampleKey, frozenset[str]]:
    """Sample → modalities to leave out of it: of each modality a share of the samples that are learnt from, drawn at random.

    Args:
        split: The samples.
        shares: Modality → share of the samples having it, in each part that is learnt from; rounded to whole samples.
        seed: Chooses them; each modality is drawn independently of the others.
        held_out: Parts from which nothing is left out.
    """
    found: dict[SampleKey, frozenset[str]] = {}
    for number, (modality, share) in enumerate(sorted(shares.items())):
        generator = np.random.default_rng([seed, number])
        for part in sorted(split.parts):
            having = [sample.key for sample in split.parts[part] if modality in sample.sources and part not in held_out]
            for index in generator.permutation(len(having))[: round(share * len(having))]:
                key = having[int(index)]
                found[key] = found.get(key, frozenset()) | {modality}
    return found


def without_signals(sample: Sample, modalities: Collection[str]) -> Sample:
    """`sample` without its signals of some modalities."""
    return replace(sample, sources={name: source for name, source in sample.sources.items() if name not in modalities})


def without(split: Split, left_out: Collection[SampleKey]) -> Split:
    """`split` without some of its samples."""
    kept = {part: tuple(each for each in members if each.key not in left_out) for part, members in split.parts.items()}
    return replace(split, parts=kept)


def class_warnings(split: Split, classes: Sequence[str]) -> list[str]:
    """Warnings about the classes' share of each part and its subjects.

    A class that is tested and not trained can only be missed; one that a single subject performs cannot be told from that
    subject; names that are nearly the same are probably one class.
    """
    parts = {part: Counter(sample.label for sample in members) for part, members in split.parts.items()}
    untrained = [
        f"{classes[label]!r} ({count} test samples)"
        for label, count in sorted(parts.get("test", Counter()).items(), key=lambda item: (item[0] is None, item[0]))
        if label is not None and not parts["train"][label]
    ]
    subjects: dict[int, set[str]] = {}
    for sample in (sample for members in split.parts.values() for sample in members):
        if sample.label is not None:
            subjects.setdefault(sample.label, set()).add(sample.key.subject)
    everybody = set().union(*subjects.values()) if subjects else set()
    lonely = [f"{classes[label]!r} ({min(who)})" for label, who in sorted(subjects.items()) if len(who) == 1]
    said = []
    if untrained:
        said.append(f"tested and in no training sample: {', '.join(untrained)}")
    if lonely and len(everybody) > 1:
        said.append(f"classes of a single subject: {', '.join(lonely)}")
    said += [f"classes with nearly the same name: {', '.join(map(repr, group))}" for group in similar_names(classes)]
    return said


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
