"""Checks of recordings before training, for the command ``kdcore data check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.protocol import Splits
from kdcore.contracts.target import OF_CLASSES, Target, known, with_units
from kdcore.data.dropped import BAD, NO_SPLIT, SHORT, Dropped, DropReport
from kdcore.data.leakage import audit, content_leaks
from kdcore.data.near_copies import near_copies, sketch
from kdcore.data.outlines import outline, resampled_copies
from kdcore.data.preparation import asked_splits, listed_samples, with_shares_missing
from kdcore.data.reading import content_hash
from kdcore.data.signal_checks import Measured, measure, odd_ranges, odd_signals
from kdcore.data.splits import class_warnings, complete_samples, without
from kdcore.data.targets import lacking_numbers
from kdcore.data.windows import windows
from kdcore.errors import DataError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.data_models import WindowSpec
from kdcore.recipe.load import load_recipe


@dataclass
class DataReport:
    """The result of `check`.

    Args:
        dataset: Name of the dataset.
        rule: Rule of the protocol, as a sentence.
        classes: Number of usable samples by class and split.
        subjects: Number of usable samples by subject and split.
        splits: Number of usable samples by split.
        missing: One line per sample that lacks a modality of the recipe.
        broken: One line per recording that cannot be read.
        leaks: Leaks between splits.
        dropped: All recordings that do not become samples, with reasons, including missing and broken ones.
        warnings: Problems of classes, and possible copies, that make results doubtful.
        odd: Readable signals that look wrong: constant, saturated, short, in other units, or with wrong time stamps.
        ranges: (lowest, typical, highest) value by modality and subject. The typical value is the median vector length.
        left_out: One sentence per modality for which the recipe leaves out a share of the signals.
        modalities: Modalities that the recipe uses, by name.
        examples: First training sample by modality and class, if examples were requested.
        windows: Number of windows by split; None if the recipe does not cut recordings into windows.
        short: One line per recording that is shorter than a window.
        lengths: (shortest, median, longest) number of time steps by modality.
        durations: (shortest, median, longest) duration by modality, in seconds.
        target: Target of the dataset.
        values: (minimum, mean, maximum) by value name with unit and by split; only for the target ``values``.
        weights: (minimum, mean, maximum) sample weight by split; empty if all weights are equal.
    """

    dataset: str
    rule: str
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    subjects: dict[str, Counter[str]] = field(default_factory=dict)
    splits: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    dropped: DropReport = field(default_factory=DropReport)
    warnings: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    ranges: dict[str, dict[str, tuple[float, float, float]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    modalities: dict[str, Modality] = field(default_factory=dict)
    examples: dict[str, dict[str, tuple[SampleKey, Signal]]] = field(default_factory=dict)
    windows: Counter[str] | None = None
    short: list[str] = field(default_factory=list)
    lengths: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    durations: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    target: Target = OF_CLASSES
    values: dict[str, dict[str, tuple[float, float, float]]] = field(default_factory=dict)
    weights: dict[str, tuple[float, float, float]] = field(default_factory=dict)

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
    plugins = plugin_manager()
    recipe = load_recipe(source, overrides, plugins, files=False)
    builder = Builder(recipe, plugins)
    dataset = builder.dataset()
    modalities, required = recipe.modalities, recipe.student_modalities
    with builder.locating_data_errors():
        samples, dropped = listed_samples(dataset, "skip")
        faults = [str(each) for each in dataset.unusable if each.fault]
        all_splits = asked_splits(builder.protocol(), samples)
        treatment = "mask" if recipe.data.missing == "mask" else "drop"
        kept, incomplete = complete_samples(samples, modalities, treatment, required)
        shares: list[Dropped] = []
        splits = without(all_splits, incomplete)
        kept, splits, left_out = with_shares_missing(kept, splits, recipe.data, modalities, required, shares)
    split_of = all_splits.split_of
    dropped += [*incomplete.values(), *shares]
    dropped += [Dropped.of(each.key, NO_SPLIT) for each in kept if each.key not in split_of]
    missing = [str(each) for each in incomplete.values()]
    report = DataReport(recipe.data.dataset.name, splits.rule, missing=missing, broken=faults, leaks=audit(all_splits))
    report.left_out = left_out
    report.modalities = {name: dataset.modalities[name] for name in modalities}
    reading = _Reading(dataset, modalities, recipe.data.window, report.examples if examples else None)
    for split, members in splits.samples.items():
        for sample in members:
            reading.read(split, sample)
    dropped += reading.dropped
    report.dropped = DropReport(tuple(dropped))
    _describe(report, reading, splits, dataset)
    return report


def _describe(report: DataReport, reading: _Reading, splits: Splits, dataset: Dataset) -> None:
    """Add the results of reading to the report."""
    usable = without(splits, reading.unreadable)
    for split, members in usable.samples.items():
        report.splits[split] += len(members)
        for sample in members:
            for name in names_of(sample, dataset):
                report.classes.setdefault(name, Counter())[split] += 1
            report.subjects.setdefault(sample.key.subject, Counter())[split] += 1
    report.broken += reading.broken.values()
    report.windows, report.short = reading.windows, reading.short
    leaks, copies = content_leaks(usable, reading.contents)
    report.leaks += [*leaks, *near_copies(usable, reading.sketches, reading.contents, dataset.read)]
    resampled = resampled_copies(usable, reading.outlines, reading.contents) if not report.leaks else []
    of_classes = class_warnings(usable, dataset.classes) if dataset.target.is_classes else []
    report.warnings = [*dataset.notes, *of_classes, *unknown_numbers(usable, dataset), *copies, *resampled]
    report.target, report.values = dataset.target, value_ranges(usable, dataset)
    report.weights = weight_ranges(usable)
    for modality, measured in reading.measured.items():
        if measured:
            report.lengths[modality] = _spread([each.length for each in measured])
            report.durations[modality] = _spread([each.duration for each in measured])
            report.ranges[modality] = _ranges(measured)
            report.odd += odd_signals(dataset.modalities[modality], measured)
            report.odd += odd_ranges(dataset.modalities[modality], measured)


class _Reading:
    """Reads each recording once, and collects problems, lengths, ranges and numbers of windows."""

    def __init__(
        self,
        dataset: Dataset,
        modalities: Sequence[str],
        window: WindowSpec | None,
        examples: dict[str, dict[str, tuple[SampleKey, Signal]]] | None = None,
    ):
        self.dataset, self.modalities, self.window, self.examples = dataset, modalities, window, examples
        self.measured: dict[str, list[Measured]] = {modality: [] for modality in modalities}
        self.contents: dict[str, dict[SampleKey, str]] = {modality: {} for modality in modalities}
        self.sketches: dict[str, dict[SampleKey, str]] = {modality: {} for modality in modalities}
        self.outlines: dict[str, dict[SampleKey, str]] = {modality: {} for modality in modalities}
        self.broken: dict[object, str] = {}
        self.unreadable: set[SampleKey] = set()
        self.dropped: list[Dropped] = []
        self.windows: Counter[str] | None = Counter() if window else None
        self.short: list[str] = []

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
                source, reason = sample.sources.get(modality), str(error)
                self.broken.setdefault(source if isinstance(source, Path) else reason, reason)
        if reason:
            self.unreadable.add(sample.key)
            self.dropped.append(Dropped.of(sample.key, BAD, reason, split))
            return
        for modality, signal in signals.items():
            self.measured[modality].append(measure(sample.key, signal))
            if self.examples is not None and split == "train" and sample.is_labelled:
                by_class = self.examples.setdefault(modality, {})
                by_class.setdefault(names_of(sample, self.dataset)[0], (sample.key, signal))
            if content := content_hash(signal):
                self.contents[modality][sample.key], self.sketches[modality][sample.key] = content, sketch(signal)
                if movement := outline(signal):
                    self.outlines[modality][sample.key] = movement
        if self.window and self.windows is not None:
            self._cut(split, sample, signals, self.window)

    def _signal(self, sample: Sample, modality: str) -> Signal:
        signal = self.dataset.read(sample, modality)
        if not len(signal):
            raise DataError(f"{sample.key}: the {modality} signal is empty")
        if signal.values.dtype.kind == "f" and not np.isfinite(signal.values).all():
            raise DataError(f"{sample.key}: the {modality} signal has values that are not finite")
        return signal

    def _cut(self, split: str, sample: Sample, signals: Mapping[str, Signal], window: WindowSpec) -> None:
        assert self.windows is not None
        count = len(windows(list(signals.values()), window.length, window.hop or window.length))
        self.windows[split] += count
        if not count:
            shortest = f"{min(signal.duration for signal in signals.values()):.2f} s"
            self.short.append(f"{sample.key}: {shortest}")
            self.dropped.append(Dropped.of(sample.key, SHORT, shortest, split))


def _ranges(measured: Sequence[Measured]) -> dict[str, tuple[float, float, float]]:
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


def names_of(sample: Sample, dataset: Dataset) -> list[str]:
    """Return the class or labels of a sample, or a placeholder if it has values or no label."""
    if not sample.is_labelled:
        return ["unlabelled"]
    if sample.label is not None:
        return [dataset.classes[sample.label]]
    if dataset.target.kind == "values":
        return ["with values"]
    return dataset.target.labels_of(sample.target or (), dataset.classes) or ["no label"]


def unknown_numbers(splits: Splits, dataset: Dataset) -> list[str]:
    """Return one sentence for each split in which some samples have unknown labels or values."""
    if dataset.target.is_classes:
        return []
    sentences = []
    for split, members in splits.samples.items():
        targets = np.array([each.target for each in members if each.target is not None], dtype=np.float64)
        sentences += lacking_numbers(targets, dataset.classes, split, dataset.target.kind) if len(targets) else []
    return sentences


def value_ranges(splits: Splits, dataset: Dataset) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return (minimum, mean, maximum) by value name with unit and by split; empty unless the target is ``values``."""
    if dataset.target.kind != "values":
        return {}
    numbers = {
        split: np.array([each.target for each in members if each.target is not None], dtype=np.float64)
        for split, members in splits.samples.items()
    }
    return {
        name: {split: _range(each[:, index]) for split, each in numbers.items() if len(each) and known(each[:, [index]]).any()}
        for index, name in enumerate(with_units(dataset.classes, dataset.target))
    }


def weight_ranges(splits: Splits) -> dict[str, tuple[float, float, float]]:
    """Return (minimum, mean, maximum) sample weight by split; empty if all weights are equal."""
    weights = {split: np.array([each.weight for each in members]) for split, members in splits.samples.items() if members}
    same = len({weight for each in weights.values() for weight in each.tolist()}) < 2
    return {} if same else {split: _range(each) for split, each in weights.items()}


def _range(numbers: np.ndarray) -> tuple[float, float, float]:
    return float(np.nanmin(numbers)), float(np.nanmean(numbers)), float(np.nanmax(numbers))


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]
