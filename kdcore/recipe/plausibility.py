"""Values that are wrong for any component: numbers out of range, and missing files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdcore.errors import Problem
from kdcore.plugin.manager import PluginManager
from kdcore.recipe.components import known_components
from kdcore.recipe.models import Recipe
from kdcore.recipe.problems import Places
from kdcore.recipe.yaml import Node, Steps, leaves, steps

LARGEST_INTEGER = 2**63 - 1
"""Largest 64-bit integer: tensors cannot contain larger ones."""


def impossible_numbers(recipe: Node, places: Places, plugins: PluginManager) -> list[Problem]:
    """Return a problem for each number that is not finite or does not fit into 64 bits.

    An infinite value is accepted for an option of a component that is infinite by default.
    """
    tree = recipe.plain()
    problems = []
    for path, value in leaves(tree):
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            problems.append(places.problem(path, f"the number {value} does not fit into 64 bits"))
        elif isinstance(value, float) and not math.isfinite(value) and not _infinite_by_default(tree, path, plugins):
            problems.append(places.problem(path, f"must be a finite number, not {value}"))
    return problems


def missing_files(recipe: Recipe, tree: Mapping[str, Any], places: Places, plugins: PluginManager) -> list[Problem]:
    """Return a problem for each missing file: weights, stored outputs, and files in options of encoders and protocols."""
    files = _files(recipe, tree, plugins)
    return [places.problem(path, problem) for path, file in files if (problem := _unreadable(file))]


def _files(recipe: Recipe, tree: Mapping[str, Any], plugins: PluginManager) -> Iterator[tuple[Steps, Path]]:
    for each in known_components(tree, plugins):
        for key in each.files if each.kind in ("encoder", "protocol") else ():
            if isinstance(each.options[key], str):
                yield (*each.path, key), Path(each.options[key])
    for name, spec in recipe.specs.items():
        path = steps(recipe.path_of(name))
        if spec.weights:
            yield (*path, "weights"), spec.weights.file
        if spec.outputs:
            yield (*path, "outputs"), spec.outputs


def _infinite_by_default(tree: Mapping[str, Any], path: Steps, plugins: PluginManager) -> bool:
    """True if `path` is an option of a component whose default is the same infinite number."""
    key = str(path[-1])
    for each in known_components(tree, plugins):
        if each.path == path[:-1] and key in each.fields:
            default = each.fields[key].default
            return isinstance(default, float) and default == each.options.get(key)
    return False


def _unreadable(path: Path) -> str:
    """Return why the file at `path` cannot be read; empty if it can."""
    try:
        return "" if path.expanduser().exists() else f"there is no file {str(path)!r}"
    except (OSError, RuntimeError, ValueError) as error:
        return f"could not look for the file {str(path)!r}: {getattr(error, 'strerror', None) or error}"


def unsaved_files(tree: Mapping[str, Any], places: Places, plugins: PluginManager) -> Iterator[Problem]:
    """Find components of students that could not be constructed again from a saved student, which contains no other files."""
    for known in known_components(tree, plugins):
        if known.path[0] not in ("student", "students"):
            continue
        for key in known.files:
            if not known.options[key] or (known.kind == "encoder" and not known.fields[key].is_required()):
                continue  # a source of first weights, which the saved ones replace
            what = f"the {known.kind} {known.name!r} of a student requires the file of its option {key!r}"
            how = "give the option the default None, and keep what the file holds in buffers" if known.kind == "encoder" else ""
            yield places.problem((*known.path, key), f"{what}, which a saved student does not contain", how)
