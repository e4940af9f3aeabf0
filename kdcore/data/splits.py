"""Division of samples into splits, without those that lack a modality, and checks of the splits before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.protocol import HELD_OUT, Protocol, Splits
from kdcore.contracts.target import OF_CLASSES, Target
from kdcore.data.dropped import Dropped, listed
from kdcore.data.leakage import audit, similar_names
from kdcore.data.targets import check_targets
from kdcore.errors import DataError, ListingError, SplitError
from kdcore.recipe.data_models import DataSpec
from kdcore.suggestions import did_you_mean

if TYPE_CHECKING:
    from kdcore.recipe.build import Builder


def listed_samples(
    dataset: Dataset, on_bad_sample: str = "error", subjects: Collection[str | int] | None = None
) -> tuple[Sequence[Sample], list[Dropped]]:
    """List the samples of `dataset` and its unusable recordings, without reading signals.

    Args:
        dataset: The dataset.
        on_bad_sample: ``skip`` to return damaged recordings instead of raising an error.
        subjects: Subjects whose recordings are used; None for all.

    Raises:
        ListingError: If its folder is invalid, a subject is unknown, or, without ``skip``, a recording is damaged.
    """
    with raised_as(ListingError):
        samples = dataset.samples()
        check_targets(dataset, samples)
    unusable, others = dataset.unusable, []
    if subjects is not None:
        chosen = list(map(str, subjects))
        known = {*(each.key.subject for each in samples), *(each.subject for each in unusable)}
        if missing := next((each for each in chosen if each not in known), None):
            hint = did_you_mean(missing, sorted(known - {""}), "subjects are")
            raise ListingError(f"data.subjects: the dataset has no subject {missing!r} ({hint})")
        others = [Dropped.of(each.key, Dropped.NOT_CHOSEN) for each in samples if each.key.subject not in chosen]
        samples = [each for each in samples if each.key.subject in chosen]
        unusable = [each for each in unusable if each.subject in {*chosen, ""}]
    faults = [str(each) for each in unusable if each.fault]
    if faults and on_bad_sample == "error":
        what = f"recordings that cannot be used: {len(faults)} (data.on_bad_sample: skip leaves them out)"
        raise ListingError(listed(what, faults))
    if not samples:
        raise ListingError(listed("no sample is left", faults) if faults else "the dataset found no samples")
    return samples, [*(Dropped(each.what, each.subject, each.reason, each.detail) for each in unusable), *others]


@contextmanager
def raised_as(kind: type[DataError]) -> Iterator[None]:
    """Raise any `DataError` as one of another kind."""
    try:
        yield
    except DataError as error:
        raise kind(str(error)) from error


@dataclass(frozen=True)
class SplitSamples:
    """The samples of a dataset, divided by a protocol.

    The protocol divides all samples, and those that lack a modality are dropped afterwards. So a rule such as "every other
    subject" gives the same splits whatever is missing.

    Args:
        samples: Samples that have the required modalities, including those in no split.
        splits: Those of them in a split.
        dropped: Recordings that become no sample of a split, with reasons.
        leaks: Leaks between the splits that keys show, see `leakage.audit`.
        lacking: Those of `dropped` that lack a modality.
        left_out: One sentence per modality for which the recipe leaves out a share of the signals.
    """

    samples: list[Sample]
    splits: Splits
    dropped: list[Dropped]
    leaks: list[str]
    lacking: list[Dropped]
    left_out: list[str]


def recipe_splits(builder: Builder, dataset: Dataset) -> SplitSamples:
    """List and split the samples of a recipe as a run does, but skip bad recordings, and report leaks instead of refusing them.

    Raises:
        RecipeError: If the dataset's folder is invalid, or the protocol cannot be applied.
        DataError: If no sample has the required modalities.
    """
    spec, modalities = builder.recipe.data, builder.recipe.modalities
    required = builder.recipe.modalities_by_student
    missing = "mask" if spec.missing == "mask" else "drop"
    with builder.locating_data_errors():
        samples, whole, dropped, lacking = _divide(dataset, builder.protocol(), spec, "skip", missing, modalities, required)
        splits = whole.without(lacking)
        samples, splits, left_out = with_shares_missing(samples, splits, spec, modalities, required, dropped)
    return SplitSamples(samples, splits, dropped, audit(whole), [*lacking.values()], left_out)


def load_splits(
    dataset: Dataset,
    protocol: Protocol,
    spec: DataSpec,
    modalities: Sequence[str],
    required: Sequence[frozenset[str]] | None = None,
) -> tuple[list[Sample], Splits, list[Dropped]]:
    """List, split and audit samples; returns the samples that have `modalities`, the splits, and dropped recordings.

    Args:
        dataset: The dataset.
        protocol: The protocol.
        spec: The recipe's data section.
        modalities: All modalities of the recipe.
        required: The modalities of each student. With ``missing: mask``, a training sample must have those of one student, and
            a held-out sample those of all students. All modalities by default.

    Raises:
        DataError: If a sample is invalid; ListingError for the dataset's folder, SplitError for the splits.
    """
    samples, whole, dropped, lacking = _divide(dataset, protocol, spec, spec.on_bad_sample, spec.missing, modalities, required)
    with raised_as(SplitError):
        expected = (len(dataset.classes), spec.labels != "withheld", dataset.target)
        splits = checked_splits(whole, *expected)
        if lacking:
            splits = checked_splits(whole.without(lacking), *expected)
    return samples, splits, dropped


def _divide(
    dataset: Dataset,
    protocol: Protocol,
    spec: DataSpec,
    on_bad_sample: str,
    missing: str,
    modalities: Sequence[str],
    required: Sequence[frozenset[str]] | None,
) -> tuple[list[Sample], Splits, list[Dropped], dict[SampleKey, Dropped]]:
    """Return samples with the required modalities, the splits of all samples, dropped recordings, and incomplete samples.

    Held-out samples that lack a student's modality are among the incomplete ones: students are compared on equal samples.
    """
    samples, dropped = listed_samples(dataset, on_bad_sample, spec.subjects)
    with raised_as(SplitError):
        whole = protocol.split(samples)
    split_of = whole.split_of
    try:
        kept, lacking = complete_samples(samples, modalities, missing, required)
        every = frozenset(modalities) if required is None else frozenset().union(*required)
        tested = [each for each in kept if split_of.get(each.key) in HELD_OUT]
        lacking |= {each.key: found for each in tested if (found := _lacking(each, every))}
    except DataError as error:
        raise DataError(listed(str(error), list(dataset.notes)) if dataset.notes else str(error)) from error
    dropped += [replace(each, split=split_of.get(key, "")) for key, each in lacking.items()]
    dropped += [Dropped.of(each.key, Dropped.NO_SPLIT) for each in kept if each.key not in split_of]
    return kept, whole, dropped, lacking


def complete_samples(
    samples: Sequence[Sample],
    modalities: Collection[str],
    missing: str,
    required: Sequence[frozenset[str]] | None = None,
) -> tuple[list[Sample], dict[SampleKey, Dropped]]:
    """Return the samples that have all required modalities, and the other samples with what they lack.

    Args:
        samples: All samples.
        modalities: All modalities that the recipe uses.
        missing: ``data.missing`` of the recipe; with ``mask``, only one of the sets in `required` is required.
        required: Modalities of each student; all of `modalities` by default.

    Raises:
        DataError: If a sample is incomplete and `missing` is ``error``, or if none is complete.
    """
    sets = [frozenset(modalities)]
    if missing == "mask" and required is not None:
        sets = list(required) or [frozenset()]
    modalities = frozenset().union(*sets)
    kept, lacking = [], {}
    for sample in samples:
        if any(each <= sample.sources.keys() for each in sets):
            kept.append(sample)
        elif dropped := _lacking(sample, modalities):
            lacking[sample.key] = dropped
    if lacking and missing == "error":
        what = "samples lack a modality that the recipe uses (data.missing: drop leaves them out)"
        raise DataError(listed(what, [str(each) for each in lacking.values()]))
    if not kept:
        counts = {modality: sum(modality in sample.sources for sample in samples) for modality in sorted(modalities)}
        listed_counts = ", ".join(f"{modality} ({count} of {len(samples)} have it)" for modality, count in counts.items())
        raise DataError(f"no sample has all of: {listed_counts}")
    return kept, lacking


def _lacking(sample: Sample, modalities: frozenset[str]) -> Dropped | None:
    """A record of a sample that lacks some of `modalities`; None if it has all."""
    absent = sorted(modalities - sample.sources.keys())
    reason = f"no {', no '.join(absent)}"
    return Dropped.of(sample.key, reason, reason) if absent else None


def left_out(splits: Splits, shares: Mapping[str, float], seed: int) -> dict[SampleKey, frozenset[str]]:
    """Draw, for each modality, a fraction of the training samples whose signal is to be removed; returns sample → modalities.

    Args:
        splits: The samples of each split.
        shares: Modality → fraction of the samples that have it, per training split; rounded to whole samples.
        seed: Random seed; modalities are drawn independently.
    """
    removed: dict[SampleKey, frozenset[str]] = {}
    for number, (modality, share) in enumerate(sorted(shares.items())):
        generator = np.random.default_rng([seed, number])
        for split in sorted(set(splits.samples) - set(HELD_OUT)):
            having = [sample.key for sample in splits.samples[split] if modality in sample.sources]
            for index in generator.permutation(len(having))[: round(share * len(having))]:
                key = having[int(index)]
                removed[key] = removed.get(key, frozenset()) | {modality}
    return removed


def with_shares_missing(
    samples: list[Sample],
    splits: Splits,
    spec: DataSpec,
    modalities: Sequence[str],
    required: Sequence[frozenset[str]],
    dropped: list[Dropped],
) -> tuple[list[Sample], Splits, list[str]]:
    """Leave out the shares of signals that the recipe names; return samples, splits, and a sentence on each share.

    Samples that cannot be used any more are added to `dropped`.
    """
    if not spec.missing_shares:
        return samples, splits, []
    if unknown := sorted(set(spec.missing_shares) - set(modalities)):
        raise DataError(f"data.missing_shares: the recipe does not use {unknown[0]!r} (it uses {', '.join(modalities)})")
    removed = left_out(splits, spec.missing_shares, spec.missing_seed)

    def remaining(members: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(without_signals(sample, removed.get(sample.key, ())) for sample in members)

    splits = replace(splits, samples={split: remaining(members) for split, members in splits.samples.items()})
    kept, lacking = complete_samples(remaining(samples), modalities, spec.missing, required)
    split_of = splits.split_of
    dropped += [replace(each, reason=f"{each.reason}, left out", split=split_of.get(key, "")) for key, each in lacking.items()]
    sentences = []
    for modality, share in sorted(spec.missing_shares.items()):
        count = sum(modality in each for each in removed.values())
        how = f"{100 * share:g} %, at random, seed {spec.missing_seed}"
        sentences.append(f"{modality}: left out of {count} training samples ({how})")
    return kept, splits.without(lacking), sentences


def without_signals(sample: Sample, modalities: Collection[str]) -> Sample:
    """`sample` without its signals of some modalities."""
    return replace(sample, sources={name: source for name, source in sample.sources.items() if name not in modalities})


def class_warnings(splits: Splits, classes: Sequence[str], found: Splits) -> list[str]:
    """Warnings about the distribution of classes over splits and subjects.

    They concern classes that have no sample left, classes that are tested but not trained, classes of a single subject (a
    network could recognise the subject instead), and nearly equal class names, which are probably one class.

    Args:
        splits: The samples that are used.
        classes: Class names.
        found: The samples before bad recordings, and those shorter than a window, were dropped.
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
    single = [f"{classes[label]!r} ({min(names)})" for label, names in sorted(subjects.items()) if len(names) == 1]
    before = {each.label for members in found.samples.values() for each in members if each.label is not None}
    warnings = []
    if lost := sorted(before - subjects.keys()):
        warnings.append(f"classes of which every recording is dropped: {', '.join(repr(classes[label]) for label in lost)}")
    if untrained:
        warnings.append(f"classes tested without training samples: {', '.join(untrained)}")
    if single and len(set().union(*subjects.values())) > 1:
        warnings.append(f"classes performed by a single subject: {', '.join(single)}")
    warnings += [f"classes with nearly the same name: {', '.join(map(repr, group))}" for group in similar_names(classes)]
    return warnings


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
