"""Derive the variants of an ablation: a recipe without each of its parts in turn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kdcore import KdcoreError, LearnerTerm, Plan, Recipe, RecipeError, StagePlan, load_recipe, make_plan
from kdcore_compare.train_variants import group_name, named_overrides

FULL, BASELINE = "full recipe", "baseline"
FULL_SLUG = "full-recipe"


@dataclass(frozen=True)
class Variant:
    """One row of an ablation.

    Args:
        label: Name of the row.
        overrides: Overrides that turn the recipe into the variant.
        who: Participant that is evaluated: empty for the student, else ``baseline``, ``teachers`` or a teacher's name.
        impossible: Reason why the variant cannot be trained; empty if it can.
    """

    label: str
    overrides: tuple[str, ...] = ()
    who: str = ""
    impossible: str = ""


def variants_of(source: str, overrides: Sequence[str] = ()) -> list[Variant]:
    """Return the full recipe; without each loss term; without the fusion; with the two-stage schedule; baseline; and teachers.

    A variant without any distillation term equals the baseline and is omitted. Baseline and teachers are evaluated from the
    runs of the full recipe.

    Raises:
        RecipeError: If the recipe itself is invalid.
    """
    recipe = load_recipe(source, overrides)
    full = Variant(FULL, _named(recipe, FULL, ["baseline=true"]))
    found = [full]
    for label, changes in _changes(recipe):
        variant = Variant(label, _named(recipe, label, [*changes, "baseline=false"]))
        found.append(_checked(source, overrides, variant))
    found = [each for each in found if each.impossible or _distils(load_recipe(source, [*overrides, *each.overrides]))]
    if full not in found:
        raise KdcoreError("nothing to ablate: no loss term of this recipe uses teachers or peers")
    if make_plan(load_recipe(source, [*overrides, *full.overrides])).compared:
        found.append(replace(full, label=BASELINE, who="baseline"))
    teachers = [replace(full, label=f"teacher {name}", who=name) for name in recipe.teachers]
    several = sum(not teacher.is_copy for teacher in recipe.teachers.values()) > 1
    joint = [replace(full, label="teachers (mean)", who="teachers")] if several else []
    return [*found, *teachers, *joint]


def _changes(recipe: Recipe) -> Iterator[tuple[str, list[str]]]:
    plan = make_plan(recipe)
    terms: dict[str, tuple[str, list[LearnerTerm]]] = {}  # path of a list of terms → its owner and active terms
    for each in sorted(plan.participants.values(), key=lambda each: each.role == "teacher"):
        place, _ = recipe.terms_of(each.name)
        whose = {"losses": "", "teacher_losses": "teachers' "}.get(place, f"{each.name}'s ")
        terms[place] = (whose, [term for term in each.terms if term.term.active])
    for whose, active in terms.values():
        for term in active if len(active) > 1 else ():
            yield f"without {whose}{term.term.id}", [f"{term.path}=null"]
    if recipe.fusion:
        yield f"without {recipe.fusion.name}", ["fusion=null"]
    if recipe.schedule and recipe.schedule.name.rpartition("/")[2] != "two-stage" and recipe.teachers:
        yield "two-stage schedule", [f"schedule={json.dumps(_two_stage(plan))}"]


def _two_stage(plan: Plan) -> dict[str, Any]:
    """Return the two-stage schedule with the same epochs for teachers and students as in the recipe's schedule."""
    stages = plan.stages["distilled"]
    teaching = [stage for stage in stages if set(stage.learners) <= set(plan.teachers)]
    learning = [stage for stage in stages if not set(stage.learners) <= set(plan.teachers)]
    found: dict[str, Any] = {"name": "two-stage"}
    if teaching:
        found |= {"teachers": _training(teaching[0], plan.teachers), "teacher_split": teaching[0].split}
    return found | {"student": _training(learning[0], plan.students)}


def _training(stage: StagePlan, names: Sequence[str]) -> dict[str, Any]:
    """Return the training of the first of `names` that learns in a stage, with its epochs over all stages."""
    return asdict(next(training for name, training in stage.training.items() if name in names))


def _named(recipe: Recipe, label: str, changes: Sequence[str]) -> tuple[str, ...]:
    """Return overrides plus the variant's name, the common experiment, and tags that identify the ablation."""
    return named_overrides(recipe, label, changes, {"ablation": group_name(recipe), "variant": label})


def _checked(source: str, overrides: Sequence[str], variant: Variant) -> Variant:
    try:
        load_recipe(source, [*overrides, *variant.overrides])
    except RecipeError as error:
        return replace(variant, impossible=error.problems[0].message)
    return variant


def _distils(recipe: Recipe) -> bool:
    """Return whether a loss term of a student is not part of its baseline."""
    plan = make_plan(recipe)
    return any(
        each.terms_in("distilled") != each.terms_in("baseline") for each in (plan.participants[n] for n in plan.students)
    )
