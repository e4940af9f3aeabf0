"""Checks that results of several runs are comparable, so that they can be compared or pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from kdcore import Facts, FinishedRun, KdcoreError, Recipe
from kdcore_compare.selection import Entry, Observation

SAME_DATA: Mapping[str, Callable[[Facts], str]] = {
    "different split": lambda facts: facts.split,
    "different data (fingerprint)": lambda facts: facts.fingerprint,
    "different classes": lambda facts: ", ".join(facts.classes),
    "different target": lambda facts: f"{facts.target.get('kind', 'classes')} {list(facts.target.get('units', ()))}",
}
"""Facts that must agree, by description of the conflict."""


class IncomparableError(KdcoreError):
    """Raised for runs whose results are not comparable."""

    exit_code = 2


def all_conflicts(entries: Sequence[Entry]) -> list[str]:
    """Return all reasons why `entries` cannot be compared with the first of them, or why their runs cannot be pooled."""
    reasons = [reason for each in entries for reason in pooling_conflicts(each.runs, each.participant)]
    reasons += [reason for other in entries[1:] for reason in conflicts(entries[0], other)]
    return list(dict.fromkeys(reasons))  # a run and its baseline have the same reasons


def conflicts(one: Entry, other: Entry) -> list[str]:
    """Return reasons why two entries cannot be compared; empty if they can."""
    names = f"{one.label} and {other.label}"
    facts: dict[str, Callable[[Observation], str]] = {
        **{what: lambda each, fact=fact: fact(each.facts) for what, fact in SAME_DATA.items()},
        "different split rule": lambda each: each.facts.split_rule,
        "different number of samples": lambda each: f"{each.evaluation.n} samples",
    }
    reasons = [
        f"{names}: {what}: {rule} against {other_rule}"
        for what, value in facts.items()
        if (rule := _all(one, value)) != (other_rule := _all(other, value))
    ]
    rule, other_rule = (_all(each, lambda o, n=each.participant: selection_rule(o.facts, n)) for each in (one, other))
    if rule != other_rule:
        reasons.append(f"{names}: different selection of the epoch: {rule} against {other_rule}")
    if not reasons:
        reasons += _different_samples(one, other, names)
    return reasons


def _all(one: Entry, value: Callable[[Observation], str]) -> str:
    return "; ".join(sorted({value(each) for each in one.observations.values()}))


def _different_samples(one: Entry, other: Entry, names: str) -> list[str]:
    first_by_rule, second_by_rule = ({rule: each for (_, rule), each in both.observations.items()} for both in (one, other))
    for rule, second in second_by_rule.items():
        first = first_by_rule[rule]
        if first.keys != second.keys:
            differing = sorted(set(first.keys) ^ set(second.keys))
            return [f"{names}: different samples under the same split rule: only one of them has {differing[0]}"]
        if not np.array_equal(first.evaluation.labels, second.evaluation.labels, equal_nan=True):
            return [f"{names}: different labels of the same samples"]
    return []


def selection_rule(facts: Facts, participant: str) -> str:
    """Return the epoch whose weights were evaluated, ``last`` or ``best``; for an ensemble, the rules of all participants."""
    rules = facts.selection
    return rules[participant] if participant in rules else " and ".join(sorted(set(rules.values())))


def pooling_conflicts(runs: Sequence[FinishedRun], participant: str) -> list[str]:
    """Return reasons why runs cannot be pooled into one entry; empty if they can.

    Pooled runs have the same configuration and data. Their split rules may differ, as for folds. Runs with the same rule must
    have the same samples.

    Args:
        runs: Runs to pool.
        participant: Participant to compare.
    """
    reasons: list[str] = []
    first_of = {run.facts.split_rule: run for run in reversed(runs)}
    for run in runs[1:]:
        reasons += _pooled(runs[0], run, _different_facts(runs[0], run, participant))
        reasons += _pooled(runs[0], run, _different_configuration(runs[0], run))
        same_rule = first_of[run.facts.split_rule]
        if same_rule not in (runs[0], run):
            reasons += _pooled(same_rule, run, _different_configuration(same_rule, run))
        if same_rule is not run:
            reasons += _pooled(same_rule, run, _different_labels(same_rule, run))
    return reasons


def _pooled(one: FinishedRun, other: FinishedRun, reasons: Iterable[str]) -> list[str]:
    return [f"{one.folder.name} + {other.folder.name} pooled: {reason}" for reason in reasons]


def _different_facts(one: FinishedRun, other: FinishedRun, participant: str) -> Iterator[str]:
    facts = {**SAME_DATA, "different selection of the epoch": lambda facts: selection_rule(facts, participant)}
    for what, value in facts.items():
        if (first := value(one.facts)) != (second := value(other.facts)):
            yield f"{what}: {first} against {second}"


def _different_configuration(one: FinishedRun, other: FinishedRun) -> Iterator[str]:
    if one.facts.variant == other.facts.variant:
        return
    fold = one.facts.split_rule != other.facts.split_rule
    differing = _differing_sections(one, other, fold)
    if differing or not fold:
        where = f" ({', '.join(differing)})" if differing else ""
        both = [] if fold else sorted(set(one.facts.seeds) & set(other.facts.seeds))
        lost = f"; of the common seeds {', '.join(map(str, both))}, only the later run would count" if both else ""
        yield f"different configuration{where}{lost}"


def _differing_sections(one: FinishedRun, other: FinishedRun, fold: bool) -> list[str]:
    """Return the sections of the recipe that differ, except the protocol between folds."""
    first, second = (_configuration(run, fold) for run in (one, other))
    return sorted(key for key in {*first, *second} if first.get(key) != second.get(key))


def _configuration(run: FinishedRun, fold: bool) -> dict[str, Any]:
    recipe = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    if fold and "data" in recipe:
        recipe["data"].pop("protocol", None)
    return {key: value for key, value in recipe.items() if key not in Recipe.NO_CONFIGURATION}


def _different_labels(one: FinishedRun, other: FinishedRun) -> Iterator[str]:
    first, second = _labels(one), _labels(other)
    if differing := sorted(set(first) ^ set(second)):
        yield f"different samples under the same split rule: only one of them has {differing[0]}"
    elif first != second:
        yield "different labels of the same samples"


def _labels(run: FinishedRun) -> dict[str, str]:
    outcomes = [outcome for seeds in run.outcomes.values() for outcome in seeds.values()]
    return {key: str(label) for outcome in outcomes for key, label in zip(outcome.keys, outcome.labels.tolist(), strict=True)}
