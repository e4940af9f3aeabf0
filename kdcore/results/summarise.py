"""From the outcomes of all seeds to what a person reads."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdcore import __version__
from kdcore.contracts.schedule import Stage
from kdcore.recipe.schema import Recipe
from kdcore.results.evaluate import Difference, Evaluation, paired_difference
from kdcore.results.outcome import ENSEMBLES, JOINT_TEACHERS, Outcome
from kdcore.results.pictures import confusion_picture, curves_picture
from kdcore.results.report import Role, Row, Summary
from kdcore.training.assembly import BASELINE, DISTILLED
from kdcore.training.data import Table

ARM_ROLE: Mapping[str, Role] = {DISTILLED: "student with distillation", BASELINE: "student without distillation"}


def summarise(
    recipe: Recipe,
    table: Table,
    stages: Sequence[Stage],
    outcomes: Mapping[str, Sequence[Outcome]],
    versions: Mapping[str, str],
    command: Sequence[str],
    folder: Path,
    tracking: str,
) -> Summary:
    """The summary of a run.

    Args:
        recipe: What was run.
        table: The data it ran on.
        stages: Of the distilled arm.
        outcomes: Arm → one outcome per seed.
        versions: Of the plugins used.
        command: That repeats it.
        folder: Of the run.
        tracking: How to look at what was tracked.
    """
    by_arm = {arm: [outcome.evaluations() for outcome in seeds] for arm, seeds in outcomes.items()}
    return Summary(
        name=recipe.name,
        description=recipe.description,
        rule=table.split.rule,
        selection=_selection(stages),
        seeds=recipe.seeds,
        classes=table.classes,
        rows=[*_teachers(recipe, outcomes, by_arm), *_students(recipe, outcomes, by_arm)],
        difference=_difference(recipe, by_arm),
        curves=curves(folder / "tracking" / "journal.jsonl", recipe.seeds[0]),
        versions={"kdcore": __version__, **{f"plugin {name}": version for name, version in versions.items()}},
        recipe=recipe.to_yaml(),
        command=shlex.join(command),
        folder=folder,
        tracking=tracking,
    )


def means(summary: Summary) -> dict[str, float]:
    """Mean and standard deviation over seeds of every test metric, by participant."""
    found: dict[str, float] = {}
    for row in summary.rows:
        name = f"{BASELINE}/{row.participant}" if row.role == ARM_ROLE[BASELINE] else row.participant
        for metric in row.evaluations[0].metrics():
            values = row.values(metric)
            mean = sum(values) / len(values)
            found[f"test/{name}/{metric}"] = mean
            if len(values) > 1:
                found[f"test/{name}/{metric}_std"] = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    if summary.difference:
        found |= {
            "gain/mean": summary.difference.mean,
            "gain/low": summary.difference.low,
            "gain/high": summary.difference.high,
        }
    return found


def draw_pictures(folder: Path, summary: Summary) -> list[Path]:
    """Confusion matrices and learning curves as PNG files, the first seed's."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for row in summary.rows:
        without = "-baseline" if row.role == ARM_ROLE[BASELINE] else ""
        drawn.append(folder / f"confusion-{_file_name(row.participant)}{without}.png")
        confusion_picture(row.evaluations[0], summary.classes, f"{row.participant}, {row.role}", drawn[-1])
    for title, lines in summary.curves.items():
        drawn.append(folder / f"{_file_name(title)}.png")
        curves_picture(lines, drawn[-1])
    return drawn


def _file_name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def curves(journal: Path, seed: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Learning curves of one seed by epoch: losses of every learner, and validation accuracy, from the run's journal."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        record = json.loads(line)
        if record.get("kind") != "metrics" or record.get("run") != f"seed-{seed}":
            continue
        for name, value in record["values"].items():
            title = "Validation accuracy" if "validation/" in name else "Training losses" if "train/" in name else ""
            if title and not name.endswith("step_") and "step" not in name.rsplit("/", 1)[-1]:
                short = name.replace("train/", "").replace("validation/", "").removesuffix("/accuracy")
                found.setdefault(title, {}).setdefault(short, []).append((record["step"], value))
    return found


def _teachers(
    recipe: Recipe, outcomes: Mapping[str, Sequence[Outcome]], by_arm: Mapping[str, Sequence[dict[str, Evaluation]]]
) -> list[Row]:
    first = outcomes[DISTILLED][0]
    rows = [
        Row(name, "teacher", _reads(recipe, name), [each[name] for each in by_arm[DISTILLED]], first.parameters[name])
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


def _selection(stages: Sequence[Stage]) -> str:
    """Which epoch's weights are evaluated, in words."""
    rules = {name: stage.training.select for stage in stages for name in stage.learners}
    said = {"last": "weights of the last epoch", "best": "weights of the epoch best on the validation part"}
    if len(set(rules.values())) == 1:
        return said[next(iter(rules.values()))]
    return "; ".join(f"{name}: {said[rule]}" for name, rule in rules.items())


def flattened(values: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists as ``a.b.0.c`` → value."""
    if isinstance(values, Mapping) and values:
        return {
            key: value
            for name, each in values.items()
            for key, value in flattened(each, f"{path}.{name}" if path else str(name)).items()
        }
    if isinstance(values, list) and values and any(isinstance(each, dict | list) for each in values):
        return {key: value for index, each in enumerate(values) for key, value in flattened(each, f"{path}.{index}").items()}
    return {path: values}
