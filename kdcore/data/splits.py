"""Division of samples into splits, without those that lack a modality, and checks of the splits before training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
    from kdcore.recipe.models import Recipe


def listed_samples(dataset: Dataset, spec: DataSpec) -> tuple[Sequence[Sample], list[Dropped]]:
    """List the samples of `dataset` that belong to the chosen subjects, and the other recordings, without reading signals.

    Args:
        dataset: The dataset.
        spec: The recipe's data section: its subjects, and whether damaged recordings are skipped.

    Raises:
        ListingError: If its folder is invalid, a subject is unknown, or, unless they are skipped, a recording is damaged.
    """
    with raised_as(ListingError):
        samples = dataset.samples()
        check_targets(dataset, samples)
    unusable, others = dataset.unusable, []
    if spec.subjects is not None:
        chosen = list(map(str, spec.subjects))
        known = {*(each.key.subject for each in samples), *(each.subject for each in unusable)}
        if missing := next((each for each in chosen if each not in known), None):
            hint = did_you_mean(missing, sorted(known - {""}), "subjects are")
            raise ListingError(f"data.subjects: the dataset has no subject {missing!r} ({hint})")
        others = [Dropped.of(each.key, Dropped.NOT_CHOSEN) for each in samples if each.key.subject not in chosen]
        samples = [each for each in samples if each.key.subject in chosen]
        unusable = [each for each in unusable if each.subject in {*chosen, ""}]
    faults = [str(each) for each in unusable if each.fault]
    if faults and spec.on_bad_sample == "error":
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


def usable_samples(recipe: Recipe, dataset: Dataset) -> list[Sample]:
    """List the samples that a run of `recipe` divides into splits and uses, without reading signals.

    Raises:
        DataError: As `listed_samples`, or if samples lack a modality and the recipe does not leave them out.
    """
    return complete_samples(listed_samples(dataset, recipe.data)[0], recipe.required_modalities, recipe.data.missing)[0]


@dataclass(frozen=True)
class SplitSamples:
    """The samples of a dataset, divided by a protocol.

    The protocol divides all samples, and those that lack a modality are dropped afterwards. So a rule such as "every other
    subject" gives the same splits whatever is missing.

    Args:
        samples: Samples that have the required modalities, including those in no split.
        splits: Those of them in a split.
        whole: The splits before samples that lack a modality were dropped.
        dropped: Recordings that become no sample of a split, with reasons.
        lacking: Those of `dropped` that lack a modality.
        left_out: One sentence per modality for which the recipe leaves out a share of the signals.
    """

    samples: list[Sample]
    splits: Splits
    whole: Splits
    dropped: list[Dropped]
    lacking: list[Dropped]
    left_out: list[str] = field(default_factory=list)

    @property
    def leaks(self) -> list[str]:
        """Leaks between the splits that keys show, see `leakage.audit`."""
        return audit(self.whole)


def recipe_splits(builder: Builder, dataset: Dataset) -> SplitSamples:
    """List and split the samples of a recipe as a run does, but skip bad recordings, and report leaks instead of refusing them.

    Raises:
        RecipeError: If the dataset's folder is invalid, or the protocol cannot be applied.
        DataError: If no sample has the required modalities.
    """
    recipe = builder.recipe
    spec, required = recipe.data, recipe.required_modalities
    lenient = spec.model_copy(update={"on_bad_sample": "skip", "missing": "mask" if spec.missing == "mask" else "drop"})
    with builder.locating_data_errors():
        return without_shares(divide(dataset, builder.protocol(), lenient, required), spec, recipe.modalities, required)


def load_splits(dataset: Dataset, protocol: Protocol, spec: DataSpec, required: Sequence[frozenset[str]]) -> SplitSamples:
    """Divide the samples of a dataset, see `divide`, and audit the splits.

    Raises:
        DataError: If a sample is invalid; ListingError for the dataset's folder, SplitError for the splits.
    """
    divided = divide(dataset, protocol, spec, required)
    with raised_as(SplitError):
        for splits in (divided.whole, divided.splits) if divided.lacking else (divided.whole,):
            check_splits(splits, len(dataset.classes), spec.labels != "withheld", dataset.target)
    return divided


def divide(dataset: Dataset, protocol: Protocol, spec: DataSpec, required: Sequence[frozenset[str]]) -> SplitSamples:
    """List and divide the samples of a dataset, and drop those that lack a modality.

    Args:
        dataset: The dataset.
        protocol: The protocol.
        spec: The recipe's data section.
        required: Sets of modalities. A training sample must have those of one set, and a held-out sample those of all sets, so
            that all students are tested on the same samples.

    Raises:
        DataError: If a sample is invalid; ListingError for the dataset's folder, SplitError for the splits.
    """
    samples, dropped = listed_samples(dataset, spec)
    with raised_as(SplitError):
        whole = protocol.split(samples)
    try:
        kept, lacking = complete_samples(samples, required, spec.missing)
    except DataError as error:
        raise DataError(listed(str(error), list(dataset.notes)) if dataset.notes else str(error)) from error
    split_of, every = whole.split_of, frozenset().union(*required)
    tested = [each for each in kept if split_of.get(each.key) in HELD_OUT]
    lacking |= {each.key: found for each in tested if (found := _lacking(each, every))}
    dropped += [replace(each, split=split_of.get(key, "")) for key, each in lacking.items()]
    dropped += [Dropped.of(each.key, Dropped.NO_SPLIT) for each in kept if each.key not in split_of]
    return SplitSamples(kept, whole.without(lacking), whole, dropped, [*lacking.values()])


def complete_samples(
    samples: Sequence[Sample], required: Sequence[frozenset[str]], missing: str
) -> tuple[list[Sample], dict[SampleKey, Dropped]]:
    """Return the samples that have all required modalities, and the other samples with what they lack.

    Args:
        samples: All samples.
        required: Sets of modalities; a sample must have those of one set.
        missing: ``data.missing`` of the recipe.

    Raises:
        DataError: If a sample is incomplete and `missing` is ``error``, or if none is complete.
    """
    every = frozenset().union(*required)
    kept, lacking = [], {}
    for sample in samples:
        if any(each <= sample.sources.keys() for each in required):
            kept.append(sample)
        elif dropped := _lacking(sample, every):
            lacking[sample.key] = dropped
    if lacking and missing == "error":
        what = "samples lack a modality that the recipe uses (data.missing: drop leaves them out)"
        raise DataError(listed(what, [str(each) for each in lacking.values()]))
    if not kept:
        counts = {modality: sum(modality in sample.sources for sample in samples) for modality in sorted(every)}
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


def without_shares(
    divided: SplitSamples, spec: DataSpec, modalities: Sequence[str], required: Sequence[frozenset[str]]
) -> SplitSamples:
    """Leave out the shares of signals that the recipe names, and samples that cannot be used any more.

    Args:
        divided: The samples of each split.
        spec: The recipe's data section.
        modalities: All modalities that the recipe uses.
        required: Sets of modalities; a sample must have those of one set.
    """
    if not spec.missing_shares:
        return divided
    if unknown := sorted(set(spec.missing_shares) - set(modalities)):
        raise DataError(f"data.missing_shares: the recipe does not use {unknown[0]!r} (it uses {', '.join(modalities)})")
    removed = left_out(divided.splits, spec.missing_shares, spec.missing_seed)

    def remaining(members: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(without_signals(sample, removed.get(sample.key, ())) for sample in members)

    splits = replace(divided.splits, samples={split: remaining(each) for split, each in divided.splits.samples.items()})
    kept, lacking = complete_samples(remaining(divided.samples), required, spec.missing)
    split_of = splits.split_of
    dropped = [replace(each, reason=f"{each.reason}, left out", split=split_of.get(key, "")) for key, each in lacking.items()]
    sentences = []
    for modality, share in sorted(spec.missing_shares.items()):
        count = sum(modality in each for each in removed.values())
        how = f"{100 * share:g} %, at random, seed {spec.missing_seed}"
        sentences.append(f"{modality}: left out of {count} training samples ({how})")
    return replace(
        divided, samples=kept, splits=splits.without(lacking), dropped=[*divided.dropped, *dropped], left_out=sentences
    )


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
    counts, subjects = {split: Counter[int]() for split in ("test", *splits.samples)}, defaultdict[int, set[str]](set)
    for split, members in splits.samples.items():
        for sample in members:
            if sample.label is not None:
                counts[split][sample.label] += 1
                subjects[sample.label].add(sample.key.subject)
    untrained = [
        f"{classes[label]!r} ({count} test samples)"
        for label, count in sorted(counts["test"].items())
        if not counts["train"][label]
    ]
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


def check_splits(splits: Splits, num_classes: int, labelled: bool, target: Target = OF_CLASSES) -> None:
    """Check that `splits` can be trained on.

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
        return
    classes = {sample.label for sample in splits.samples["train"] if sample.label is not None}
    if num_classes < 2 or (labelled and len(classes) < 2):
        raise DataError(f"classification needs at least two classes, the training split has {len(classes)} of {num_classes}")
