"""The parts of a recipe, and the recipe without each of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kdcore import Builder, KdcoreError, Recipe, RecipeError, Stage, Team, load_recipe

WHOLE, ALONE = "whole", "student alone"


@dataclass(frozen=True)
class Variant:
    """One row of an ablation.

    Args:
        label: What it is called.
        overrides: That make its recipe.
        who: Whose results count: the student's if empty, else ``baseline``, ``teachers`` or a teacher's name.
        impossible: Why it cannot be run; empty if it can.
    """

    label: str
    overrides: tuple[str, ...] = ()
    who: str = ""
    impossible: str = ""


def variants(source: str, overrides: Sequence[str] = ()) -> list[Variant]:
    """Whole; without each term, without the fusion, with teachers first; student alone; teachers alone.

    A variant without any term of distillation is the student alone, and is left out. Student and teachers alone are taken
    from the whole recipe's runs.

    Raises:
        RecipeError: If the recipe itself is wrong.
    """
    recipe = load_recipe(source, overrides)
    whole = Variant(WHOLE, _named(recipe, WHOLE, ["baseline=true"]))
    found = [whole]
    for label, changes in _changes(recipe):
        variant = Variant(label, _named(recipe, label, [*changes, "baseline=false"]))
        found.append(_checked(source, overrides, variant))
    found = [each for each in found if each.impossible or _distils(load_recipe(source, [*overrides, *each.overrides]))]
    if whole not in found:
        raise KdcoreError("the recipe distils nothing: no term of its losses needs teachers or peers")
    if _learns_alone(recipe):
        found.append(replace(whole, label=ALONE, who="baseline"))
    teachers = [replace(whole, label=f"teacher {name}", who=name) for name in recipe.teachers]
    together = [replace(whole, label="teachers together", who="teachers")] if len(teachers) > 1 else []
    return [*found, *teachers, *together]


def _changes(recipe: Recipe) -> Iterator[tuple[str, list[str]]]:
    for role, what in (("losses", ""), ("teacher_losses", "teachers' ")):
        terms = getattr(recipe, role)
        active = [(index, term) for index, term in enumerate(terms) if term.active]
        for index, term in active if len(active) > 1 and (recipe.teachers or not what) else ():
            yield f"without {what}{term.id}", [f"{role}[{index}]=null"]
    if recipe.fusion:
        yield f"without {recipe.fusion.name}", ["fusion=null"]
    if recipe.schedule.name.rpartition("/")[2] != "two-stage" and recipe.teachers:
        yield "two-stage schedule", [f"schedule={json.dumps(_two_stage(recipe))}"]


def _two_stage(recipe: Recipe) -> dict[str, Any]:
    """The schedule in which teachers learn to the end before students begin, with as many epochs for everybody."""
    team = Team(tuple(recipe.teachers), tuple(recipe.student_specs))
    stages = list(Builder(recipe).schedule().stages(team))
    taught = [stage for stage in stages if set(stage.learners) <= set(team.teachers)]
    learnt = [stage for stage in stages if not set(stage.learners) <= set(team.teachers)]
    found: dict[str, Any] = {"name": "two-stage"}
    if taught:
        found |= {"teachers": _training(taught), "teacher_part": taught[0].part}
    return found | {"student": _training(learnt)}


def _training(stages: Sequence[Stage]) -> dict[str, Any]:
    return asdict(replace(stages[0].training, epochs=stages[0].training.epochs))


def name_of(recipe: Recipe) -> str:
    """What the ablation of a recipe is called."""
    return f"{recipe.name}-{recipe.variant[:6]}"


def _named(recipe: Recipe, label: str, changes: Sequence[str]) -> tuple[str, ...]:
    """Changes, with a name of its own, tracked beside the others and found with them by a tag."""
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    tags = json.dumps({**recipe.tracking.tags, "ablation": name_of(recipe), "variant": label})
    experiment = json.dumps(recipe.tracking.experiment)
    return (*changes, f"name={recipe.name}-{slug}", f"tracking.experiment={experiment}", f"tracking.tags={tags}")


def _checked(source: str, overrides: Sequence[str], variant: Variant) -> Variant:
    try:
        load_recipe(source, [*overrides, *variant.overrides])
    except RecipeError as error:
        return replace(variant, impossible=error.problems[0].message)
    return variant


def _distils(recipe: Recipe) -> bool:
    """Whether any term of the students needs teachers or peers."""
    return any(needs.teachers or needs.peers for needs in _needs(recipe))


def _learns_alone(recipe: Recipe) -> bool:
    return any(not (needs.teachers or needs.peers) for needs in _needs(recipe))


def _needs(recipe: Recipe) -> list[Any]:
    builder = Builder(recipe)
    return [builder.loss("losses", index).needs for index, term in enumerate(recipe.losses) if term.active]
