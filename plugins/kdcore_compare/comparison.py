"""Compare entries with a reference, seed by seed and fold by fold."""

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
    """Entries, each compared with its reference.

    Args:
        entries: The rows, references among them.
        references: Label of an entry → the entry that it is compared with; references themselves are absent.
        metric: Name of the metric that is compared.
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
        """True if all entries are compared with the same one."""
        return len({each.label for each in self.references.values()}) == 1

    @property
    def others(self) -> list[Entry]:
        """The entries that are compared with a reference."""
        return [each for each in self.entries if each.label in self.references]

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, labels or values."""
        return self.reference.facts[0].classes

    @property
    def measured(self) -> Metric:
        """The metric that is compared."""
        return self.reference.metric(self.metric)

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """Label → difference in the metric from the entry's reference."""
        return {each.label: self.difference(each, metric_of(self.metric)) for each in self.others}

    def difference(self, entry: Entry, measure: Measure) -> Difference:
        """The difference of an entry from its reference."""
        return difference(entry, self.references[entry.label], measure)

    def class_difference(self, entry: Entry, index: int) -> Difference | None:
        """The difference in recall of one class, or in what `Evaluation.by_output` is of, over the folds that have it.

        None if none has.
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
    """The recall of one class, the average precision of a label, or the error of a value; None where it is not defined."""
    value = float(one.evaluation.by_output[index])
    return None if np.isnan(value) else value


def compare_sources(
    sources: Sequence[str], experiment: str = "", uri: str | None = None, filter_string: str = "", metric: str = "",
    anyway: bool = False,
) -> Comparison:  # fmt: skip
    """Compare what the command line names with the first of it; a single entry with its own baseline.

    Args:
        sources: Runs and recipes, as `kdcore_compare.selection.select` takes them; ``key=value`` among them overrides
            every recipe.
        experiment: Name of an MLflow experiment whose finished runs are compared, too.
        uri: Tracking URI of MLflow.
        filter_string: Filter for the experiment's runs, in MLflow's search syntax.
        metric: Name of the metric that is compared; by default the one by which the target is judged.
        anyway: Compare in spite of conflicts.
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
    """The function that reads a metric from an observation."""
    return lambda each: each.evaluation.metrics()[name]


def difference(one: Entry, reference: Entry, measure: Measure) -> Difference:
    """`one` minus `reference`, paired by seed and split rule where they have any in common, else unpaired (Welch).

    Seeds of one fold share their data, so with several folds each fold counts once, as the mean over its seeds.
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
