"""Checks of recordings before training: the command ``kdcore data check``."""

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
        rule: Rule of the protocol, in a sentence.
        classes: Class → split → number of usable samples.
        subjects: Subject → split → number of usable samples.
        splits: Split → number of usable samples.
        missing: A line for each sample that lacks a modality of the recipe.
        broken: A line for each recording that cannot be read.
        leaks: Leaks between splits.
        dropped: All recordings that do not become samples, with reasons; includes missing and broken ones.
        warnings: Problems of classes and copies that make results doubtful.
        odd: Readable signals that look wrong: constant, saturated, short, in other units, wrongly timed.
        ranges: Modality → subject → (lowest, typical, highest) value; the typical value is the median length of vectors.
        left_out: A sentence for each modality of which the recipe leaves out a share of the signals.
        modalities: Modalities that the recipe uses, by name.
        examples: Modality → class → first training sample, if examples were requested.
        windows: Split → number of windows, if the recipe cuts recordings into windows.
        short: A line for each recording that is shorter than a window.
        lengths: Modality → (shortest, median, longest) number of samples in time.
        durations: Modality → the same in seconds.
        target: The form of the dataset's targets.
        values: Value with its unit → split → (least, mean, largest), where the target is ``values``.
        weights: Split → (least, mean, largest) weight of a sample; empty if all weigh the same.
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
        """Splits with samples that are cut into windows and have none."""
        if self.windows is None:
            return []
        return [split for split, count in self.splits.items() if count and not self.windows[split]]


def check(source: str | Path, overrides: Sequence[str] = (), examples: bool = False) -> DataReport:
    """Read every recording that a recipe uses.

    Args:
        source: Path or name of the recipe.
        overrides: ``key=value`` each.
        examples: True to keep a recording of every modality and class.

    Raises:
        KdcoreError: If the recipe is wrong, the folder missing, or the protocol cannot divide the samples.
    """
    plugins = plugin_manager()
    recipe = load_recipe(source, overrides, plugins, files=False)
    builder = Builder(recipe, plugins)
    dataset = builder.dataset()
    modalities, required = recipe.modalities, recipe.student_modalities
    with builder.locating_data_errors():
        samples, dropped = listed_samples(dataset, "skip")
        faults = [str(each) for each in dataset.unusable if each.fault]
        whole = asked_splits(builder.protocol(), samples)
        treatment = "mask" if recipe.data.missing == "mask" else "drop"
        kept, lacking = complete_samples(samples, modalities, treatment, required)
        shares: list[Dropped] = []
        splits = without(whole, lacking)
        kept, splits, left_out = with_shares_missing(kept, splits, recipe.data, modalities, required, shares)
    split_of = whole.split_of
    dropped += [*lacking.values(), *shares]
    dropped += [Dropped.of(each.key, NO_SPLIT) for each in kept if each.key not in split_of]
    missing = [str(each) for each in lacking.values()]
    report = DataReport(recipe.data.dataset.name, splits.rule, missing=missing, broken=faults, leaks=audit(whole))
    report.left_out = left_out
    report.modalities = {name: dataset.modalities[name] for name in modalities}
    found = _Reading(dataset, modalities, recipe.data.window, report.examples if examples else None)
    for split, members in splits.samples.items():
        for sample in members:
            found.read(split, sample)
    dropped += found.dropped
    report.dropped = DropReport(tuple(dropped))
    _describe(report, found, splits, dataset)
    return report


def _describe(report: DataReport, found: _Reading, splits: Splits, dataset: Dataset) -> None:
    """Fill in the results of reading."""
    usable = without(splits, found.unreadable)
    for split, members in usable.samples.items():
        report.splits[split] += len(members)
        for sample in members:
            for name in names_of(sample, dataset):
                report.classes.setdefault(name, Counter())[split] += 1
            report.subjects.setdefault(sample.key.subject, Counter())[split] += 1
    report.broken += found.broken.values()
    report.windows, report.short = found.windows, found.short
    leaks, copies = content_leaks(usable, found.contents)
    report.leaks += [*leaks, *near_copies(usable, found.sketches, found.contents, dataset.read)]
    alike = resampled_copies(usable, found.outlines, found.contents) if not report.leaks else []
    of_classes = class_warnings(usable, dataset.classes) if dataset.target.is_classes else []
    report.warnings = [*dataset.notes, *of_classes, *unknown_numbers(usable, dataset), *copies, *alike]
    report.target, report.values = dataset.target, value_ranges(usable, dataset)
    report.weights = weight_ranges(usable)
    for modality, measured in found.measured.items():
        if measured:
            report.lengths[modality] = _spread([each.length for each in measured])
            report.durations[modality] = _spread([each.duration for each in measured])
            report.ranges[modality] = _ranges(measured)
            report.odd += odd_signals(dataset.modalities[modality], measured)
            report.odd += odd_ranges(dataset.modalities[modality], measured)


class _Reading:
    """Reads every recording once, and collects problems, lengths, ranges and numbers of windows."""

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
        """Check one sample.

        Raises:
            WindowError: If no recording can be cut into such windows.
        """
        signals, why = {}, ""
        for modality in (each for each in self.modalities if each in sample.sources):
            try:
                signals[modality] = self._signal(sample, modality)
            except DataError as error:  # a file that holds several modalities is said once
                source, why = sample.sources.get(modality), str(error)
                self.broken.setdefault(source if isinstance(source, Path) else why, why)
        if why:
            self.unreadable.add(sample.key)
            self.dropped.append(Dropped.of(sample.key, BAD, why, split))
            return
        for modality, signal in signals.items():
            self.measured[modality].append(measure(sample.key, signal))
            if self.examples is not None and split == "train" and sample.is_labelled:
                shown = self.examples.setdefault(modality, {})
                shown.setdefault(names_of(sample, self.dataset)[0], (sample.key, signal))
            if content := content_hash(signal):
                self.contents[modality][sample.key], self.sketches[modality][sample.key] = content, sketch(signal)
                if slow := outline(signal):
                    self.outlines[modality][sample.key] = slow
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
        subject: (min(each.low for each in of), float(np.median([each.typical for each in of])), max(each.high for each in of))
        for subject, of in by_subject.items()
    }


def names_of(sample: Sample, dataset: Dataset) -> list[str]:
    """The class of a sample, its labels, or what stands for them where it has none, or values."""
    if not sample.is_labelled:
        return ["unlabelled"]
    if sample.label is not None:
        return [dataset.classes[sample.label]]
    if dataset.target.kind == "values":
        return ["with values"]
    return dataset.target.labels_of(sample.target or (), dataset.classes) or ["no label"]


def unknown_numbers(splits: Splits, dataset: Dataset) -> list[str]:
    """A sentence for each split of which some samples have labels or values that are not known."""
    if dataset.target.is_classes:
        return []
    found = []
    for split, members in splits.samples.items():
        told = np.array([each.target for each in members if each.target is not None], dtype=np.float64)
        found += lacking_numbers(told, dataset.classes, split, dataset.target.kind) if len(told) else []
    return found


def value_ranges(splits: Splits, dataset: Dataset) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Value with its unit → split → its least, mean and largest; empty for other targets than ``values``."""
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
    """Split → least, mean and largest weight of a sample; empty if all weigh the same."""
    found = {split: np.array([each.weight for each in members]) for split, members in splits.samples.items() if members}
    same = len({weight for each in found.values() for weight in each.tolist()}) < 2
    return {} if same else {split: _range(each) for split, each in found.items()}


def _range(numbers: np.ndarray) -> tuple[float, float, float]:
    return float(np.nanmin(numbers)), float(np.nanmean(numbers)), float(np.nanmax(numbers))


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]
