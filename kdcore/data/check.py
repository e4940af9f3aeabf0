"""A look at recordings before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdcore.contracts.dataset import Dataset
from kdcore.contracts.protocol import Split
from kdcore.data.leakage import audit
from kdcore.data.preparation import asked_split, listed_samples
from kdcore.data.splits import complete_samples
from kdcore.data.windows import windows
from kdcore.errors import DataError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.config_models import WindowSpec
from kdcore.recipe.load import load_recipe
from kdcore.recipe.models import modalities_of


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
        windows: Part → windows, if the recipe cuts recordings into such.
        short: A line for each recording that is shorter than a window.
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
    windows: Counter[str] | None = None
    short: list[str] = field(default_factory=list)
    lengths: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    durations: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def windowless(self) -> list[str]:
        """Parts that are cut into windows and have none."""
        return [] if self.windows is None else [part for part in self.parts if not self.windows[part]]


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
    with builder.locating_data_errors():
        samples, missing = complete_samples(listed_samples(dataset), modalities, "drop")
        split = asked_split(builder.protocol(), samples)
    report = DataReport(recipe.data.dataset.name, split.rule, missing=missing, leaks=audit(split))
    for part, members in split.parts.items():
        for sample in members:
            name = "unlabelled" if sample.label is None else dataset.classes[sample.label]
            report.classes.setdefault(name, Counter())[part] += 1
            report.subjects.setdefault(sample.key.subject, Counter())[part] += 1
            report.parts[part] += 1
    _read_all(dataset, split, modalities, recipe.data.window, report)
    return report


def _read_all(dataset: Dataset, split: Split, modalities: Sequence[str], window: WindowSpec | None, report: DataReport) -> None:
    """Every recording once, for what is broken, how long they are, and how many windows they give."""
    lengths, durations = ({modality: [] for modality in modalities} for _ in range(2))
    broken: dict[object, str] = {}
    report.windows = Counter() if window else None
    for part, sample in [(part, sample) for part, members in split.parts.items() for sample in members]:
        signals = []
        for modality in modalities:
            try:
                signals.append(dataset.read(sample, modality))
            except DataError as error:  # a file that holds several modalities is said once
                source = sample.sources.get(modality)
                broken.setdefault(source if isinstance(source, Path) else str(error), str(error))
            else:
                lengths[modality].append(len(signals[-1]))
                durations[modality].append(signals[-1].duration)
        if window and report.windows is not None and len(signals) == len(modalities):
            count = len(windows(signals, window.length, window.hop or window.length))
            report.windows[part] += count
            if not count:
                report.short.append(f"{sample.key}: {min(signal.duration for signal in signals):.2f} s")
    report.broken = list(broken.values())
    report.lengths = {modality: _spread(found) for modality, found in lengths.items() if found}
    report.durations = {modality: _spread(found) for modality, found in durations.items() if found}


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]
