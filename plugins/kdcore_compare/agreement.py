"""What runs must agree in for their numbers to mean the same, and for being taken as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from kdcore import Facts, FinishedRun, Recipe

SAME_DATA: Mapping[str, Callable[[Facts], str]] = {
    "another part of the split": lambda facts: facts.part,
    "other data (fingerprint)": lambda facts: facts.fingerprint,
    "other classes": lambda facts: ", ".join(facts.classes),
}
"""What is said where facts differ → the fact."""


def selection_rule(facts: Facts, participant: str) -> str:
    """Which epoch's weights of a participant, or of all who answer together, were evaluated."""
    rules = facts.selection
    return rules[participant] if participant in rules else " and ".join(sorted(set(rules.values())))


def not_as_one(runs: Sequence[FinishedRun], participant: str) -> list[str]:
    """Why runs cannot be taken as one; empty if they can: one configuration on the same data.

    Splits may differ, as folds do; runs of one split must have the same samples.

    Args:
        runs: To be taken as one.
        participant: Whose results count.
    """
    reasons: list[str] = []
    first_of = {run.facts.split: run for run in reversed(runs)}
    for run in runs[1:]:
        here = first_of[run.facts.split]
        reasons += _told(runs[0], run, [*_other_facts(runs[0], run, participant), *_other_configuration(runs[0], run)])
        if here not in (runs[0], run):
            reasons += _told(here, run, _other_configuration(here, run))
        if here is not run:
            reasons += _told(here, run, _other_samples(here, run))
    return reasons


def _told(one: FinishedRun, other: FinishedRun, reasons: Iterable[str]) -> list[str]:
    return [f"{one.folder.name} + {other.folder.name} as one: {reason}" for reason in reasons]


def _other_facts(one: FinishedRun, other: FinishedRun, participant: str) -> Iterator[str]:
    told = {**SAME_DATA, "another selection rule": lambda facts: selection_rule(facts, participant)}
    for what, value in told.items():
        if (mine := value(one.facts)) != (theirs := value(other.facts)):
            yield f"{what}: {mine} against {theirs}"


def _other_configuration(one: FinishedRun, other: FinishedRun) -> Iterator[str]:
    if one.facts.variant == other.facts.variant:
        return
    fold = one.facts.split != other.facts.split
    differing = _differing_sections(one, other, fold)
    if differing or not fold:
        where = f" ({', '.join(differing)})" if differing else ""
        both = [] if fold else sorted(set(one.facts.seeds) & set(other.facts.seeds))
        lost = f", of seeds that both have, {', '.join(map(str, both))}, only the later run's would count" if both else ""
        yield f"another configuration{where}{lost}"


def _differing_sections(one: FinishedRun, other: FinishedRun, fold: bool) -> list[str]:
    """Sections of the recipe that say otherwise; that folds differ in the protocol does not count."""
    mine, theirs = (_configuration(run, fold) for run in (one, other))
    return sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))


def _configuration(run: FinishedRun, fold: bool) -> dict[str, Any]:
    told = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    if fold and "data" in told:
        told["data"].pop("protocol", None)
    return {key: value for key, value in told.items() if key not in Recipe.NO_CONFIGURATION}


def _other_samples(one: FinishedRun, other: FinishedRun) -> Iterator[str]:
    mine, theirs = _labels(one), _labels(other)
    if differing := sorted(set(mine) ^ set(theirs)):
        yield f"other samples in the same split: {differing[0]} is only in one of them"
    elif mine != theirs:
        yield "other labels of the same samples"


def _labels(run: FinishedRun) -> dict[str, int]:
    outcomes = [outcome for seeds in run.outcomes.values() for outcome in seeds.values()]
    return {key: int(label) for outcome in outcomes for key, label in zip(outcome.keys, outcome.labels, strict=True)}
