"""Select the finished runs and participants that a comparison is made of."""

from __future__ import annotations

import tempfile
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

MEAN_OF_TEACHERS = "teachers (mean)"
"""The name under which an `Outcome` keeps the averaged probabilities of several teachers."""


@dataclass(frozen=True)
class Observation:
    """The result of one participant for one seed and one split.

    Args:
        evaluation: Predictions and metrics, rows sorted by sample key.
        keys: Sample keys of the rows.
        seconds: Training time, in seconds.
        memory: Peak memory, in bytes; None if unknown.
        facts: The record of the run.
    """

    evaluation: Evaluation
    keys: tuple[str, ...]
    seconds: float
    memory: int | None
    facts: Facts


@dataclass(frozen=True)
class Entry:
    """One row of a comparison: a participant's results over seeds and splits.

    Args:
        label: Name of the row.
        participant: Name of the participant.
        observations: (seed, split rule) → result.
        parameters: Number of trainable parameters; None for ensembles.
        runs: The runs that the results come from.
        who: The selector that the participant was chosen by, as in ``RUN@WHO``.
    """

    label: str
    participant: str
    observations: Mapping[tuple[int, str], Observation]
    parameters: int | None
    runs: tuple[FinishedRun, ...] = ()
    who: str = ""

    @property
    def training(self) -> tuple[object, ...]:
        """A key that is equal for entries that were trained together."""
        return (*(run.folder for run in self.runs), _arm(self.who))

    @property
    def facts(self) -> list[Facts]:
        """The run record of each observation."""
        return [each.facts for each in self.observations.values()]

    @property
    def seeds(self) -> list[int]:
        """Distinct seeds, in ascending order."""
        return sorted({seed for seed, _ in self.observations})

    @property
    def splits(self) -> list[str]:
        """Distinct split rules, sorted."""
        return sorted({split for _, split in self.observations})

    def values(self, metric: str) -> list[float]:
        """The metric of each observation."""
        return [each.evaluation.metrics()[metric] for each in self.observations.values()]

    def only(self, keys: Iterable[tuple[int, str]]) -> Entry:
        """A copy with these observations alone, in this order."""
        return replace(self, observations={key: self.observations[key] for key in keys})


def select(sources: Sequence[str], overrides: Sequence[str] = ()) -> list[Entry]:
    """Read the entries that the command line names.

    Args:
        sources: ``RUN`` or ``RECIPE`` each; ``A+B`` pools several; ``@WHO`` selects a participant other than the student.
        overrides: ``key=value`` each, applied to every recipe in `sources`.

    Raises:
        KdcoreError: If a run does not exist, is not finished, or has no such participant.
    """
    return [_selected(source, overrides) for source in sources]


def _selected(source: str, overrides: Sequence[str]) -> Entry:
    name, at, who = source.partition("@")
    if at and not who:
        raise UsageError(f"'{source}': expected 'baseline', 'teachers' or the name of a participant after '@'")
    if "" in name.split("+"):
        raise UsageError(f"'{source}': expected a run or a recipe on both sides of '+'")
    return make_entry([run for part in name.split("+") for run in _runs(part, overrides)], who)


def select_experiment(experiment: str, uri: str | None, filter_string: str) -> list[Entry]:
    """Read the finished runs of an MLflow experiment; runs of one configuration make one entry.

    Args:
        experiment: Name of the experiment.
        uri: Tracking URI of MLflow.
        filter_string: Filter in MLflow's search syntax; empty for all runs.
    """
    from kdcore_compare.mlflow_runs import experiment_runs

    groups: dict[str, list[FinishedRun]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run in experiment_runs(experiment, Path(folder), uri, filter_string):
            groups.setdefault(f"{run.facts.variant}|{run.facts.part}", []).append(run)
    return [make_entry(runs) for runs in groups.values()]


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
            if any(each.path for each in error.problems):  # the recipe exists; an override is wrong
                raise
            raise KdcoreError(f"{missing}; as a recipe: {error}") from error


def runs_of_recipe(source: str, overrides: Sequence[str] = ()) -> list[FinishedRun]:
    """Find the finished runs of a recipe, whatever their seeds.

    Raises:
        KdcoreError: If there are none.
    """
    found = list(finished_runs(load_recipe(source, overrides).variant))
    if not found:
        command = " ".join(["kdcore run", source, *overrides])
        hint = "" if overrides else "; if you ran it with overrides (key=value), give them here too"
        raise KdcoreError(f"the recipe '{source}' has no finished run: {command}{hint}")
    return found


def make_entry(runs: Sequence[FinishedRun], who: str = "", label: str = "") -> Entry:
    """Collect one participant's results from `runs`. Of two runs with the same seed and split, the later counts.

    Args:
        runs: Runs of one configuration; `compare` checks that they are.
        who: Empty for the first distilled student, ``baseline`` for the same student without distillation, ``teachers``
            for the average of the teachers, or the name of a participant.
        label: Name of the row; by default the name of the recipe.

    Raises:
        UsageError: If there is no such participant.
    """
    arm = _arm(who)
    observations: dict[tuple[int, str], Observation] = {}
    name, parameters = "", None
    for run in runs:
        if arm not in run.outcomes:
            raise KdcoreError(f"{run.folder.name}: has no baseline (the student was not trained without distillation)")
        for seed, outcome in run.outcomes[arm].items():
            name = _participant(outcome, "" if who == "baseline" else who, run)
            observations[seed, run.facts.split] = _observation(outcome, name, run.facts)
            parameters = outcome.parameters.get(name)
    label = label or runs[-1].facts.name + (f"@{who}" if who else "")
    return Entry(label, name, dict(sorted(observations.items())), parameters, tuple(runs), who)


def with_baseline(entry: Entry) -> list[Entry]:
    """An entry preceded by its own baseline, unless it is one."""
    return [entry] if entry.who == "baseline" else [make_entry(entry.runs, "baseline"), entry]


def _arm(who: str) -> str:
    return "baseline" if who == "baseline" else "distilled"


def with_distinct_labels(entries: Sequence[Entry]) -> list[Entry]:
    """The same entries; where labels repeat, the run's id or a number is added."""
    labels = [each.label for each in entries]
    named = [
        replace(each, label=f"{each.label} [{each.runs[-1].folder.name}]") if labels.count(each.label) > 1 else each
        for each in entries
    ]
    labels = [each.label for each in named]
    return [
        replace(each, label=f"{each.label} ({labels[: index + 1].count(each.label)})") if labels.count(each.label) > 1 else each
        for index, each in enumerate(named)
    ]


def _participant(outcome: Outcome, who: str, run: FinishedRun) -> str:
    known = outcome.evaluations()
    if who == "teachers":
        who = MEAN_OF_TEACHERS if MEAN_OF_TEACHERS in known else "".join(outcome.teachers[:1])
    name = who or outcome.students[0]
    if name not in known:
        raise UsageError(f"{run.folder.name}: has no participant '{name}' (available: {', '.join(known)})")
    return name


def _observation(outcome: Outcome, name: str, facts: Facts) -> Observation:
    found = outcome.evaluations()[name]
    keys = np.array(outcome.keys, dtype=object)[outcome.labels >= 0]
    order = np.argsort(keys, kind="stable")
    sorted_rows = evaluate(found.probabilities[order], found.labels[order])
    return Observation(sorted_rows, tuple(keys[order].tolist()), outcome.seconds, outcome.memory, facts)
