"""The summary of a run: its result table, its notes, and whether distillation helped."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdcore.contracts.target import METRICS, OF_CLASSES, Metric, Target, known, read_target
from kdcore.recipe.models import Recipe
from kdcore.recipe.plan import BASELINE, DISTILLED
from kdcore.runs.gain import Difference, difference_by_subject, paired_difference
from kdcore.runs.outcome import JOINT_TEACHERS, Outcome
from kdcore.runs.records import Facts, FinishedRun
from kdcore.runs.setting import selection, setting
from kdcore.runs.target_metrics import AnyEvaluation
from kdcore.runs.tracked_metrics import metric_group

Role = Literal[
    "teacher",
    "teacher ensemble",
    "copy",
    "student",
    "baseline",
    "baseline ensemble",
    "distilled",
    "distilled ensemble",
    "ensemble",
]


@dataclass(frozen=True)
class Row:
    """The results of one participant.

    Args:
        participant: Name of the participant.
        role: Its role in the run.
        modality: Its modalities, as text.
        evaluations: Its evaluations, one per seed.
        parameters: Number of its encoder's parameters; None for an ensemble.
        arm: ``distilled`` or ``baseline``.
        trained: Number of parameters that were trained.
        metrics: Prefix of its metrics in the tracker, such as ``distilled``.
    """

    participant: str
    role: Role
    modality: str
    evaluations: Sequence[AnyEvaluation]
    parameters: int | None = None
    arm: str = DISTILLED
    trained: int | None = None
    metrics: str = ""

    def values(self, metric: str) -> list[float]:
        """One number per seed."""
        return [evaluation.metrics()[metric] for evaluation in self.evaluations]

    def cells(self) -> list[str]:
        """Text of this row in the result table, under `Summary.headings`."""
        metric, second = self.evaluations[0].primary, self.evaluations[0].secondary
        values = self.values(metric.name)
        if len(values) > 1:
            last = metric.spread(values)
        else:
            last = " to ".join(metric.text(end) for evaluation in self.evaluations for end in evaluation.interval)
        beside = [] if second.name == metric.name else [second.spread(self.values(second.name))]
        seeds = [metric.text(value) for value in values]
        results = [last, *beside, *seeds] if len(values) > 1 else [*seeds, last, *beside]
        return [self.participant, self.role, self.modality, *results, self._size()]

    def _size(self) -> str:
        """Number of parameters, and of trained ones where those are fewer."""
        if self.parameters is None:
            return ""
        some = self.trained is not None and self.trained < self.parameters
        return f"{self.parameters:,}" + (f" ({self.trained:,} trained)" if some else "")


@dataclass(frozen=True)
class Summary:
    """The results of a run, for its table, its report and its tracker.

    Args:
        name: Name of the recipe.
        description: Description from the recipe.
        rule: The protocol's rule, in one sentence.
        selection: Which epochs' weights were evaluated, and how they were selected.
        seeds: Random seeds, in the order of every row's evaluations.
        classes: Class names.
        rows: Results of the participants, in display order.
        differences: Student → its gain: the result with distillation minus the baseline, for students trained in both arms.
        by_subject: Student → its gain with an interval over test subjects, if there are enough subjects.
        no_baseline: Why no baseline was trained; empty if one was.
        versions: Package → version.
        recipe: The recipe with all defaults filled in, as YAML.
        command: Command line that repeats the run.
        folder: Folder of the run.
        tracking: How to open the tracked run.
        split: Split that was evaluated.
        setting: Description of the run's setting.
        notes: Notes on dropped recordings, splits, pretrained weights and training.
        phases: Phase → seconds, as far as recorded.
        target: Kind of the labels.
    """

    name: str
    description: str
    rule: str
    selection: str
    seeds: Sequence[int]
    classes: Sequence[str]
    rows: Sequence[Row]
    differences: Mapping[str, Difference] = field(default_factory=dict)
    by_subject: Mapping[str, Difference] = field(default_factory=dict)
    no_baseline: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    command: str = ""
    folder: Path = Path()
    tracking: str = ""
    split: str = "test"
    setting: str = ""
    notes: Sequence[str] = ()
    phases: Mapping[str, float] = field(default_factory=dict)
    target: Target = OF_CLASSES

    @property
    def metric(self) -> Metric:
        """The primary metric."""
        return self.target.metric(self.target.primary)

    @property
    def difference(self) -> Difference | None:
        """The difference of the first student that was trained both ways; None if there is none."""
        return next(iter(self.differences.values()), None)

    @property
    def answer(self) -> str:
        """Did distillation help? In a sentence for each student that was trained both ways; empty if nothing was distilled."""
        if len(self.differences) == 1:
            return "".join(each.sentence for each in self.differences.values())
        if self.differences:
            return " ".join(f"{name}: {each.sentence}" for name, each in self.differences.items())
        if not any(row.role == DISTILLED for row in self.rows):
            return ""
        return f"The effect of distillation was not measured: {self.no_baseline or 'no baseline was trained'}."

    def row(self, *roles: Role) -> Row | None:
        """The first participant in the first of these roles that is taken; of students, the one in `difference` if possible."""
        compared = next(iter(self.differences), "")
        for role in roles:
            rows = [row for row in self.rows if row.role == role]
            if rows:
                return next((row for row in rows if row.participant == compared), rows[0])
        return None

    def headings(self) -> list[str]:
        """Headings of the result table: for several seeds the mean first, which narrow screens show."""
        last = ["mean ± sd"] if len(self.seeds) > 1 else ["95 % interval"]
        second = self.rows[0].evaluations[0].secondary if self.rows else METRICS["macro_f1"]
        beside = [] if second.name == self.metric.name else [second.title]
        seeds = [f"seed {seed}" for seed in self.seeds]
        results = [*last, *beside, *seeds] if len(seeds) > 1 else [*seeds, *last, *beside]
        return ["participant", "role", "modality", *results, "parameters"]


def summarise(recipe: Recipe, run: FinishedRun) -> Summary:
    """Summarise a finished run.

    Args:
        recipe: The recipe of the run.
        run: The finished run.
    """
    facts, results = run.facts, _Results.of(recipe, run)
    pairs = results.pairs()
    return Summary(
        name=recipe.name,
        description=recipe.description,
        rule=facts.split_rule,
        selection=selection(facts.selection),
        seeds=facts.seeds,
        classes=facts.classes,
        rows=[*results.teachers(), *results.students()],
        differences={name: paired_difference(*pair) for name, pair in pairs.items()},
        by_subject=results.by_subject(pairs),
        no_baseline=facts.no_baseline,
        versions=facts.versions,
        recipe=run.recipe.read_text() if run.recipe.is_file() else "",
        command=shlex.join(facts.command),
        folder=run.folder,
        tracking=facts.tracking,
        split=facts.split,
        setting=setting(recipe, facts),
        target=read_target(facts.target or None),
        notes=[
            *facts.notes,
            *facts.resumed,
            *_window_notes(results.outcomes),
            *_sample_notes(results, facts.split),
            *_training_notes(results.outcomes, facts.seeds),
            *_chance_notes(results.outcomes, results.evaluations),
        ],
        phases=facts.phases,
    )


def _window_notes(outcomes: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """That windows of one recording resemble one another, and what intervals make of it."""
    keys = outcomes[DISTILLED][0].keys
    recordings = len({key.partition(", window ")[0] for key in keys})
    if recordings == len(keys):
        return []
    return [
        f"the {len(keys)} samples are windows of {recordings} recordings: intervals of a single seed treat recordings, not "
        "windows, as independent; recordings of one subject are not fully independent either"
    ]


def _sample_notes(results: _Results, split: str) -> list[str]:
    """A note for each participant that was evaluated on only some of the samples, because the others lack its signals."""
    total = int(known(results.outcomes[DISTILLED][0].labels).sum())
    return [
        f"{row.participant} was evaluated on {row.evaluations[0].n} of the {total} {split} samples; the others lack its signals"
        for row in (*results.teachers(), *results.students())
        if row.arm == DISTILLED and row.evaluations[0].rows is not None
    ]


def _training_notes(outcomes: Mapping[str, Sequence[Outcome]], seeds: Sequence[int]) -> list[str]:
    """Notes taken while training, with the arm, and with the seeds if not all of them have the note."""
    found: dict[tuple[str, str], list[int]] = {}
    for arm, trained in outcomes.items():
        for seed, outcome in zip(seeds, trained, strict=True):
            for note in dict.fromkeys(outcome.notes):
                found.setdefault((arm, note), []).append(seed)
    lines = []
    for (arm, note), own in found.items():
        named = f", seed{'s' if len(own) > 1 else ''} {', '.join(map(str, own))}" if len(own) < len(seeds) else ""
        lines.append(f"{arm}{named}: {note}")
    return lines


def _chance_notes(
    outcomes: Mapping[str, Sequence[Outcome]], by_arm: Mapping[str, Sequence[Mapping[str, AnyEvaluation]]]
) -> list[str]:
    """Notes on participants that were no better, over all seeds, than a constant prediction."""
    notes = []
    for arm, seeds in outcomes.items():
        for name in (each for each in [*seeds[0].teachers, *seeds[0].students] if each in by_arm[arm][0]):
            results = [evaluations[name] for evaluations in by_arm[arm]]
            metric = results[0].primary
            value = float(np.mean([each.metrics()[metric.name] for each in results]))
            constant, how = float(np.mean([each.constant[0] for each in results])), results[0].constant[1]
            no_better = value <= constant if metric.higher_is_better else value >= constant
            if no_better and (arm == DISTILLED or name in seeds[0].students):
                called = f"{name} without distillation" if arm == BASELINE else name
                unit = f" {metric.unit}" if metric.unit else ""
                notes.append(
                    f"{called} is no better than chance: {metric.text(value)}{unit} {metric.title}, and "
                    f"{metric.text(constant)}{unit} {how}; check its learning curve, learning rate and input"
                )
    return notes


Pairs = Mapping[str, tuple[list[Any], list[Any]]]
"""Student → each seed's evaluations with distillation, and without."""


@dataclass(frozen=True)
class _Results:
    """The results of a run by arm.

    Args:
        recipe: The recipe of the run.
        facts: The facts of the run.
        outcomes: Arm → predictions of each seed.
        evaluations: Arm → evaluations of each seed, by participant or ensemble.
    """

    recipe: Recipe
    facts: Facts
    outcomes: Mapping[str, Sequence[Outcome]]
    evaluations: Mapping[str, Sequence[dict[str, Any]]]

    @classmethod
    def of(cls, recipe: Recipe, run: FinishedRun) -> _Results:
        """Evaluate the predictions of a run."""
        outcomes = {arm: [seeds[seed] for seed in run.facts.seeds] for arm, seeds in run.outcomes.items()}
        evaluations = {arm: [outcome.evaluations() for outcome in seeds] for arm, seeds in outcomes.items()}
        return cls(recipe, run.facts, outcomes, evaluations)

    def row(self, arm: str, name: str, role: Role, modality: str | None = None) -> Row:
        """The row of a participant or ensemble of an arm."""
        outcome, facts = self.outcomes[arm][0], self.facts
        if modality is None:
            modality = " + ".join(self.recipe.participants[name].modalities) if name in self.recipe.participants else ""
        return Row(
            participant=name,
            role=role,
            modality=modality,
            evaluations=[each[name] for each in self.evaluations[arm]],
            parameters=outcome.parameters.get(name),
            arm=arm,
            trained=outcome.trained.get(name),
            metrics=metric_group(facts.split, outcome, name, list(self.recipe.student_specs), facts.distilled),
        )

    def teachers(self) -> list[Row]:
        """Rows of the teachers that have labelled samples, and of their mean if some samples have the signals of several."""
        evaluated = self.evaluations[DISTILLED][0]
        outcome = self.outcomes[DISTILLED][0]
        names = [name for name in outcome.teachers if name in evaluated]
        rows = [self.row(DISTILLED, name, "copy" if name in outcome.copies else "teacher") for name in names]
        if JOINT_TEACHERS in evaluated:
            modalities = ", ".join(dict.fromkeys(row.modality for row in rows if row.role == "teacher"))
            rows.append(self.row(DISTILLED, JOINT_TEACHERS, "teacher ensemble", modalities))
        return rows

    def students(self) -> list[Row]:
        """Rows of the students of each arm, those of the baseline first, then of their ensembles.

        A student may be in one arm only.
        """
        distilled = self.facts.distilled
        joint: Mapping[str, Role] = {
            BASELINE: "baseline ensemble",
            DISTILLED: "distilled ensemble" if distilled else "ensemble",
        }
        rows, ensembles = [], []
        for arm in (each for each in joint if each in self.outcomes):
            outcome = self.outcomes[arm][0]
            for name in outcome.students:
                role: Role = "baseline" if arm == BASELINE else "distilled" if name in distilled else "student"
                rows.append(self.row(arm, name, role))
            ensembles += [self.row(arm, label, joint[arm]) for label in outcome.ensembles]
        return rows + ensembles

    def pairs(self) -> Pairs:
        """The distilled students that both arms have."""
        baselines = self.outcomes[BASELINE][0].students if BASELINE in self.outcomes else ()
        distilled, baseline = self.evaluations[DISTILLED], self.evaluations.get(BASELINE, ())
        return {
            name: ([each[name] for each in distilled], [each[name] for each in baseline])
            for name in self.outcomes[DISTILLED][0].students
            if name in baselines and name in self.facts.distilled
        }

    def by_subject(self, pairs: Pairs) -> dict[str, Difference]:
        """The gain of each student with an interval over test subjects; only for classes."""
        if self.facts.target:
            return {}
        subjects = self.outcomes[DISTILLED][0].subjects()
        gains = {}
        for name, (with_kd, without) in pairs.items():
            rows = with_kd[0].rows
            if gain := difference_by_subject(with_kd, without, subjects if rows is None else subjects[rows]):
                gains[name] = gain
        return gains
