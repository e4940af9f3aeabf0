"""Selection of finished runs and participants for a comparison."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import (
    METRICS,
    AnyEvaluation,
    DataError,
    Facts,
    FinishedRun,
    KdcoreError,
    Metric,
    Outcome,
    RecipeError,
    UnknownRunError,
    UsageError,
    ValueEvaluation,
    evaluate_target,
    finished_runs,
    known,
    load_recipe,
    one_line,
    plugin_manager,
    provenance_of,
    read_run,
)

TEACHERS, STUDENTS = "teachers (mean)", "students (average)"
"""Names of the averaged probabilities of several teachers, and of several students, in an `Outcome`."""


@dataclass(frozen=True)
class Observation:
    """The result of one participant for one seed and one split rule.

    Args:
        evaluation: Predictions and metrics, rows sorted by sample key.
        keys: Sample keys of the rows.
        seconds: Training time, in seconds.
        memory: Peak memory, in bytes; None if unknown.
        facts: The record of the run.
    """

    evaluation: AnyEvaluation
    keys: tuple[str, ...]
    seconds: float
    memory: int | None
    facts: Facts


@dataclass(frozen=True)
class Entry:
    """One row of a comparison: a participant's results over seeds and folds.

    Args:
        label: Name of the row.
        participant: Name of the participant.
        observations: (seed, split rule) → result.
        parameters: Number of trainable parameters; None for ensembles.
        runs: The runs that the results come from.
        who: The selector of the participant, as in ``RUN@WHO``.
        chosen: True if the user named the participant.
    """

    label: str
    participant: str
    observations: Mapping[tuple[int, str], Observation]
    parameters: int | None
    runs: tuple[FinishedRun, ...] = ()
    who: str = ""
    chosen: bool = False

    @property
    def training(self) -> tuple[object, ...]:
        """Key that is equal for entries trained together."""
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
    def split_rules(self) -> list[str]:
        """Distinct split rules, sorted."""
        return sorted({rule for _, rule in self.observations})

    @property
    def labels(self) -> dict[str, Any]:
        """Class index, or numbers of another target, by sample key, over all folds."""
        every = self.observations.values()
        return {key: label for each in every for key, label in zip(each.keys, each.evaluation.labels.tolist(), strict=True)}

    @property
    def example(self) -> AnyEvaluation:
        """Evaluation of the first observation, which defines metrics and units."""
        return next(iter(self.observations.values())).evaluation

    def metric(self, name: str) -> Metric:
        """Return the metric `name`, or the primary metric if it is empty.

        Raises:
            UsageError: If the runs do not have the metric.
        """
        example = self.example
        known = [*example.metrics()]
        if name and name not in known:
            raise UsageError(f"{self.label}: there is no metric {name!r} (available: {', '.join(known)})")
        if not name:
            return example.primary
        return example.target.metric(name) if isinstance(example, ValueEvaluation) else METRICS[name]

    def values(self, metric: str) -> list[float]:
        """Return the metric of each observation."""
        return [each.evaluation.metrics()[metric] for each in self.observations.values()]

    def only(self, keys: Iterable[tuple[int, str]]) -> Entry:
        """Return a copy with only these observations, in this order."""
        return replace(self, observations={key: self.observations[key] for key in keys})

    def of_seeds(self, seeds: Sequence[int]) -> Entry:
        """Return a copy with only the observations of these seeds."""
        return self.only(key for key in self.observations if key[0] in seeds)


def select(sources: Sequence[str], overrides: Sequence[str] = ()) -> list[Entry]:
    """Read the entries named on the command line.

    Args:
        sources: ``RUN`` or ``RECIPE``; ``A+B`` pools several; ``@WHO`` selects a participant (see `make_entry`).
        overrides: Overrides as ``key=value``, applied to all recipes in `sources`.

    Raises:
        KdcoreError: If a run does not exist, is not finished, or does not have the participant.
    """
    return [_selected(source, overrides) for source in sources]


def _selected(source: str, overrides: Sequence[str]) -> Entry:
    name, at, who = source.partition("@")
    if at and not who:
        raise UsageError(f"'{source}': expected 'baseline', 'teachers', 'students' or the name of a participant after '@'")
    if "" in name.split("+"):
        raise UsageError(f"'{source}': expected a run or a recipe on both sides of '+'")
    entry = make_entry([run for part in name.split("+") for run in _runs(part, overrides)], who)
    return replace(entry, chosen=bool(who))


def select_experiment(experiment: str, uri: str | None, filter_string: str) -> list[Entry]:
    """Read the finished runs of an MLflow experiment. Runs with the same configuration form one entry.

    Args:
        experiment: Name of the experiment.
        uri: MLflow tracking URI.
        filter_string: Filter in MLflow's search syntax; empty for all runs.
    """
    groups: dict[str, list[FinishedRun]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run in download_runs(Path(folder), uri, experiment=experiment, filter_string=filter_string):
            groups.setdefault(f"{run.facts.variant}|{run.facts.split}", []).append(run)
    return [make_entry(runs) for runs in groups.values()]


def download_runs(
    to: Path, uri: str | None, *, run_id: str = "", experiment: str = "", filter_string: str = ""
) -> Iterable[FinishedRun]:
    """Download a run by ID, or the runs of an experiment that match a filter, to the folder `to`.

    Raises:
        UsageError: If no plugin for tracking is in use.
        KdcoreError: If there are no such runs.
    """
    hook = plugin_manager().hook
    runs = hook.download_runs(to=to, uri=uri, run_id=run_id, experiment=experiment, matching=filter_string)
    if runs is None:
        raise UsageError("could not download runs: the plugin 'mlflow' is not in use")
    return runs


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
    """Find the finished runs of a recipe with any seeds.

    Runs with other recordings, files, versions or code are left out, with a line on stderr. If the recordings are not available
    on this machine, a line on stderr states that they were not checked.

    Raises:
        KdcoreError: If there are none.
    """
    recipe = load_recipe(source, overrides)
    command = " ".join(["kdcore run", source, *overrides])
    finished = list(finished_runs(recipe.variant))
    if not finished:
        hint = "" if overrides else "; if you ran it with overrides (key=value), give them here too"
        raise KdcoreError(f"the recipe '{source}' has no finished run: {command}{hint}")
    try:
        now = provenance_of(recipe)
    except (DataError, RecipeError) as error:
        print(f"warning: could not check if the recordings have changed since: {one_line(error)}", file=sys.stderr)
        return finished
    changes = {each.folder.name: now.changes_since(each.facts) for each in finished}
    lines = [f"{name} is left out: {'; '.join(reasons)}" for name, reasons in changes.items() if reasons]
    kept = [each for each in finished if not changes[each.folder.name]]
    if not kept:
        raise KdcoreError("\n  ".join([f"the recipe '{source}' has no finished run that is up to date: {command}", *lines]))
    for line in lines:
        print(line, file=sys.stderr)
    return kept


def make_entry(runs: Sequence[FinishedRun], who: str = "", label: str = "") -> Entry:
    """Collect the results of a participant from `runs`. Of runs with the same seed and split rule, the latest is used.

    Args:
        runs: Runs of one configuration, which `compare` checks.
        who: Name of a participant; ``students`` or ``teachers`` for their averaged probabilities; empty for the first student.
            ``baseline`` or ``baseline/NAME`` selects the students without distillation.
        label: Name of the row. Default: the name of the recipe, with the participant if there are several students.

    Raises:
        UsageError: If the participant does not exist.
    """
    arm = _arm(who)
    wanted = who.removeprefix("baseline").removeprefix("/") if arm == "baseline" else who
    observations: dict[tuple[int, str], Observation] = {}
    name, parameters = "", None
    for run in runs:
        if arm not in run.outcomes:
            reason = run.facts.no_baseline or "the student was not trained without distillation"
            raise KdcoreError(f"{run.folder.name}: has no baseline: {reason}")
        for seed, outcome in run.outcomes[arm].items():
            name = _participant(outcome, wanted, run)
            observations[seed, run.facts.split_rule] = _observation(outcome, name, run.facts)
            parameters = outcome.parameters.get(name)
    if not wanted and len(students_of(runs)) > 1:
        who = f"baseline/{name}" if who else name
    label = label or runs[-1].facts.name + (f"@{who}" if who else "")
    return Entry(label, name, dict(sorted(observations.items())), parameters, tuple(runs), who)


def with_baselines(entry: Entry) -> list[tuple[Entry, Entry]]:
    """Return pairs of a baseline and the same participant with distillation.

    An entry without a participant gives one pair per student, and one for the average of several students.
    """
    if _arm(entry.who) == "baseline":
        raise UsageError(f"nothing to compare {entry.label} with: name another run, recipe or participant")
    students = students_of(entry.runs)
    if entry.participant in students and len(students) > 1 and not entry.chosen:
        names = [*students, "students"]
        return [(make_entry(entry.runs, f"baseline/{each}"), make_entry(entry.runs, each)) for each in names]
    return [(make_entry(entry.runs, _baseline_of(entry, students)), entry)]


def _baseline_of(entry: Entry, students: Sequence[str]) -> str:
    """Return the selector of an entry's baseline: the same student or ensemble; for a teacher, the first student."""
    if len(students) < 2:
        return "baseline"
    same = entry.participant in students or entry.who.startswith("students")
    return f"baseline/{entry.who if same else students[0]}"


def students_of(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the names of the students of `runs`."""
    return list(next(iter(runs[-1].outcomes["distilled"].values())).students)


def _arm(who: str) -> str:
    return "baseline" if who == "baseline" or who.startswith("baseline/") else "distilled"


def with_distinct_labels(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with unique labels: the run ID or a number is added to repeated labels."""
    counts = Counter(each.label for each in entries)
    labels = [each.label + (f" [{each.runs[-1].folder.name}]" if counts[each.label] > 1 else "") for each in entries]
    counts = Counter(labels)
    numbered = [
        label + (f" ({labels[: index + 1].count(label)})" if counts[label] > 1 else "") for index, label in enumerate(labels)
    ]
    return [replace(each, label=label) for each, label in zip(entries, numbered, strict=True)]


def _participant(outcome: Outcome, who: str, run: FinishedRun) -> str:
    evaluations = outcome.evaluations()
    for plural, ensemble, members in (("teachers", TEACHERS, outcome.joint_teachers), ("students", STUDENTS, outcome.members)):
        if who == plural:
            who = ensemble if ensemble in evaluations else "".join(members[:1])
    name = who or outcome.students[0]
    if name not in evaluations:
        raise UsageError(f"{run.folder.name}: has no participant '{name}' (available: {', '.join(evaluations)})")
    return name


def _observation(outcome: Outcome, name: str, facts: Facts) -> Observation:
    evaluation = outcome.evaluations()[name]
    keys = np.array(outcome.keys, dtype=object)[known(outcome.labels)]
    keys = keys if evaluation.rows is None else keys[evaluation.rows]
    order = np.argsort(keys, kind="stable")
    in_order = evaluate_target(outcome.target, outcome.names, evaluation.outputs[order], evaluation.labels[order])
    return Observation(in_order, tuple(keys[order].tolist()), outcome.seconds, outcome.memory, facts)
