"""Contenders set against one of them, once it is sure that they can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from kdcore import KdcoreError, UsageError
from kdcore_compare.agreement import SAME_DATA, not_as_one, selection_rule
from kdcore_compare.contenders import Contender, Observation
from kdcore_compare.significance import Difference, paired, unpaired

Measure = Callable[[Observation], float]


class IncomparableError(KdcoreError):
    """Runs whose numbers do not mean the same."""

    exit_code = 2


@dataclass(frozen=True)
class Comparison:
    """Contenders against a reference.

    Args:
        reference: What the others are compared with.
        others: The others.
        metric: ``accuracy``, ``macro_f1`` or ``loss``.
        in_spite_of: What makes them incomparable, if that was waived.
    """

    reference: Contender
    others: Sequence[Contender]
    metric: str = "accuracy"
    in_spite_of: Sequence[str] = field(default_factory=list)

    @property
    def contenders(self) -> list[Contender]:
        """The reference, then the others."""
        return [self.reference, *self.others]

    @property
    def classes(self) -> Sequence[str]:
        """Class names."""
        return self.reference.facts[0].classes

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """Label → difference in the metric from the reference."""
        return {each.label: difference(each, self.reference, metric_of(self.metric)) for each in self.others}

    def of_class(self, other: Contender, index: int) -> Difference | None:
        """Difference in the share of a class that is answered right; None if it has no samples."""
        found = (other, self.reference)
        if any(np.isnan(each.evaluation.recall[index]) for one in found for each in one.observations.values()):
            return None
        return difference(other, self.reference, lambda each: float(each.evaluation.recall[index]))


def compare(found: Sequence[Contender], metric: str = "accuracy", anyway: bool = False) -> Comparison:
    """Compare all others with the first.

    Raises:
        IncomparableError: If they, or the runs that one of them takes as one, differ in what must agree, unless `anyway`.
        UsageError: If there is nothing to compare.
    """
    if len(found) < 2:
        raise UsageError("give two or more runs or recipes to compare")
    reasons = [reason for each in found for reason in not_as_one(each.runs, each.participant)]
    reasons += [reason for other in found[1:] for reason in incomparable(found[0], other)]
    reasons = list(dict.fromkeys(reasons))  # a run and its baseline have the same ones
    if reasons and not anyway:
        lines = "\n  ".join(reasons)
        raise IncomparableError(f"these cannot be compared (--anyway does so all the same):\n  {lines}")
    return Comparison(found[0], found[1:], metric, reasons)


def incomparable(one: Contender, other: Contender) -> list[str]:
    """Why the numbers of two contenders do not mean the same; empty if they do."""
    names = f"{one.label} and {other.label}"
    told: dict[str, Callable[[Observation], str]] = {
        **{what: lambda each, fact=fact: fact(each.facts) for what, fact in SAME_DATA.items()},
        "another split": lambda each: each.facts.split,
        "another number of samples": lambda each: f"{each.evaluation.n} samples",
    }
    reasons = [
        f"{names}: {what}: {mine} against {theirs}"
        for what, value in told.items()
        if (mine := _all(one, value)) != (theirs := _all(other, value))
    ]
    mine, theirs = (_all(each, lambda o, n=each.participant: selection_rule(o.facts, n)) for each in (one, other))
    if mine != theirs:
        reasons.append(f"{names}: another selection rule: {mine} against {theirs}")
    if not reasons:
        reasons += _other_samples(one, other, names)
    return reasons


def _all(one: Contender, value: Callable[[Observation], str]) -> str:
    return "; ".join(sorted({value(each) for each in one.observations.values()}))


def _other_samples(one: Contender, other: Contender, names: str) -> list[str]:
    here_of, theirs_of = ({split: each for (_, split), each in both.observations.items()} for both in (one, other))
    for split, theirs in theirs_of.items():
        here = here_of[split]
        if here.keys != theirs.keys:
            differing = sorted(set(here.keys) ^ set(theirs.keys))
            return [f"{names}: other samples in the same split: {differing[0]} is only in one of them"]
        if not np.array_equal(here.evaluation.labels, theirs.evaluation.labels):
            return [f"{names}: other labels of the same samples"]
    return []


def metric_of(name: str) -> Measure:
    """A number of an observation, by the metric's name."""
    return lambda each: each.evaluation.metrics()[name]


def difference(one: Contender, reference: Contender, measure: Measure) -> Difference:
    """`one` minus `reference`, paired by seed and split where they have any in common.

    Of several splits, each counts once, as the mean over its seeds: seeds of one split share their data.
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
