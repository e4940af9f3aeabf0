"""Loading of recipes. All problems are reported at once; nothing is run or written, and no data are read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdcore.contracts.dataset import Dataset
from kdcore.errors import COMMAND_LINE, Problem, RecipeError, UsageError, type_name
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.plugin.registry import FROM_PYTHON
from kdcore.recipe.compatibility import check_compatibility
from kdcore.recipe.like_and_copies import expand_like_and_copies
from kdcore.recipe.merge import merge_recipes, without_nulls
from kdcore.recipe.misplaced import Misplaced
from kdcore.recipe.models import DEFAULT_TEACHER_LOSSES, Recipe
from kdcore.recipe.overrides import apply_overrides
from kdcore.recipe.plausibility import impossible_numbers, missing_files, unsaved_files
from kdcore.recipe.problems import Places, found_by_schema
from kdcore.recipe.python_values import node_of
from kdcore.recipe.relative_paths import with_absolute_paths, with_plugin_files
from kdcore.recipe.shipped import find_recipe, find_source, list_recipes
from kdcore.recipe.validate import check_components
from kdcore.recipe.yaml import Node, Steps, dotted, read, steps
from kdcore.suggestions import nearest

__all__ = ["find_recipe", "list_recipes", "load_recipe"]

_UNREADABLE = (OSError, RuntimeError, ValueError)
"""Exceptions raised for bad paths: RuntimeError for a loop of symbolic links, ValueError for a null byte."""


Source = str | Path | Mapping[str, Any] | Recipe
"""Path to a recipe, name of a shipped recipe, content of a recipe as a dictionary, or `Recipe`."""


def load_recipe(
    source: Source,
    overrides: Sequence[str] = (),
    plugins: PluginManager | None = None,
    data: Dataset | None = None,
    *,
    files: bool = True,
    part: str = "",
    objects: Mapping[str, Any] | None = None,
) -> Recipe:
    """Load a recipe from a file or dictionary and validate it without reading data.

    Args:
        source: Path to a recipe, name of a shipped recipe, content of a recipe as a dictionary, or a `kdcore.Recipe`. In a
            dictionary, an encoder may be a function or class.
        overrides: Overrides as ``path=value``, e.g. ``losses.gsdm.weight=0.1`` or ``data.dataset.name=utd-mhad``.
        plugins: Plugins that provide the components. Default: the installed plugins.
        data: Dataset that replaces the one in the recipe.
        files: Whether files of weights and stored outputs must exist. A finished run no longer needs them.
        part: Section that is used, such as ``data``. Problems in other sections are ignored if the recipe can be read.
        objects: Objects passed in Python, by the path at which they replace a component.

    Raises:
        RecipeError: Contains all problems, each with its file, line, path and, if possible, the nearest valid name.
        UsageError: If an argument has another type.

    Example:
        >>> import kdcore
        >>> recipe = kdcore.load_recipe("sakdn", ["seeds=[0]"])
        >>> recipe.seeds
        [0]
        >>> kdcore.load_recipe({"extends": "sakdn", "losses": {"soft-target": {"temprature": 2}}})
        Traceback (most recent call last):
        kdcore.errors.RecipeError: losses[1].temprature: the loss 'soft-target' has no option 'temprature' (did you mean …
    """
    _check_types(source, overrides, data)
    if isinstance(source, Recipe) and source.is_checked and not overrides and data in (None, source.given_dataset):
        return source
    plugins = plugins or plugin_manager()
    objects = {**(source._objects if isinstance(source, Recipe) else {}), **(objects or {})}
    if data is not None:
        objects["data.dataset"] = data
    read_problems: list[Problem] = []
    tree = _written_out(source, overrides, objects, read_problems)
    node = with_absolute_paths(with_plugin_files(without_nulls(tree), plugins.files), plugins)
    complete_tree = {"teacher_losses": DEFAULT_TEACHER_LOSSES} | node.plain()
    hint = Misplaced(complete_tree, plugins, frozenset(Recipe.model_fields)).hint
    lines = dict(tree.places()) | dict(node.places())  # a key removed with null is reported as missing at the line of the null
    places = Places(lines, COMMAND_LINE if isinstance(source, str | Path) else "", hint)
    read_problems += impossible_numbers(node, places, plugins)
    recipe, check_problems = _checked(node.plain(), complete_tree, places, plugins, objects, files)
    causes = [problem.path.removesuffix(".like") for problem in read_problems if problem.path]
    problems = read_problems + [problem for problem in check_problems if not _is_consequence(problem, causes)]
    if part and recipe is not None:
        problems = [problem for problem in problems if problem.path.split(".")[0] == part]
    if problems or recipe is None:
        raise RecipeError(sorted(_deduplicated(problems), key=lambda each: (str(each.file or ""), each.line or 0)))
    recipe._places, recipe._registry, recipe._objects = places.places, plugins.registry, objects
    return recipe


def _check_types(source: Any, overrides: Any, data: Any) -> None:
    """Refuse arguments of other types, which a notebook may pass."""
    if not isinstance(source, str | Path | Mapping | Recipe):
        raise UsageError(f"a recipe must be a name, a path, a dictionary or a kdcore.Recipe, not {type(source).__name__}")
    if isinstance(overrides, str | Mapping) or not all(isinstance(each, str) for each in overrides):
        raise UsageError(f'overrides must be a list of strings, e.g. ["seeds=[0]"], not {overrides!r}')
    if data is not None and not isinstance(data, Dataset):
        what = "a kdcore.Dataset, such as kdcore.ArrayDataset(signals, labels)"
        raise UsageError(f"data must be {what}, not {type_name(data)}")


def _checked(
    tree: Any, complete_tree: Any, places: Places, plugins: PluginManager, objects: Mapping[str, Any], files: bool
) -> tuple[Recipe | None, list[Problem]]:
    """Return the recipe, None if it has invalid values, and all problems.

    Args:
        tree: Values as written.
        complete_tree: The same values with the default losses of teachers.
        places: Source locations of the values.
        plugins: Plugins that provide the components.
        objects: Objects passed in Python, by path.
        files: Whether files must exist.
    """
    recipe, problems = _validated(tree, places)
    stand_in, removed = (recipe, []) if recipe else _without_invalid_values(tree, problems)
    components = check_components(complete_tree, places, plugins)
    problems += components.problems
    if stand_in:
        stand_in._objects = objects
        incompatible = check_compatibility(stand_in, tree, components, places)
        problems += [problem for problem in incompatible if not _is_consequence(problem, removed)]
        problems += unsaved_files(tree, places, plugins)
        if files:
            problems += missing_files(stand_in, tree, places, plugins)
    return recipe, problems


def _written_out(source: Source, overrides: Sequence[str], objects: Mapping[str, Any], problems: list[Problem]) -> Node:
    """Return the recipe with its bases, overrides, ``like``, ``copies`` and the dataset passed in Python written out."""
    node = _read_with_bases(source, problems)
    node = apply_overrides(node, overrides, problems)
    node = expand_like_and_copies(node, problems)
    return _with_python_dataset(node) if "data.dataset" in objects else node


def _with_python_dataset(node: Node) -> Node:
    data = node.get("data") or Node({})
    if not data.is_mapping:
        return node
    return node.replaced({**node.value, "data": data.replaced({**data.value, "dataset": Node(FROM_PYTHON)})})


def _read_with_bases(source: Source, problems: list[Problem]) -> Node:
    try:
        if isinstance(source, str | Path):
            return _read_file(find_source(source), (), problems)
        places = source._places if isinstance(source, Recipe) else None
        return _with_bases(node_of(source, places), Path("recipe.yaml"), (), problems)
    except RecipeError as error:
        raise RecipeError([*problems, *error.problems]) from error
    except _UNREADABLE as error:
        raise RecipeError([*problems, Problem("", f"could not read {str(source)!r}: {_cause(error)}")]) from error


def _cause(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def _read_file(file: Path, chain: tuple[Path, ...], problems: list[Problem]) -> Node:
    """Read a file and merge it over the recipes that it extends."""
    file = _display_path(file)
    return _with_bases(read(file, problems), file, (*chain, file.resolve()), problems)


def _with_bases(node: Node, file: Path, chain: tuple[Path, ...], problems: list[Problem]) -> Node:
    """Merge a mapping over the recipes that it extends, which are looked up relative to `file`."""
    extends = node.value.pop("extends", None)
    bases = [_base(name, file, chain, problems) for name in _names(extends)]
    return reduce(merge_recipes, [*bases, node])


def _base(name: Node, file: Path, chain: tuple[Path, ...], problems: list[Problem]) -> Node:
    try:
        return _read_file(_find_base(name, file, chain), chain, problems)
    except _UNREADABLE as error:
        message = f"could not read {name.value!r}: {_cause(error)}"
        raise RecipeError([Problem("extends", message, name.file, name.line)]) from error


def _names(extends: Node | None) -> list[Node]:
    names = [] if extends is None else extends.value if extends.is_list else [extends]
    for name in names:
        if not isinstance(name.value, str):
            what = "must be a path, the name of a recipe, or a list of these"
            raise RecipeError([Problem("extends", what, name.file, name.line)])
    return names


def _find_base(name: Node, file: Path, chain: tuple[Path, ...]) -> Path:
    relative = file.parent / os.path.expanduser(name.value)
    path = relative if relative.is_file() else None
    if path is None:
        try:
            path = find_recipe(name.value)
        except RecipeError as error:
            near = nearest(relative.name, [each.name for each in relative.parent.glob("*.yaml") if each != file])
            hint = f"did you mean {near!r}?" if near else error.problems[0].hint
            raise RecipeError([Problem("extends", f"there is no recipe {name.value!r}", name.file, name.line, hint)]) from error
    if path.resolve() in chain:
        circle = [*chain[chain.index(path.resolve()) :], path]
        names = " → ".join(each.name for each in circle)
        raise RecipeError([Problem("extends", f"circular `extends:` reference: {names}", name.file, name.line)])
    return path


def _display_path(file: Path) -> Path:
    """Return `file` relative to the current folder if it is inside it, or else unchanged."""
    absolute, current = file.resolve(), Path.cwd()
    return absolute.relative_to(current) if absolute.is_relative_to(current) else file


def _validated(tree: Any, places: Places) -> tuple[Recipe | None, list[Problem]]:
    try:
        return Recipe.model_validate_json(json.dumps(tree)), []
    except ValidationError as error:
        return None, found_by_schema(error, tree, places, Recipe, also=("extends",))


def _without_invalid_values(tree: Any, problems: Sequence[Problem]) -> tuple[Recipe | None, list[str]]:
    """Return the recipe without its invalid values, so that the rest can be checked in the same pass, and the removed paths."""
    tree = deepcopy(tree)
    removed = []
    for holder, path in [_enclosing_key(tree, steps(problem.path)) for problem in problems]:
        if path:
            holder.pop(path[-1], None)
            removed.append(dotted(path))
    try:
        return Recipe.model_validate_json(json.dumps(tree)), removed
    except ValidationError:
        return None, removed


def _enclosing_key(tree: Any, path: Steps) -> tuple[dict[Any, Any], Steps]:
    """Return the mapping that contains the value at `path`, or the closest enclosing one, and the path of the value in it."""
    holder: dict[Any, Any] = {}
    held: Steps = ()
    for number, step in enumerate(path):
        if isinstance(tree, dict) and step in tree:
            holder, held, tree = tree, path[: number + 1], tree[step]
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            tree = tree[step]
        else:
            break
    return holder, held


def _deduplicated(problems: Sequence[Problem]) -> Iterable[Problem]:
    """Remove duplicates of a problem in participants that inherit it through `like`."""
    unique: dict[Any, Problem] = {}
    for each in problems:
        within = re.sub(r"^(student|(teachers|students)\.[^.]+)\.", "", each.path)
        unique.setdefault((each.file, each.line, within, each.message) if each.file else each, each)
    return unique.values()


def _is_consequence(problem: Problem, causes: Iterable[str]) -> bool:
    """Return whether a problem is at or below one of the paths `causes`, whose values are already known to be wrong."""
    return any(problem.path == cause or problem.path.startswith((f"{cause}.", f"{cause}[")) for cause in causes)
