"""What is compared: participants of runs, each with one result for every seed and split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdcore import (
    Evaluation,
    Facts,
    FinishedRun,
    KdcoreError,
    Outcome,
    RecipeError,
    UnknownRunError,
    UsageError,
    evaluate,
    finished_runs,
    load_recipe,
    read_run,
)

JOINT = "teachers (mean)"


@dataclass(frozen=True)
class Observation:
    """One seed's result under one split.

    Args:
        evaluation: Rows in the order of their keys.
        keys: Which samples they are of.
        seconds: Training took.
        memory: Most bytes in use; None if unknown.
        facts: Of the run.
    """

    evaluation: Evaluation
    keys: tuple[str, ...]
    seconds: float
    memory: int | None
    facts: Facts


@dataclass(frozen=True)
class Contender:
    """One row of a comparison.

    Args:
        label: What it is called.
        participant: Whose results.
        observations: (seed, split rule) → result.
        parameters: That the participant learned; None where that makes no sense.
        runs: That they come from.
        who: As `contender` was asked for.
    """

    label: str
    participant: str
    observations: Mapping[tuple[int, str], Observation]
    parameters: int | None
    runs: tuple[FinishedRun, ...] = ()
    who: str = ""

    @property
    def training(self) -> tuple[object, ...]:
        """Equal for contenders that were trained together."""
        return (*(run.folder for run in self.runs), _arm(self.who))

    @property
    def facts(self) -> list[Facts]:
        """Of every observation."""
        return [each.facts for each in self.observations.values()]

    @property
    def seeds(self) -> list[int]:
        """In order, each once."""
        return sorted({seed for seed, _ in self.observations})

    @property
    def splits(self) -> list[str]:
        """Rules, each once."""
        return sorted({split for _, split in self.observations})

    def values(self, metric: str) -> list[float]:
        """One number for every observation."""
        return [each.evaluation.metrics()[metric] for each in self.observations.values()]

    def only(self, keys: Iterable[tuple[int, str]]) -> Contender:
        """Only these observations, in this order."""
        return replace(self, observations={key: self.observations[key] for key in keys})


def contenders(sources: Sequence[str], overrides: Sequence[str] = ()) -> list[Contender]:
    """What the command line names: ``RUN`` or ``RECIPE``, several joined by ``+``, each with ``@WHO`` if it is not the student.

    Recipes are changed by `overrides`, as they were when they were run.

    Raises:
        KdcoreError: If one cannot be found, has not ended, or lacks the participant.
    """
    return [_named(source, overrides) for source in sources]


def _named(source: str, overrides: Sequence[str]) -> Contender:
    name, at, who = source.partition("@")
    if at and not who:
        raise UsageError(f"{source}: after @ comes baseline, teachers, or a participant's name")
    if "" in name.split("+"):
        raise UsageError(f"{source}: a run or recipe is missing")
    return contender(runs_named(name, overrides), who)


def runs_named(name: str, overrides: Sequence[str] = ()) -> list[FinishedRun]:
    """Finished runs of a run's id, a folder, a recipe, or several joined by ``+``.

    Raises:
        KdcoreError: If there are none.
    """
    return [run for part in name.split("+") for run in _runs(part, overrides)]


def _runs(name: str, overrides: Sequence[str]) -> list[FinishedRun]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return runs_of_recipe(name, overrides)
    try:
        return [read_run(name)]
    except UnknownRunError as missing:
        try:
            return runs_of_recipe(name, overrides)
        except RecipeError as error:
            if any(each.path for each in error.problems):  # it is one, but not with these overrides
                raise
            raise KdcoreError(f"{missing}; as a recipe: {error}") from error


def runs_of_recipe(source: str, overrides: Sequence[str] = ()) -> list[FinishedRun]:
    """The finished runs of a recipe, of whatever seeds.

    Raises:
        KdcoreError: If there are none.
    """
    found = list(finished_runs(load_recipe(source, overrides).variant))
    if not found:
        command = " ".join(["kdcore run", source, *overrides])
        elsewhere = "" if overrides else "; where it was run with key=value, say so here as well"
        raise KdcoreError(f"the recipe {source} has no finished run: {command}{elsewhere}")
    return found


def contender(runs: Sequence[FinishedRun], who: str = "", label: str = "") -> Contender:
    """The results of one participant in all of `runs`; of runs with the same seed and split, the last counts.

    Args:
        runs: Of one configuration; whether they are, `compare` looks.
        who: The first student with distillation if empty; ``baseline`` for it without; ``teachers`` for their mean; or a name.
        label: The recipe's name by default.

    Raises:
        UsageError: If there is no such participant.
    """
    arm = _arm(who)
    observations: dict[tuple[int, str], Observation] = {}
    name, parameters = "", None
    for run in runs:
        if arm not in run.outcomes:
            raise KdcoreError(f"{run.folder.name}: its student was not also trained without distillation")
        for seed, outcome in run.outcomes[arm].items():
            name = _participant(outcome, "" if who == "baseline" else who, run)
            observations[seed, run.facts.split] = _observed(outcome, name, run.facts)
            parameters = outcome.parameters.get(name)
    label = label or runs[-1].facts.name + (f"@{who}" if who else "")
    return Contender(label, name, dict(sorted(observations.items())), parameters, tuple(runs), who)


def with_baseline(one: Contender) -> list[Contender]:
    """A contender after its own student without distillation, if it is not that itself."""
    return [one] if one.who == "baseline" else [contender(one.runs, "baseline"), one]


def _arm(who: str) -> str:
    return "baseline" if who == "baseline" else "distilled"


def distinct(found: Sequence[Contender]) -> list[Contender]:
    """The same, with labels that tell them apart."""
    labels = [each.label for each in found]
    named = [
        replace(each, label=f"{each.label} [{each.runs[-1].folder.name}]") if labels.count(each.label) > 1 else each
        for each in found
    ]
    labels = [each.label for each in named]
    return [
        replace(each, label=f"{each.label} ({labels[: index + 1].count(each.label)})") if labels.count(each.label) > 1 else each
        for index, each in enumerate(named)
    ]


def _participant(outcome: Outcome, who: str, run: FinishedRun) -> str:
    known = outcome.evaluations()
    if who == "teachers":
        who = JOINT if JOINT in known else "".join(outcome.teachers[:1])
    name = who or outcome.students[0]
    if name not in known:
        raise UsageError(f"{run.folder.name} has no participant {name!r} (there are: {', '.join(known)})")
    return name


def _observed(outcome: Outcome, name: str, facts: Facts) -> Observation:
    found = outcome.evaluations()[name]
    keys = np.array(outcome.keys, dtype=object)[outcome.labels >= 0]
    order = np.argsort(keys, kind="stable")
    sorted_rows = evaluate(found.probabilities[order], found.labels[order])
    return Observation(sorted_rows, tuple(keys[order].tolist()), outcome.seconds, outcome.memory, facts)
