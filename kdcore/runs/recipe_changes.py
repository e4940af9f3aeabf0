"""The values by which a run's recipe differs from the recipe that it is based on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcore.errors import KdcoreError, Problem
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import make_plan
from kdcore.recipe.shipped import find_recipe, find_source, list_recipes
from kdcore.recipe.yaml import read
from kdcore.runs.journal import changed_keys, flattened

UNCOUNTED = ("name", "description", "tracking.")
"""Keys that change nothing in what is computed."""


@dataclass(frozen=True)
class RecipeChanges:
    """Changes to a base recipe.

    Args:
        base: Name of the base recipe: the recipe that the file extends, else the file itself, without overrides.
        values: Key → (value in the base, value in this recipe); None where a recipe does not have the key.
    """

    base: str = ""
    values: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def recipe_changes(command: Sequence[str], filled: Mapping[str, Any]) -> RecipeChanges:
    """Compare a run's recipe with its base recipe.

    Args:
        command: The command that started the run: ``kdcore run RECIPE [key=value …]``.
        filled: The run's recipe as plain values, with every default written out.

    Returns:
        The changes; none, and no base, if the command names no recipe that can still be read.
    """
    if list(command[:2]) != ["kdcore", "run"] or len(command) < 3:
        return RecipeChanges()
    try:
        base = _base_of(command[2])
        before = flattened(make_plan(load_recipe(base)).filled)
    except (KdcoreError, OSError):
        return RecipeChanges()
    after = flattened(filled)
    changed = [key for key in changed_keys(before, after) if not key.startswith(UNCOUNTED)]
    return RecipeChanges(str(base), {key: (before.get(key), after.get(key)) for key in changed})


def _base_of(source: str) -> str | Path:
    """The recipe that a recipe extends, the first if there are several, else the recipe itself."""
    file = find_source(source)
    problems: list[Problem] = []
    extends = read(file, problems).get("extends")
    if problems or extends is None:
        return source
    named = extends.value[0].value if extends.is_list else extends.value
    beside = file.parent / Path(named).expanduser()
    base = (beside if beside.is_file() else find_recipe(named)).resolve()
    return next((name for name in list_recipes() if find_recipe(name).resolve() == base), base)
