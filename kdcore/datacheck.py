"""A look at recordings before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdcore.errors import DataError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.load import load_recipe
from kdcore.training.assembly import modalities_of
from kdcore.training.splits import audit, complete_samples


@dataclass
class DataReport:
    """What `check` found.

    Args:
        dataset: Its name.
        rule: How it is split.
        classes: Class → part → samples.
        subjects: Subject → part → samples.
        parts: Part → samples.
        missing: A line for each sample without a modality the recipe uses.
        broken: A line for each recording that cannot be read.
        leaks: What stands on both sides of the split.
        lengths: Modality → (shortest, median, longest) number of samples in time.
        durations: Modality → the same in seconds.
    """

    dataset: str
    rule: str
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    subjects: dict[str, Counter[str]] = field(default_factory=dict)
    parts: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    lengths: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    durations: dict[str, tuple[float, float, float]] = field(default_factory=dict)


def check(source: str | Path, overrides: Sequence[str] = ()) -> DataReport:
    """Read every recording that a recipe uses.

    Raises:
        KdcoreError: If the recipe is wrong, the folder missing, or no split can be made.
    """
    plugins = plugin_manager()
    recipe = load_recipe(source, overrides, plugins)
    builder = Builder(recipe, plugins)
    dataset = builder.dataset()
    modalities = modalities_of(recipe.participants.values())
    samples, missing = complete_samples(dataset.samples(), modalities, "drop")
    split = builder.protocol().split(samples)
    report = DataReport(recipe.data.dataset.name, split.rule, missing=missing, leaks=audit(split))
    for part, members in split.parts.items():
        for sample in members:
            name = "unlabelled" if sample.label is None else dataset.classes[sample.label]
            report.classes.setdefault(name, Counter())[part] += 1
            report.subjects.setdefault(sample.key.subject, Counter())[part] += 1
            report.parts[part] += 1
    for modality in modalities:
        lengths, durations = [], []
        for sample in samples:
            try:
                signal = dataset.read(sample, modality)
                lengths.append(len(signal))
                durations.append(signal.duration)
            except DataError as error:
                report.broken.append(str(error))
        if lengths:
            report.lengths[modality] = _spread(lengths)
            report.durations[modality] = _spread(durations)
    return report


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]
