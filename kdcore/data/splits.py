"""Splits: samples that lack a modality, and checks before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.protocol import Splits
from kdcore.contracts.target import OF_CLASSES, Target
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
    wanted = frozenset(modalities)
    for sample in samples:
        if absent := sorted(wanted - sample.sources.keys()):
            reason = f"no {', no '.join(absent)}"
            lacking[sample.key] = Dropped.of(sample.key, reason, reason)
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
    splits: Splits, shares: Mapping[str, float], seed: int, held_out: Collection[str]
) -> dict[SampleKey, frozenset[str]]:
    """Draw, for each modality, a fraction of the training samples whose signal is to be removed; returns sample → modalities.

    Args:
        splits: The samples of each split.
        shares: Modality → fraction of the samples that have it, per training split; rounded to whole samples.
        seed: Random seed; modalities are drawn independently.
        held_out: Splits from which nothing is removed.
    """
    found: dict[SampleKey, frozenset[str]] = {}
    for number, (modality, share) in enumerate(sorted(shares.items())):
        generator = np.random.default_rng([seed, number])
        for split in sorted(set(splits.samples) - set(held_out)):
            having = [sample.key for sample in splits.samples[split] if modality in sample.sources]
            for index in generator.permutation(len(having))[: round(share * len(having))]:
                key = having[int(index)]
                found[key] = found.get(key, frozenset()) | {modality}
    return found


def without_signals(sample: Sample, modalities: Collection[str]) -> Sample:
    """`sample` without its signals of some modalities."""
    return replace(sample, sources={name: source for name, source in sample.sources.items() if name not in modalities})


def without(splits: Splits, left_out: Collection[SampleKey]) -> Splits:
    """`splits` without some of their samples."""
    kept = {split: tuple(each for each in members if each.key not in left_out) for split, members in splits.samples.items()}
    return replace(splits, samples=kept)


def class_warnings(splits: Splits, classes: Sequence[str]) -> list[str]:
    """Warnings about the distribution of classes over splits and subjects.

    They concern classes that are tested but not trained, classes of a single subject (a network could recognise the subject
    instead), and nearly equal class names, which are probably one class.
    """
    counts = {split: Counter(sample.label for sample in members) for split, members in splits.samples.items()}
    untrained = [
        f"{classes[label]!r} ({count} test samples)"
        for label, count in sorted(counts.get("test", Counter()).items(), key=lambda item: (item[0] is None, item[0]))
        if label is not None and not counts["train"][label]
    ]
    subjects: dict[int, set[str]] = {}
    for sample in (sample for members in splits.samples.values() for sample in members):
        if sample.label is not None:
            subjects.setdefault(sample.label, set()).add(sample.key.subject)
    everybody = set().union(*subjects.values()) if subjects else set()
    lonely = [f"{classes[label]!r} ({min(who)})" for label, who in sorted(subjects.items()) if len(who) == 1]
    said = []
    if untrained:
        said.append(f"classes tested without training samples: {', '.join(untrained)}")
    if lonely and len(everybody) > 1:
        said.append(f"classes performed by a single subject: {', '.join(lonely)}")
    said += [f"classes with nearly the same name: {', '.join(map(repr, group))}" for group in similar_names(classes)]
    return said


def checked_splits(splits: Splits, num_classes: int, labelled: bool, target: Target = OF_CLASSES) -> Splits:
    """Check that `splits` can be trained on, and return them.

    Raises:
        DataError: If they leak, have no training or test samples, fewer than two training classes, or no training label.
    """
    if leaks := audit(splits):
        raise DataError("the splits leak:\n  " + "\n  ".join(leaks))
    for split in ("train", "test"):
        if not splits.samples.get(split):
            raise DataError(f"there are no {split} samples ({splits.rule})")
    if not target.is_classes:
        if not num_classes:
            raise DataError(f"the dataset's target is {target.kind!r}, but it names none")
        if labelled and not any(sample.is_labelled for sample in splits.samples["train"]):
            raise DataError(f"no sample of the training split has {target.kind}")
        return splits
    classes = {sample.label for sample in splits.samples["train"] if sample.label is not None}
    if num_classes < 2 or (labelled and len(classes) < 2):
        raise DataError(f"classification needs at least two classes, the training split has {len(classes)} of {num_classes}")
    return splits
