"""From the outcomes of all seeds to what a person reads."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kdcore.contracts.progress import Ramp
from kdcore.data.table import Table
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.config_models import LabelledShare
from kdcore.recipe.graph import StagePlan
from kdcore.recipe.models import DataSpec, ParticipantSpec, Recipe
from kdcore.results.examples import Example
from kdcore.runs.metrics import Difference, Evaluation, paired_difference
from kdcore.runs.outcome import ENSEMBLES, JOINT_TEACHERS, Outcome
from kdcore.runs.provenance import code_hashes, named_files
from kdcore.runs.records import Facts, FinishedRun, installed_versions
from kdcore.runs.summary import Role, Row, Summary
from kdcore.training.assembly import BASELINE, DISTILLED

ARM_ROLE: Mapping[str, Role] = {DISTILLED: "student with distillation", BASELINE: "student without distillation"}


def facts_of(
    recipe: Recipe,
    table: Table,
    stages: Sequence[StagePlan],
    arms: Sequence[str],
    versions: Mapping[str, str],
    part: str,
    command: Sequence[str],
) -> Facts:
    """What is to be known of a run later.

    Args:
        recipe: What is run.
        table: The data it runs on.
        stages: Of the distilled arm.
        arms: That are trained.
        versions: Of the plugins used.
        part: Part of the split that is evaluated.
        command: Repeats the run.
    """
    return Facts(
        name=recipe.name,
        recipe_hash=recipe.hash,
        variant=recipe.variant,
        part=part,
        split=table.split.rule,
        counts={name: len(rows) for name, rows in table.parts.items()},
        fingerprint=table.fingerprint,
        classes=list(table.classes),
        selection={name: training.select for stage in stages for name, training in stage.training.items()},
        modalities={name: list(spec.modalities) for name, spec in recipe.participants.items()},
        seeds=recipe.seeds,
        arms=list(arms),
        versions=installed_versions(versions),
        code=code_hashes(list(versions), plugin_manager()),
        files=named_files(recipe),
        machine=_machine(table.labels.device),
        command=list(command),
    )


def _machine(device: torch.device) -> str:
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{platform.system()} {platform.machine()}, {kind}, {torch.get_num_threads()} threads"


def summarise(recipe: Recipe, run: FinishedRun, tracking: str = "", examples: Sequence[Example] = ()) -> Summary:
    """The summary of a run.

    Args:
        recipe: What was run.
        run: What came of it.
        tracking: How to look at what was tracked.
        examples: Samples to show.
    """
    facts = run.facts
    outcomes = {arm: [seeds[seed] for seed in facts.seeds] for arm, seeds in run.outcomes.items()}
    by_arm = {arm: [outcome.evaluations() for outcome in seeds] for arm, seeds in outcomes.items()}
    return Summary(
        name=recipe.name,
        description=recipe.description,
        rule=facts.split,
        selection=_selection(facts.selection),
        seeds=facts.seeds,
        classes=facts.classes,
        rows=[*_teachers(recipe, outcomes, by_arm), *_students(recipe, outcomes, by_arm)],
        difference=_difference(recipe, by_arm),
        curves=curves(run.folder / "tracking" / "journal.jsonl", facts.seeds),
        versions=facts.versions,
        recipe=recipe.to_yaml(),
        command=shlex.join(facts.command),
        folder=run.folder,
        tracking=tracking,
        part=facts.part,
        setting=setting(recipe, facts),
        examples=examples,
    )


def setting(recipe: Recipe, facts: Facts) -> str:
    """What was run, in words."""
    learns = [_described(name, spec) for name, spec in recipe.student_specs.items()]
    teach = [_described(name, spec) for name, spec in recipe.teachers.items()]
    source = f" from {in_words(teach)}" if teach else ""
    fused = f", joined by {recipe.fusion.name}" if recipe.fusion else ""
    terms = [f"{term.id}{'' if term.weight == 1 else f' × {_weight(term.weight)}'}" for term in recipe.losses if term.active]
    counts = ", ".join(f"{count} to {'train' if part == 'train' else part}" for part, count in facts.counts.items() if count)
    seeds = f"{len(facts.seeds)} seed{'s' if len(facts.seeds) > 1 else ''}"
    schedule = recipe.schedule.name if recipe.schedule else "by the graph"
    return (
        f"{in_words(learns)} learned{source}{fused} by {in_words(terms)}; schedule {schedule}. "
        f"Data: {recipe.data.dataset.name}, {len(facts.classes)} classes, {counts}. {_labels(recipe.data)}{seeds}."
    )


def _described(name: str, spec: ParticipantSpec) -> str:
    if spec.follows is not None:
        return f"{name} (moving average of {spec.follows})"
    return (
        f"{name} (stored outputs)" if spec.encoder is None else f"{name} ({' + '.join(spec.modalities)}, {spec.encoder.name})"
    )


def _labels(data: DataSpec) -> str:
    noisy = f"Of the labels learnt from, {100 * data.label_noise:g} % were made wrong. " if data.label_noise else ""
    if isinstance(data.labels, LabelledShare):
        return f"{noisy}{100 * data.labels.share:g} % of the training samples were labelled. "
    return f"{noisy}Students were told no labels. " if data.labels == "withheld" else noisy


def in_words(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(part for part in (", ".join(items[:-1]), items[-1]) if part)


def _weight(weight: float | Ramp) -> str:
    return f"{weight:g}" if isinstance(weight, float | int) else f"{weight.start:g} to {weight.stop:g}"


def metric_prefix(part: str) -> str:
    """What metrics of the final evaluation begin with; ``validation/`` alone is that of every epoch."""
    return "test" if part == "test" else f"final/{part}"


def means(summary: Summary) -> dict[str, float]:
    """Mean and standard deviation over seeds of every metric of the evaluation, by participant."""
    found: dict[str, float] = {}
    prefix = metric_prefix(summary.part)
    for row in summary.rows:
        name = f"{BASELINE}/{row.participant}" if row.role == ARM_ROLE[BASELINE] else row.participant
        for metric in row.evaluations[0].metrics():
            values = row.values(metric)
            mean = sum(values) / len(values)
            found[f"{prefix}/{name}/{metric}"] = mean
            if len(values) > 1:
                found[f"{prefix}/{name}/{metric}_std"] = (
                    sum((value - mean) ** 2 for value in values) / (len(values) - 1)
                ) ** 0.5
    if summary.difference:
        found |= {
            "gain/mean": summary.difference.mean,
            "gain/low": summary.difference.low,
            "gain/high": summary.difference.high,
            "gain/conclusive": float(summary.difference.conclusive),
        }
    return found


def curves(journal: Path, seeds: Sequence[int]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Learning curves by epoch: of every learner's terms and validation accuracy, from the run's journal.

    Returns:
        ``student: soft-target`` → ``seed 0`` or ``seed 0, without distillation`` → (epoch, value) pairs.
    """
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    runs = {f"seed-{seed}": f"seed {seed}" for seed in seeds}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        record = json.loads(line)
        if record.get("kind") == "metrics" and record.get("run") in runs:
            for name, value in record["values"].items():
                if title := _curve_title(name.removeprefix(f"{BASELINE}/")):
                    without = ", without distillation" if name.startswith(f"{BASELINE}/") else ""
                    lines = found.setdefault(title, {})
                    lines.setdefault(f"{runs[record['run']]}{without}", []).append((record["step"], value))
    return found


def _curve_title(metric: str) -> str:
    """``train/student/soft-target`` as ``student: soft-target``; empty if it is no curve by epoch."""
    kind, _, rest = metric.partition("/")
    learner, _, what = rest.rpartition("/")
    if kind == "validation":
        return f"{learner}: validation {what}"
    return f"{learner}: {what}" if kind == "train" and not what.endswith(" _step_") else ""


def _teachers(
    recipe: Recipe, outcomes: Mapping[str, Sequence[Outcome]], by_arm: Mapping[str, Sequence[dict[str, Evaluation]]]
) -> list[Row]:
    first = outcomes[DISTILLED][0]
    rows = [
        Row(name, "teacher", _reads(recipe, name), [each[name] for each in by_arm[DISTILLED]], first.parameters.get(name))
        for name in first.teachers
    ]
    if len(rows) > 1:
        reads = ", ".join(dict.fromkeys(row.modality for row in rows))
        rows.append(Row(JOINT_TEACHERS, "teachers together", reads, [each[JOINT_TEACHERS] for each in by_arm[DISTILLED]]))
    return rows


def _students(
    recipe: Recipe, outcomes: Mapping[str, Sequence[Outcome]], by_arm: Mapping[str, Sequence[dict[str, Evaluation]]]
) -> list[Row]:
    rows = []
    for arm in (BASELINE, DISTILLED):
        for name in outcomes[arm][0].students if arm in outcomes else ():
            parameters = outcomes[arm][0].parameters[name]
            rows.append(Row(name, ARM_ROLE[arm], _reads(recipe, name), [each[name] for each in by_arm[arm]], parameters))
    if len(outcomes[DISTILLED][0].students) > 1:
        rows += [Row(label, "students together", "", [each[label] for each in by_arm[DISTILLED]]) for label in ENSEMBLES]
    return rows


def _reads(recipe: Recipe, name: str) -> str:
    return " + ".join(recipe.participants[name].modalities)


def _difference(recipe: Recipe, by_arm: Mapping[str, Sequence[dict[str, Evaluation]]]) -> Difference | None:
    """Of the first student, with against without."""
    if BASELINE not in by_arm:
        return None
    student = next(iter(recipe.student_specs))
    return paired_difference([each[student] for each in by_arm[DISTILLED]], [each[student] for each in by_arm[BASELINE]])


def _selection(rules: Mapping[str, str]) -> str:
    """Which epoch's weights are evaluated, in words."""
    said = {"last": "weights of the last epoch", "best": "weights of the epoch best on the validation part"}
    if len(set(rules.values())) == 1:
        return said[next(iter(rules.values()))]
    return "; ".join(f"{name}: {said[rule]}" for name, rule in rules.items())


def flattened(values: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists as ``a.b.0.c`` → value; terms go by their ids, ``losses.acs.weight``, not by their places."""
    if isinstance(values, Mapping) and values:
        return {
            key: value
            for name, each in values.items()
            for key, value in flattened(each, f"{path}.{name}" if path else str(name)).items()
        }
    if isinstance(values, list) and values and any(isinstance(each, dict | list) for each in values):
        ids = [each.get("id") if isinstance(each, dict) else None for each in values]
        steps = ids if all(ids) else range(len(values))
        return {
            key: value
            for step, each in zip(steps, values, strict=True)
            for key, value in flattened(each, f"{path}.{step}").items()
        }
    return {path: values}
