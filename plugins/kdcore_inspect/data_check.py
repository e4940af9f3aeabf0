"""Checks of recordings before training, for the command ``kdcore data check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdcore import (
    Builder,
    DataError,
    Dataset,
    Dropped,
    DropReport,
    Modality,
    Recipe,
    RecordingAudit,
    Sample,
    SampleKey,
    Signal,
    Splits,
    Target,
    class_warnings,
    known,
    lacking_numbers,
    leakage_checks,
    load_recipe,
    recipe_splits,
    windows,
    with_units,
)
from kdcore_inspect.signal_checks import Measured, measure, odd_ranges, odd_signals

Range = tuple[float, float, float]
Examples = dict[str, dict[str, tuple[SampleKey, Signal]]]


@dataclass(frozen=True)
class DataReport:
    """The result of `check`.

    Args:
        dataset: Name of the dataset.
        rule: Rule of the protocol, as a sentence.
        target: Target of the dataset.
        modalities: Modalities that the recipe uses, by name.
        splits: Number of usable samples by split.
        classes: Number of usable samples by class and split.
        subjects: Number of usable samples by subject and split.
        values: (minimum, mean, maximum) by value name with unit and by split; only for the target ``values``.
        weights: (minimum, mean, maximum) sample weight by split; empty if all weights are equal.
        missing: One line per sample that lacks a modality of the recipe.
        broken: One line per recording that cannot be read.
        leaks: Leaks between splits.
        left_out: One sentence per modality for which the recipe leaves out a share of the signals.
        dropped: All recordings that do not become samples, with reasons, including missing and broken ones.
        warnings: Problems of classes, and possible copies, that make results doubtful.
        odd: Readable signals that look wrong: constant, saturated, short, in other units, or with wrong time stamps.
        lengths: (shortest, median, longest) number of time steps by modality.
        durations: (shortest, median, longest) duration by modality, in seconds.
        ranges: (lowest, typical, highest) value by modality and subject. The typical value is the median vector length.
        windows: Number of windows by split; None if the recipe does not cut recordings into windows.
        short: One line per recording that is shorter than a window.
        examples: First training sample by modality and class, if examples were requested.
    """

    dataset: str
    rule: str
    target: Target
    modalities: Mapping[str, Modality]
    splits: Counter[str]
    classes: Mapping[str, Counter[str]]
    subjects: Mapping[str, Counter[str]]
    values: Mapping[str, Mapping[str, Range]]
    weights: Mapping[str, Range]
    missing: list[str]
    broken: list[str]
    leaks: list[str]
    left_out: list[str]
    dropped: DropReport
    warnings: list[str]
    odd: list[str]
    lengths: Mapping[str, Range]
    durations: Mapping[str, Range]
    ranges: Mapping[str, Mapping[str, Range]]
    windows: Counter[str] | None
    short: list[str]
    examples: Examples

    @property
    def windowless(self) -> list[str]:
        """Splits that have samples but no windows."""
        if self.windows is None:
            return []
        return [split for split, count in self.splits.items() if count and not self.windows[split]]


def check(source: str | Path, overrides: Sequence[str] = (), examples: bool = False) -> DataReport:
    """Read every recording that a recipe uses.

    Args:
        source: Path or name of the recipe.
        overrides: Overrides of the recipe as ``key=value``.
        examples: Whether to keep one recording per modality and class.

    Raises:
        KdcoreError: If the recipe is invalid, the folder is missing, or the protocol cannot split the samples.
    """
    recipe = load_recipe(source, overrides, files=False)
    builder = Builder(recipe)
    dataset = builder.dataset()
    divided = recipe_splits(builder, dataset)
    faults = [str(each) for each in dataset.unusable if each.fault]
    reading = _Reading(dataset, recipe, examples)
    for split, members in divided.splits.samples.items():
        for sample in members:
            reading.read(split, sample)
    usable = divided.splits.without(reading.unreadable)
    leaks, copies = reading.audit.leaks(usable)
    leaks = divided.leaks + leaks
    possible = [] if leaks else reading.audit.possible_leaks(usable)
    windowed = usable.without(reading.windowless)
    if dataset.target.is_classes:
        of_target = class_warnings(windowed, dataset.classes, divided.splits)
    else:
        of_target = unknown_numbers(usable, dataset)
    measured = {modality: each for modality, each in reading.measured.items() if each}
    odd = []
    for modality, each in measured.items():
        odd += odd_signals(dataset.modalities[modality], each) + odd_ranges(dataset.modalities[modality], each)
    return DataReport(
        dataset=recipe.data.dataset.name,
        rule=divided.splits.rule,
        target=dataset.target,
        modalities={name: dataset.modalities[name] for name in recipe.modalities},
        splits=Counter({split: len(members) for split, members in usable.samples.items()}),
        classes=_counts(usable, dataset),
        subjects=_counts(usable),
        values=_value_ranges(usable, dataset),
        weights=_weight_ranges(usable),
        missing=[str(each) for each in divided.lacking],
        broken=[*faults, *reading.broken.values()],
        leaks=leaks,
        left_out=divided.left_out,
        dropped=DropReport((*divided.dropped, *reading.dropped)),
        warnings=[*dataset.notes, *_lost_to_windows(usable, windowed), *of_target, *copies, *possible],
        odd=odd,
        lengths={modality: _spread([one.length for one in each]) for modality, each in measured.items()},
        durations={modality: _spread([one.duration for one in each]) for modality, each in measured.items()},
        ranges={modality: _ranges_by_subject(each) for modality, each in measured.items()},
        windows=reading.windows,
        short=reading.short,
        examples=reading.examples,
    )


class _Reading:
    """Reads each recording once, and collects measurements, problems, copies and numbers of windows."""

    def __init__(self, dataset: Dataset, recipe: Recipe, with_examples: bool):
        self.dataset, self.modalities, self.with_examples = dataset, recipe.modalities, with_examples
        self.window = recipe.data.window
        self.audit = RecordingAudit(leakage_checks(), dataset.read)
        self.measured: dict[str, list[Measured]] = {modality: [] for modality in self.modalities}
        self.examples: Examples = {}
        self.broken: dict[object, str] = {}
        self.unreadable: set[SampleKey] = set()
        self.dropped: list[Dropped] = []
        self.windows: Counter[str] | None = Counter() if self.window else None
        self.short: list[str] = []
        self.windowless: set[SampleKey] = set()

    def read(self, split: str, sample: Sample) -> None:
        """Read and check one sample.

        Raises:
            WindowError: If no recording can be cut into such windows.
        """
        signals, reason = {}, ""
        for modality in (each for each in self.modalities if each in sample.sources):
            try:
                signals[modality] = self._signal(sample, modality)
            except DataError as error:  # report a file that contains several modalities once
                source, reason = sample.sources[modality], str(error)
                self.broken.setdefault(source if isinstance(source, Path) else reason, reason)
        if reason:
            self.unreadable.add(sample.key)
            self.dropped.append(Dropped.of(sample.key, Dropped.BAD, reason, split))
            return
        for modality, signal in signals.items():
            self.measured[modality].append(measure(sample.key, signal))
            self.audit.add(sample.key, modality, signal)
            if self.with_examples and split == "train" and sample.is_labelled:
                name = names_of(sample, self.dataset)[0]
                self.examples.setdefault(modality, {}).setdefault(name, (sample.key, signal))
        self._count_windows(split, sample, [*signals.values()])

    def _signal(self, sample: Sample, modality: str) -> Signal:
        signal = self.dataset.read(sample, modality)
        if not len(signal):
            raise DataError(f"{sample.key}: the {modality} signal is empty")
        if signal.values.dtype.kind == "f" and not np.isfinite(signal.values).all():
            raise DataError(f"{sample.key}: the {modality} signal has values that are not finite")
        return signal

    def _count_windows(self, split: str, sample: Sample, signals: Sequence[Signal]) -> None:
        if self.window is None or self.windows is None:
            return
        count = len(windows(signals, self.window.length, self.window.hop or self.window.length))
        self.windows[split] += count
        if not count:
            duration = f"{min(signal.duration for signal in signals):.2f} s"
            self.short.append(f"{sample.key}: {duration}")
            self.windowless.add(sample.key)
            self.dropped.append(Dropped.of(sample.key, Dropped.SHORT, duration, split))


def names_of(sample: Sample, dataset: Dataset) -> list[str]:
    """Return the class or labels of a sample, or a placeholder if it has values or no label."""
    if not sample.is_labelled:
        return ["unlabelled"]
    if sample.label is not None:
        return [dataset.classes[sample.label]]
    if dataset.target.kind == "values":
        return ["with values"]
    return dataset.target.labels_of(sample.target or (), dataset.classes) or ["no label"]


def _counts(splits: Splits, dataset: Dataset | None = None) -> dict[str, Counter[str]]:
    """Return the number of samples by class or label and by split; by subject and split without a dataset."""
    counts: dict[str, Counter[str]] = {}
    for split, members in splits.samples.items():
        for sample in members:
            for name in names_of(sample, dataset) if dataset else [sample.key.subject]:
                counts.setdefault(name, Counter())[split] += 1
    return counts


def _lost_to_windows(usable: Splits, windowed: Splits) -> list[str]:
    """Return a warning if most recordings are shorter than a window."""
    before, after = (sum(map(len, splits.samples.values())) for splits in (usable, windowed))
    if after >= before / 2:
        return []
    return [f"{before - after} of {before} recordings are shorter than a window; choose a smaller data.window.length"]


def _target_numbers(samples: Iterable[Sample]) -> np.ndarray:
    """Return the labels or values of samples as (N, names), without samples that have none."""
    return np.array([each.target for each in samples if each.target is not None], dtype=np.float64)


def unknown_numbers(splits: Splits, dataset: Dataset) -> list[str]:
    """Return one sentence for each split in which some samples have unknown labels or values."""
    sentences = []
    for split, members in splits.samples.items():
        numbers = _target_numbers(members)
        sentences += lacking_numbers(numbers, dataset.classes, split, dataset.target.kind) if len(numbers) else []
    return sentences


def _value_ranges(splits: Splits, dataset: Dataset) -> dict[str, dict[str, Range]]:
    if dataset.target.kind != "values":
        return {}
    numbers = {split: _target_numbers(members) for split, members in splits.samples.items()}
    return {
        name: {split: _range(each[:, index]) for split, each in numbers.items() if len(each) and known(each[:, [index]]).any()}
        for index, name in enumerate(with_units(dataset.classes, dataset.target))
    }


def _weight_ranges(splits: Splits) -> dict[str, Range]:
    weights = {split: np.array([each.weight for each in members]) for split, members in splits.samples.items() if members}
    same = len({weight for each in weights.values() for weight in each.tolist()}) < 2
    return {} if same else {split: _range(each) for split, each in weights.items()}


def _range(numbers: np.ndarray) -> Range:
    return float(np.nanmin(numbers)), float(np.nanmean(numbers)), float(np.nanmax(numbers))


def _spread(values: Sequence[float]) -> Range:
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _ranges_by_subject(measured: Sequence[Measured]) -> dict[str, Range]:
    by_subject: dict[str, list[Measured]] = {}
    for each in measured:
        by_subject.setdefault(each.key.subject, []).append(each)
    return {
        subject: (
            min(each.low for each in group),
            float(np.median([each.typical for each in group])),
            max(each.high for each in group),
        )
        for subject, group in by_subject.items()
    }
