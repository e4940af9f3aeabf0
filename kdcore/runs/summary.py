"""The summary of a run: its result table, its notes, and whether distillation helped."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdcore.contracts.progress import Ramp
from kdcore.contracts.target import METRICS, OF_CLASSES, Metric, Target, read_target
from kdcore.recipe.data_models import SomeLabels
from kdcore.recipe.models import DataSpec, ParticipantSpec, Recipe
from kdcore.recipe.plan import BASELINE, DISTILLED
from kdcore.runs.gain import Difference, difference_by_subject, paired_difference
from kdcore.runs.outcome import JOINT_TEACHERS, Outcome
from kdcore.runs.records import Facts, FinishedRun
from kdcore.runs.target_metrics import AnyEvaluation
from kdcore.runs.tracked_metrics import metric_group

ByArm = Mapping[str, Sequence[dict[str, Any]]]
"""Arm → each seed's evaluations by name."""

Pairs = Mapping[str, tuple[list[Any], list[Any]]]
"""Student → each seed's evaluations with distillation, and without."""

Role = Literal[
    "teacher",
    "teacher ensemble",
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
        found = self.values(metric.name)
        if len(found) > 1:
            last = metric.spread(found)
        else:
            last = " to ".join(metric.text(end) for evaluation in self.evaluations for end in evaluation.interval)
        beside = [] if second.name == metric.name else [second.spread(self.values(second.name))]
        seeds = [metric.text(value) for value in found]
        results = [last, *beside, *seeds] if len(found) > 1 else [*seeds, last, *beside]
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
            found = [row for row in self.rows if row.role == role]
            if found:
                return next((row for row in found if row.participant == compared), found[0])
        return None

    def headings(self) -> list[str]:
        """Headings of the result table: for several seeds the mean first, which narrow screens show."""
        last = ["mean ± sd"] if len(self.seeds) > 1 else ["95 % interval"]
        second = self.rows[0].evaluations[0].secondary if self.rows else METRICS["macro_f1"]
        beside = [] if second.name == self.metric.name else [second.title]
        seeds = [f"seed {seed}" for seed in self.seeds]
        results = [*last, *beside, *seeds] if len(seeds) > 1 else [*seeds, *last, *beside]
        return ["participant", "role", "modality", *results, "parameters"]


def summarise(recipe: Recipe, run: FinishedRun, tracking: str = "") -> Summary:
    """Summarise a finished run.

    Args:
        recipe: The recipe of the run.
        run: The finished run.
        tracking: How to open the tracked run.
    """
    facts = run.facts
    outcomes = {arm: [seeds[seed] for seed in facts.seeds] for arm, seeds in run.outcomes.items()}
    by_arm = {arm: [outcome.evaluations() for outcome in seeds] for arm, seeds in outcomes.items()}
    pairs = _in_both(facts, by_arm, outcomes)
    return Summary(
        name=recipe.name,
        description=recipe.description,
        rule=facts.split_rule,
        selection=_selection(facts.selection),
        seeds=facts.seeds,
        classes=facts.classes,
        rows=[*_teachers(recipe, facts, outcomes, by_arm), *_students(recipe, facts, outcomes, by_arm)],
        differences={name: paired_difference(*pair) for name, pair in pairs.items()},
        by_subject=_by_subject(facts, pairs, outcomes),
        no_baseline=facts.no_baseline,
        versions=facts.versions,
        recipe=recipe.to_yaml(),
        command=shlex.join(facts.command),
        folder=run.folder,
        tracking=tracking,
        split=facts.split,
        setting=setting(recipe, facts),
        target=read_target(facts.target or None),
        notes=[
            *facts.notes,
            *facts.resumed,
            *_window_notes(outcomes),
            *_training_notes(outcomes),
            *_chance_notes(outcomes, by_arm),
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


def _training_notes(outcomes: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """Notes taken while training, with the arm; once for seeds with equal notes."""
    return list(
        dict.fromkeys(f"{arm}: {note}" for arm, seeds in outcomes.items() for outcome in seeds for note in outcome.notes)
    )


def _chance_notes(
    outcomes: Mapping[str, Sequence[Outcome]], by_arm: Mapping[str, Sequence[Mapping[str, AnyEvaluation]]]
) -> list[str]:
    """Notes on participants that were no better, over all seeds, than a constant prediction."""
    said = []
    for arm, seeds in outcomes.items():
        for name in [*seeds[0].teachers, *seeds[0].students]:
            found = [evaluations[name] for evaluations in by_arm[arm]]
            metric = found[0].primary
            value = float(np.mean([each.metrics()[metric.name] for each in found]))
            constant, how = float(np.mean([each.constant[0] for each in found])), found[0].constant[1]
            no_better = value <= constant if metric.higher_is_better else value >= constant
            if no_better and (arm == DISTILLED or name in seeds[0].students):
                called = f"{name} without distillation" if arm == BASELINE else name
                unit = f" {metric.unit}" if metric.unit else ""
                said.append(
                    f"{called} is no better than chance: {metric.text(value)}{unit} {metric.title}, and "
                    f"{metric.text(constant)}{unit} {how}; check its learning curve, learning rate and input"
                )
    return said


def setting(recipe: Recipe, facts: Facts) -> str:
    """A description of the run's setting."""
    counts = in_words([f"{count} {split}" for split, count in facts.counts.items() if count])
    seeds = f"{len(facts.seeds)} seed{'s' if len(facts.seeds) > 1 else ''}"
    schedule = recipe.schedule.name if recipe.schedule else "order of the graph"
    return (
        f"{'; '.join(_objectives(recipe))}; schedule: {schedule}. "
        f"Data: {recipe.data.dataset.name}, {_called(facts)}; {counts} samples. {_labels(recipe.data)}{seeds}."
    )


def _objectives(recipe: Recipe) -> list[str]:
    """A clause for each group of students with the same sources and terms."""
    groups: dict[str, list[str]] = {}
    for name, spec in recipe.student_specs.items():
        sources = recipe.teachers if spec.learns_from is None else spec.learns_from
        source = in_words([_described(each, recipe.specs[each]) for each in sources])
        fused = f", joined by {recipe.fusion.name}" if recipe.fusion and source else ""
        terms = [term for term in recipe.terms_of(name)[1] if term.active]
        shown = in_words([f"{term.id}{'' if term.weight == 1 else f' × {_weight(term.weight)}'}" for term in terms])
        origin = f", starting from {spec.starts_from}" if spec.starts_from else ""
        groups.setdefault(f"{f' from {source}' if source else ''}{fused} with {shown}{origin}", []).append(
            _described(name, spec)
        )
    return [f"{in_words(students)} learned{how}" for how, students in groups.items()]


def _called(facts: Facts) -> str:
    kind = read_target(facts.target or None).kind
    count = len(facts.classes)
    return f"{count} {kind if count != 1 or kind == 'classes' else kind.removesuffix('s')}"


def _described(name: str, spec: ParticipantSpec) -> str:
    if spec.follows is not None:
        return f"{name} (moving average of {spec.follows})"
    return (
        f"{name} (stored outputs)" if spec.encoder is None else f"{name} ({' + '.join(spec.modalities)}, {spec.encoder.name})"
    )


def _labels(data: DataSpec) -> str:
    noisy = f"{100 * data.label_noise:g} % of the training labels are wrong. " if data.label_noise else ""
    noisy += f"Samples of a batch were mixed ({data.mix.name}). " if data.mix else ""
    noisy += "Batches were balanced by class. " if data.sampler == "balanced" else ""
    if isinstance(data.labels, SomeLabels):
        share = f"{100 * data.labels.share:g} %" if data.labels.share else "Some"
        return f"{noisy}{share} of the training {'recordings' if data.window else 'samples'} are labelled. "
    return f"{noisy}Students were trained without labels. " if data.labels == "withheld" else noisy


def in_words(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def _weight(weight: float | Ramp) -> str:
    return f"{weight:g}" if isinstance(weight, float | int) else f"{weight.start:g} to {weight.stop:g}"


def _teachers(recipe: Recipe, facts: Facts, outcomes: Mapping[str, Sequence[Outcome]], by_arm: ByArm) -> list[Row]:
    first, evaluations = outcomes[DISTILLED][0], by_arm[DISTILLED]
    rows = [_row(recipe, facts, first, name, "teacher", [each[name] for each in evaluations]) for name in first.teachers]
    if len(rows) > 1:
        reads = ", ".join(dict.fromkeys(row.modality for row in rows))
        joint = _row(recipe, facts, first, JOINT_TEACHERS, "teacher ensemble", [each[JOINT_TEACHERS] for each in evaluations])
        rows.append(replace(joint, modality=reads))
    return rows


def _students(recipe: Recipe, facts: Facts, outcomes: Mapping[str, Sequence[Outcome]], by_arm: ByArm) -> list[Row]:
    """Students of each arm, those of the baseline first; a student may be in one arm alone."""
    joint: Mapping[str, Role] = {
        BASELINE: "baseline ensemble",
        DISTILLED: "distilled ensemble" if facts.distilled else "ensemble",
    }
    rows, together = [], []
    for arm in (each for each in joint if each in outcomes):
        first = outcomes[arm][0]
        for name in first.students:
            role: Role = "baseline" if arm == BASELINE else "distilled" if name in facts.distilled else "student"
            rows.append(_row(recipe, facts, first, name, role, [each[name] for each in by_arm[arm]]))
        if first.ensembles:
            found = {label: [each[label] for each in by_arm[arm]] for label in first.ensembles}
            together += [_row(recipe, facts, first, label, joint[arm], each) for label, each in found.items()]
    return rows + together


def _row(recipe: Recipe, facts: Facts, outcome: Outcome, name: str, role: Role, evaluations: Sequence[AnyEvaluation]) -> Row:
    """The row of a participant, or of an ensemble, in the arm of `outcome`."""
    reads = _reads(recipe, name) if name in recipe.participants else ""
    metrics = metric_group(facts.split, outcome, name, list(recipe.student_specs), facts.distilled)
    size, trained = outcome.parameters.get(name), outcome.trained.get(name)
    return Row(name, role, reads, evaluations, size, outcome.arm, trained, metrics)


def _reads(recipe: Recipe, name: str) -> str:
    return " + ".join(recipe.participants[name].modalities)


def _in_both(facts: Facts, by_arm: ByArm, outcomes: Mapping[str, Sequence[Outcome]]) -> Pairs:
    """Student that both arms have and that is distilled → its evaluations with distillation, and without."""
    alone = outcomes[BASELINE][0].students if BASELINE in outcomes else ()
    return {
        name: ([each[name] for each in by_arm[DISTILLED]], [each[name] for each in by_arm[BASELINE]])
        for name in outcomes[DISTILLED][0].students
        if name in alone and name in facts.distilled
    }


def _by_subject(facts: Facts, pairs: Pairs, outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Difference]:
    """The gain of each student with an interval over test subjects; for classes alone."""
    if facts.target:
        return {}
    subjects = outcomes[DISTILLED][0].subjects()
    found = {}
    for name, (one, other) in pairs.items():
        of_rows = subjects if one[0].rows is None else subjects[one[0].rows]
        if difference := difference_by_subject(one, other, of_rows):
            found[name] = difference
    return found


def _selection(rules: Mapping[str, str]) -> str:
    """A description of the epochs whose weights are evaluated."""
    said = {
        "last": "weights of the last epoch",
        "best": "weights of the epoch best on the validation split",
        "best by loss": "weights of the epoch with the smallest loss on the validation split",
    }

    def described(rule: str) -> str:
        epoch, _, averaged = rule.partition(", ")
        return said[epoch] + (", averaged over training (ema)" if averaged else "")

    if len(set(rules.values())) == 1:
        return described(next(iter(rules.values())))
    return "; ".join(f"{name}: {described(rule)}" for name, rule in rules.items())
