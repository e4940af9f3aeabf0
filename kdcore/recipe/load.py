"""Loading of recipes: all problems are reported at once; nothing is run or written, and no data are opened."""

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
from kdcore.errors import Problem, RecipeError
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.plugin.registry import FROM_PYTHON
from kdcore.recipe.compatibility import check_compatibility
from kdcore.recipe.merge import merge_recipes, without_nulls
from kdcore.recipe.misplaced import Misplaced
from kdcore.recipe.models import DEFAULT_TEACHER_LOSSES, Recipe
from kdcore.recipe.overrides import apply_overrides
from kdcore.recipe.participants import written_out
from kdcore.recipe.plausibility import impossible_numbers, missing_files
from kdcore.recipe.problems import Places, found_by_schema
from kdcore.recipe.python_values import node_of
from kdcore.recipe.relative_paths import located, with_whole_paths
from kdcore.recipe.shipped import find_recipe, find_source, list_recipes
from kdcore.recipe.validate import check_components
from kdcore.recipe.yaml import Node, Steps, read, steps
from kdcore.suggestions import nearest

__all__ = ["find_recipe", "list_recipes", "load_recipe"]

_UNREADABLE = (OSError, RuntimeError, ValueError)
"""Raised by paths: the second for a loop of links, the third for a null byte."""


Source = str | Path | Mapping[str, Any] | Recipe
"""A file, the name of a shipped recipe, the recipe as a dictionary, or a recipe."""


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
    """Load a recipe from a file or dictionary, and check everything that can be checked before data are read.

    Args:
        source: A file, the name of a shipped recipe, a dictionary with the content of a recipe, or a `kdcore.Recipe`. In a
            dictionary, an encoder may be a function or class.
        overrides: ``path=value``, e.g. ``losses.gsdm.weight=0.1`` or ``data.dataset.name=utd-mhad``.
        plugins: Plugins that provide the components; the installed ones by default.
        data: A dataset that replaces the recipe's.
        files: Whether files of weights and stored outputs must exist; a finished run no longer needs them.
        part: Section that is used, such as ``data``: problems in others are ignored as long as the recipe can be read.
        objects: Path → object that replaces the component ``from-python`` there.

    Raises:
        RecipeError: With every problem found, each with its file, line, path and, where there is one, the nearest valid name.

    Example:
        >>> import kdcore
        >>> recipe = kdcore.load_recipe("sakdn", ["seeds=[0]"])
        >>> recipe.seeds
        [0]
        >>> kdcore.load_recipe({"extends": "sakdn", "losses": {"soft-target": {"temprature": 2}}})
        Traceback (most recent call last):
        kdcore.errors.RecipeError: losses[1].temprature: the loss 'soft-target' has no option 'temprature' (did you mean …
    """
    if isinstance(source, Recipe) and source.is_checked and not overrides and data in (None, source.given_dataset):
        return source
    plugins = plugins or plugin_manager()
    objects = {**(source._objects if isinstance(source, Recipe) else {}), **(objects or {})}
    if data is not None:
        objects["data.dataset"] = data
    early: list[Problem] = []
    written = written_out(apply_overrides(_read_with_bases(source, early), overrides, early), early)
    if "data.dataset" in objects:
        written = _on(written)
    node = with_whole_paths(located(without_nulls(written), plugins.files), plugins)
    whole = {"teacher_losses": DEFAULT_TEACHER_LOSSES} | node.plain()
    hint = Misplaced(whole, plugins, frozenset(Recipe.model_fields)).hint
    lines = dict(written.places()) | dict(node.places())  # what null took away is missed where that was said
    places = Places(lines, "command line" if isinstance(source, str | Path) else "", hint)
    early += impossible_numbers(node, places, plugins)
    recipe, found = _checked(node.plain(), whole, places, plugins, objects, files)
    problems = early + [problem for problem in found if not _follows(problem, early)]
    if part and recipe is not None:
        problems = [problem for problem in problems if problem.path.split(".")[0] == part]
    if problems or recipe is None:
        raise RecipeError(sorted(_once(problems), key=lambda each: (str(each.file or ""), each.line or 0)))
    recipe._places, recipe._registry, recipe._objects = places.places, plugins.registry, objects
    return recipe


def _checked(
    tree: Any, whole: Any, places: Places, plugins: PluginManager, objects: Mapping[str, Any], files: bool
) -> tuple[Recipe | None, list[Problem]]:
    """Parse `tree`: the recipe, or None if values are wrong, and all problems.

    Args:
        tree: As written.
        whole: The same with the losses that teachers have by default.
        places: Lines of the values.
        plugins: Who provides components.
        objects: Path → what was passed in Python.
        files: Whether files must exist.
    """
    recipe, problems = _validated(tree, places)
    stand_in = recipe or _stand_in(tree, problems)
    components = check_components(whole, places, plugins)
    problems += components.problems
    if stand_in:
        stand_in._objects = objects
        problems += check_compatibility(stand_in, tree, components, places)
        if files:
            problems += missing_files(stand_in, tree, places, plugins)
    return recipe, problems


def _on(node: Node) -> Node:
    """The recipe with a dataset that was passed in Python."""
    data = node.get("data") or Node({})
    if not data.is_mapping:
        return node
    given = data.replaced({**data.value, "dataset": Node(FROM_PYTHON)})
    return node.replaced({**node.value, "data": given})


def _read_with_bases(source: Source, problems: list[Problem]) -> Node:
    try:
        if isinstance(source, str | Path):
            return _gathered(find_source(source), (), problems)
        places = source._places if isinstance(source, Recipe) else None
        return _with_bases(node_of(source, places), Path("recipe.yaml"), (), problems)
    except RecipeError as error:
        raise RecipeError([*problems, *error.problems]) from error
    except _UNREADABLE as error:
        raise RecipeError([*problems, Problem("", f"could not read {str(source)!r}: {_cause(error)}")]) from error


def _cause(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def _gathered(file: Path, chain: tuple[Path, ...], problems: list[Problem]) -> Node:
    """A file's mapping, laid over those that it extends."""
    file = _shown(file)
    return _with_bases(read(file, problems), file, (*chain, file.resolve()), problems)


def _with_bases(node: Node, file: Path, chain: tuple[Path, ...], problems: list[Problem]) -> Node:
    """A mapping laid over the recipes that it extends, which are looked for beside `file`."""
    extends = node.value.pop("extends", None)
    bases = [_base(name, file, chain, problems) for name in _names(extends)]
    return reduce(merge_recipes, [*bases, node])


def _base(name: Node, file: Path, chain: tuple[Path, ...], problems: list[Problem]) -> Node:
    try:
        return _gathered(_extended(name, file, chain), chain, problems)
    except _UNREADABLE as error:
        said = f"could not read {name.value!r}: {_cause(error)}"
        raise RecipeError([Problem("extends", said, name.file, name.line)]) from error


def _names(extends: Node | None) -> list[Node]:
    listed = [] if extends is None else extends.value if extends.is_list else [extends]
    for each in listed:
        if not isinstance(each.value, str):
            raise RecipeError(
                [Problem("extends", "must be a file, the name of a recipe, or a list of such", each.file, each.line)]
            )
    return listed


def _extended(name: Node, file: Path, chain: tuple[Path, ...]) -> Path:
    beside = file.parent / os.path.expanduser(name.value)
    found = beside if beside.is_file() else None
    if found is None:
        try:
            found = find_recipe(name.value)
        except RecipeError as error:
            near = nearest(beside.name, [each.name for each in beside.parent.glob("*.yaml") if each != file])
            hint = f"did you mean {near!r}?" if near else error.problems[0].hint
            raise RecipeError([Problem("extends", f"there is no recipe {name.value!r}", name.file, name.line, hint)]) from error
    if found.resolve() in chain:
        circle = [*chain[chain.index(found.resolve()) :], found]
        names = " → ".join(each.name for each in circle)
        raise RecipeError([Problem("extends", f"circular `extends:` reference: {names}", name.file, name.line)])
    return found


def _shown(file: Path) -> Path:
    """Shortest path of `file`, relative to the current folder if possible."""
    absolute, here = file.resolve(), Path.cwd()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else file


def _validated(tree: Any, places: Places) -> tuple[Recipe | None, list[Problem]]:
    try:
        return Recipe.model_validate_json(json.dumps(tree)), []
    except ValidationError as error:
        return None, found_by_schema(error, tree, places, Recipe, also=("extends",))


def _stand_in(tree: Any, problems: Sequence[Problem]) -> Recipe | None:
    """The recipe without the wrong values, so that the rest can be checked in the same pass."""
    tree = deepcopy(tree)
    for holder, key in [_keyed(tree, steps(problem.path)) for problem in problems]:
        holder.pop(key, None)
    try:
        return Recipe.model_validate_json(json.dumps(tree))
    except ValidationError:
        return None


def _keyed(tree: Any, path: Steps) -> tuple[dict[Any, Any], str | int]:
    """The mapping and key of what is at `path`, or of the nearest thing around it that has a key."""
    holder: dict[Any, Any] = {}
    last: str | int = ""
    for step in path:
        if isinstance(tree, dict) and step in tree:
            holder, last, tree = tree, step, tree[step]
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            tree = tree[step]
        else:
            break
    return holder, last


def _once(problems: Sequence[Problem]) -> Iterable[Problem]:
    """Remove problems that a participant only inherits through `like`."""
    found: dict[Any, Problem] = {}
    for each in problems:
        within = re.sub(r"^(student|(teachers|students)\.[^.]+)\.", "", each.path)
        found.setdefault((each.file, each.line, within, each.message) if each.file else each, each)
    return found.values()


def _follows(problem: Problem, early: Sequence[Problem]) -> bool:
    """True if a problem is a consequence of one that was found while reading."""
    causes = [cause.path.removesuffix(".like") for cause in early if cause.path]
    return any(problem.path == cause or problem.path.startswith((f"{cause}.", f"{cause}[")) for cause in causes)
