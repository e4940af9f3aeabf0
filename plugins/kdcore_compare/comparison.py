"""Comparison of entries with a reference, by seed and fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from kdcore import Metric, UsageError
from kdcore_compare.comparability import IncomparableError, all_conflicts
from kdcore_compare.selection import Entry, Observation, select, select_experiment, with_baselines, with_distinct_labels
from kdcore_compare.significance import Difference, paired, unpaired

Measure = Callable[[Observation], float]


@dataclass(frozen=True)
class Comparison:
    """Entries and the references that they are compared with.

    Args:
        entries: Rows of the table, including references.
        references: Reference of each entry, by label; references themselves are not included.
        metric: Name of the metric to compare.
        waived: Conflicts that were found and ignored (``--anyway``).
    """

    entries: Sequence[Entry]
    references: Mapping[str, Entry]
    metric: str = "accuracy"
    waived: Sequence[str] = field(default_factory=list)

    @property
    def reference(self) -> Entry:
        """The first reference."""
        return next(each for each in self.entries if each.label not in self.references)

    @property
    def single_reference(self) -> bool:
        """True if all entries have the same reference."""
        return len({each.label for each in self.references.values()}) == 1

    @property
    def others(self) -> list[Entry]:
        """Entries that are compared with a reference."""
        return [each for each in self.entries if each.label in self.references]

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, labels or values."""
        return self.reference.facts[0].classes

    @property
    def measured(self) -> Metric:
        """Metric that is compared."""
        return self.reference.metric(self.metric)

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """Differences in the metric from the reference, by label."""
        return {each.label: self.difference(each, metric_of(self.metric)) for each in self.others}

    def difference(self, entry: Entry, measure: Measure) -> Difference:
        """Return the difference of an entry from its reference."""
        return difference(entry, self.references[entry.label], measure)

    def class_difference(self, entry: Entry, index: int) -> Difference | None:
        """Return the difference in recall of a class, or in `Evaluation.by_output`, over the folds that contain it.

        Returns None if no fold does.
        """
        reference = self.references[entry.label]
        one, other = (
            each.only(key for key, observed in each.observations.items() if recall(observed, index) is not None)
            for each in (entry, reference)
        )
        if not one.observations or not other.observations:
            return None
        return difference(one, other, lambda each: float(each.evaluation.by_output[index]))


def recall(one: Observation, index: int) -> float | None:
    """Return the recall of a class, average precision of a label, or error of a value; None if undefined."""
    value = float(one.evaluation.by_output[index])
    return None if np.isnan(value) else value


def compare_sources(
    sources: Sequence[str], experiment: str = "", uri: str | None = None, filter_string: str = "", metric: str = "",
    anyway: bool = False,
) -> Comparison:  # fmt: skip
    """Compare the sources on the command line with the first one, or a single entry with its own baseline.

    Args:
        sources: Runs and recipes, as accepted by `kdcore_compare.selection.select`; ``key=value`` overrides all recipes.
        experiment: Name of an MLflow experiment whose finished runs are added.
        uri: MLflow tracking URI.
        filter_string: Filter for the runs of the experiment, in MLflow's search syntax.
        metric: Name of the metric to compare. Default: the primary metric of the target.
        anyway: Whether to compare despite conflicts.
    """
    overrides = [each for each in sources if "=" in each and not Path(each).exists()]
    found = select([each for each in sources if each not in overrides], overrides)
    if experiment:
        found += select_experiment(experiment, uri, filter_string)
    if len(found) == 1:
        return compare_pairs(with_baselines(found[0]), metric, anyway)
    return compare(with_distinct_labels(found), metric, anyway)


def compare(entries: Sequence[Entry], metric: str = "", anyway: bool = False) -> Comparison:
    """Compare entries with the first of them.

    Raises:
        IncomparableError: If entries, or the runs pooled in one, conflict, unless `anyway`.
        UsageError: If there are fewer than two entries.
    """
    if len(entries) < 2:
        raise UsageError("nothing to compare: give two or more runs or recipes")
    reasons = _refuse(all_conflicts(entries), anyway)
    metric = entries[0].metric(metric).name
    return Comparison(entries, {each.label: entries[0] for each in entries[1:]}, metric, reasons)


def compare_pairs(pairs: Sequence[tuple[Entry, Entry]], metric: str = "", anyway: bool = False) -> Comparison:
    """Compare the second entry of each pair with the first.

    Raises:
        IncomparableError: If the entries of a pair conflict, unless `anyway`.
    """
    reasons = _refuse(list(dict.fromkeys(each for pair in pairs for each in all_conflicts(pair))), anyway)
    entries = [each for pair in pairs for each in pair]
    metric = entries[0].metric(metric).name
    return Comparison(entries, {other.label: reference for reference, other in pairs}, metric, reasons)


def _refuse(reasons: list[str], anyway: bool) -> list[str]:
    if reasons and not anyway:
        lines = "\n  ".join(reasons)
        raise IncomparableError(f"these runs cannot be compared (use --anyway to compare them nevertheless):\n  {lines}")
    return reasons


def metric_of(name: str) -> Measure:
    """Return a function that reads a metric from an observation."""
    return lambda each: each.evaluation.metrics()[name]


def difference(one: Entry, reference: Entry, measure: Measure) -> Difference:
    """Return `one` minus `reference`, paired by seed and split rule if they have any in common, or else unpaired (Welch).

    Seeds of a fold share their data. With several folds, each fold is one observation: the mean over its seeds.
    """
    common = [key for key in one.observations if key in reference.observations]
    if not common:
        return unpaired(*([measure(each) for each in two.observations.values()] for two in (one, reference)))
    found = {key: measure(one.observations[key]) - measure(reference.observations[key]) for key in common}
    rules = list(dict.fromkeys(rule for _, rule in common))
    if len(rules) == 1:
        return paired(list(found.values()))
    means = [float(np.mean([value for (_, where), value in found.items() if where == rule])) for rule in rules]
    return paired(means, "folds")
