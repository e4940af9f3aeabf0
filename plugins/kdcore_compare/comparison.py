"""Compare entries with a reference, seed by seed and split by split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from kdcore import UsageError
from kdcore_compare.comparability import IncomparableError, all_conflicts
from kdcore_compare.selection import Entry, Observation, select, select_experiment, with_baseline, with_distinct_labels
from kdcore_compare.significance import Difference, paired, unpaired

Measure = Callable[[Observation], float]


@dataclass(frozen=True)
class Comparison:
    """Entries compared with a reference.

    Args:
        reference: The entry that the others are compared with.
        others: The other entries.
        metric: ``accuracy``, ``macro_f1`` or ``loss``.
        waived: Conflicts that were found and ignored (``--anyway``).
    """

    reference: Entry
    others: Sequence[Entry]
    metric: str = "accuracy"
    waived: Sequence[str] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        """The reference, then the others."""
        return [self.reference, *self.others]

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in the order of the labels."""
        return self.reference.facts[0].classes

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """Label → difference in the metric from the reference."""
        return {each.label: difference(each, self.reference, metric_of(self.metric)) for each in self.others}

    def class_difference(self, other: Entry, index: int) -> Difference | None:
        """The difference in recall of one class; None if a split has no sample of it."""
        both = (other, self.reference)
        if any(np.isnan(each.evaluation.recall[index]) for one in both for each in one.observations.values()):
            return None
        return difference(other, self.reference, lambda each: float(each.evaluation.recall[index]))


def compare_sources(
    sources: Sequence[str], experiment: str = "", uri: str | None = None, filter_string: str = "", metric: str = "accuracy",
    anyway: bool = False,
) -> Comparison:  # fmt: skip
    """Compare what the command line names with the first of it; a single entry with its own baseline.

    Args:
        sources: Runs and recipes, as `kdcore_compare.selection.select` takes them; ``key=value`` among them overrides
            every recipe.
        experiment: Name of an MLflow experiment whose finished runs are compared, too.
        uri: Tracking URI of MLflow.
        filter_string: Filter for the experiment's runs, in MLflow's search syntax.
        metric: ``accuracy``, ``macro_f1`` or ``loss``.
        anyway: Compare in spite of conflicts.
    """
    overrides = [each for each in sources if "=" in each and not Path(each).exists()]
    found = select([each for each in sources if each not in overrides], overrides)
    if experiment:
        found += select_experiment(experiment, uri, filter_string)
    if len(found) == 1:
        found = with_baseline(found[0])
    return compare(with_distinct_labels(found), metric, anyway)


def compare(entries: Sequence[Entry], metric: str = "accuracy", anyway: bool = False) -> Comparison:
    """Compare entries with the first of them.

    Raises:
        IncomparableError: If entries, or the runs pooled in one, conflict, unless `anyway`.
        UsageError: If there are fewer than two entries.
    """
    if len(entries) < 2:
        raise UsageError("nothing to compare: give two or more runs or recipes")
    reasons = all_conflicts(entries)
    if reasons and not anyway:
        lines = "\n  ".join(reasons)
        raise IncomparableError(f"these runs cannot be compared (use --anyway to compare them nevertheless):\n  {lines}")
    return Comparison(entries[0], entries[1:], metric, reasons)


def metric_of(name: str) -> Measure:
    """The function that reads a metric from an observation."""
    return lambda each: each.evaluation.metrics()[name]


def difference(one: Entry, reference: Entry, measure: Measure) -> Difference:
    """`one` minus `reference`, paired by seed and split where they have any in common, else unpaired (Welch).

    Seeds of one split share their data, so with several splits each split counts once, as the mean over its seeds.
    """
    common = [key for key in one.observations if key in reference.observations]
    if not common:
        return unpaired(*([measure(each) for each in two.observations.values()] for two in (one, reference)))
    found = {key: measure(one.observations[key]) - measure(reference.observations[key]) for key in common}
    splits = list(dict.fromkeys(split for _, split in common))
    if len(splits) == 1:
        return paired(list(found.values()))
    means = [float(np.mean([value for (_, where), value in found.items() if where == split])) for split in splits]
    return paired(means, "splits")
