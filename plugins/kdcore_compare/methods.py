"""Methods of a comparison: a recipe's student with one distillation loss at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

from kdcore import (
    KdcoreError,
    Plan,
    Ramp,
    Recipe,
    RecipeError,
    StoppedError,
    UsageError,
    dry_run,
    load_recipe,
    make_plan,
    one_line,
)
from kdcore_compare.train_variants import group_name, named_overrides

if TYPE_CHECKING:
    from kdcore.training.preflight import Preflight

EVERY = "all"
"""Selects all registered losses."""

REUSE = "engine.reuse_teachers=true"


@dataclass(frozen=True)
class Method:
    """A student's objective with a single distillation loss.

    Args:
        label: Name of the row: the id of the term.
        term: The term, as a recipe writes it.
        weights: The weights to choose from.
        impossible: Reason why the recipe cannot be trained with it; empty if it can.
        parameters: Parameters of the loss itself, trained with the student.
    """

    label: str
    term: dict[str, Any]
    weights: tuple[float, ...]
    impossible: str = ""
    parameters: int = 0


@dataclass(frozen=True)
class Methods:
    """The methods to compare.

    Args:
        recipe: The recipe.
        path: Path of the student's objective in the recipe.
        base: Terms of all methods, and the only terms of the baseline.
        methods: One method per loss.
    """

    recipe: Recipe
    path: str
    base: tuple[dict[str, Any], ...]
    methods: tuple[Method, ...]

    def overrides(self, method: Method, weight: float, label: str, changes: Sequence[str] = ()) -> tuple[str, ...]:
        """Return overrides that train the student with one method. Teachers are trained once for all methods.

        Args:
            method: The method.
            weight: Weight of its term.
            label: Name of the variant.
            changes: Further overrides.
        """
        objective = json.dumps([*self.base, {**method.term, "weight": weight}])
        tags = {"methods": group_name(self.recipe), "method": method.label, "weight": f"{weight:g}"}
        return named_overrides(self.recipe, label, [f"{self.path}={objective}", REUSE, *changes], tags)


def parse_grid(text: str) -> list[float]:
    """Parse the factors in ``number,number,…``.

    Raises:
        UsageError: If they are not distinct positive numbers.
    """
    try:
        grid = [float(each) for each in text.split(",")]
    except ValueError:
        grid = []
    if not grid or not all(0 < each < inf for each in grid) or len(set(grid)) < len(grid):
        raise UsageError(f"--grid {text!r}: expected distinct positive numbers, such as 0.1,1,10")
    return grid


def methods_of(source: str, overrides: Sequence[str], grid: Sequence[float], losses: Sequence[str] = ()) -> Methods:
    """The methods of a recipe: the distillation terms of its student's objective, then the losses named.

    A term of the recipe is tried with its own weight times each number of the grid, or with the grid itself if its weight is 0.

    Args:
        source: Path or name of the recipe.
        overrides: ``key=value`` each.
        grid: Positive numbers.
        losses: Names of losses to add with default options; ``all`` adds every registered one.

    Raises:
        RecipeError: If the recipe itself is not valid.
        PluginError: If no plugin provides a loss that is named.
        UsageError: If it has several students, or there is nothing to compare.
    """
    recipe = load_recipe(source, overrides)
    plan = make_plan(recipe)
    if len(plan.students) != 1:
        raise UsageError(f"a comparison of methods needs a single student; this recipe has {len(plan.students)}")
    path, terms = recipe.terms_of(plan.students[0])
    kept = {each.term.id for each in plan.participants[plan.students[0]].terms if each.needs.in_baseline}
    base = [each.flat() for each in terms if each.id in kept and each.active]
    if not base:
        raise UsageError("nothing to compare with: the student's objective has no term without distillation")
    written = [each for each in terms if each.id not in kept]
    ramped = [each.id for each in written if isinstance(each.weight, Ramp)]
    if ramped:
        raise UsageError(f"the weight of {ramped[0]!r} is a ramp; give it a number, which is multiplied by the grid")
    found = [Method(str(each.id), each.flat(), _weights(grid, each.weight)) for each in written]  # type: ignore[arg-type]
    used = {each.term["name"] for each in found} | {each["name"] for each in base}
    found += [Method(name, {"name": name}, tuple(grid)) for name in _named(recipe, losses) if name not in used]
    if not found:
        raise UsageError("nothing to compare: no term of the student's objective distils; add losses with --losses")
    return Methods(recipe, path, tuple(base), tuple(found))


def _weights(grid: Sequence[float], centre: float) -> tuple[float, ...]:
    return tuple(float(f"{factor * (centre or 1.0):.6g}") for factor in grid)


def _named(recipe: Recipe, losses: Sequence[str]) -> Iterator[str]:
    for name in dict.fromkeys(losses):
        if name == EVERY:
            yield from dict.fromkeys(each.name for each in recipe.registry.entries("loss"))
        else:
            recipe.registry.get("loss", name)
            yield name


def checked(methods: Methods, source: str, overrides: Sequence[str]) -> Methods:
    """Return the methods with their usable weights and parameters, or the reason why they cannot be trained.

    One batch is passed through each method, without training.
    """
    return replace(methods, methods=tuple(_checked(methods, each, source, overrides) for each in methods.methods))


def _checked(methods: Methods, method: Method, source: str, overrides: Sequence[str]) -> Method:
    weights, reasons, parameters = [], [], 0
    for weight in method.weights:
        words = [*overrides, *methods.overrides(method, weight, method.label)]
        try:
            plan = make_plan(load_recipe(source, words))
            if not _distils(plan):
                return replace(method, impossible="it is not a distillation term: the baseline keeps it")
            found = dry_run(source, words)
        except StoppedError:
            raise
        except KdcoreError as error:
            reasons.append(_reason(error))
            if isinstance(error, RecipeError):  # the same for other weights
                break
        else:
            weights.append(weight)
            parameters = _parameters(found, plan.students[0], methods.base)
    if not weights:
        return replace(method, impossible=reasons[0])
    return replace(method, weights=tuple(weights), parameters=parameters)


def _parameters(found: Preflight | None, student: str, base: Sequence[dict[str, Any]]) -> int:
    """Parameters of the student's losses that the baseline does not have."""
    kept = {each["id"] for each in base}
    return sum(each.parameters for each in found.terms if each.learner == student and each.term not in kept) if found else 0


def _reason(error: KdcoreError) -> str:
    return error.problems[0].message if isinstance(error, RecipeError) else one_line(error)


def _distils(plan: Plan) -> bool:
    student = plan.participants[plan.students[0]]
    return student.terms_in("distilled") != student.terms_in("baseline")
